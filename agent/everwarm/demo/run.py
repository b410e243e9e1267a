"""The play in three ways, one after the other, each with its own processes and its own measurements.

`run_demo` yields nothing and prints nothing: what happens is told through callbacks, and what was measured comes
back as values. The order is that of history, so that Everwarm, last, finds the machine as warm in file caches as the
others left it; all three load from the page cache.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from everwarm.demo.claims import Claim, claims
from everwarm.demo.clips import Turn, load_clips, schedule
from everwarm.demo.measure import Meter, peak_bytes, peak_cpu_percent, steady_bytes
from everwarm.demo.player import Worker, play, running_workers
from everwarm.demo.protocol import MODEL_LIBRARIES
from everwarm.demo.results import Played, Way, WayResult
from everwarm.demo.weights import weights_folder
from everwarm.platform.events import PlatformEvent, PodLogged
from everwarm.platform.logs import LogLine
from everwarm.platform.plan import plan
from everwarm.platform.platform import LocalPlatform, running_platform, without_our_variables
from everwarm_core import pod_environment as variable
from everwarm_core.logs import Tag
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec

WORKERS: Final = 4  # as many as the system this project was born from
PODS: Final = 2  # the least that shows who served what
TINY: Final = "tiny.en"
BASE: Final = "base"


@dataclass(frozen=True, slots=True)
class Scene:
    """One model, and how many rounds of all workers follow after each has had its first request."""

    model: str
    full_rounds: int

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Its utterances, in order."""
        return schedule(load_clips(), workers=WORKERS, full_rounds=self.full_rounds)


@dataclass(frozen=True, slots=True)
class SceneResult:
    """A scene in its three ways, and what it proves."""

    model: str
    ways: tuple[WayResult, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """How far the demo is: *done* of *total* utterances of *model* in *way*."""

    model: str
    way: Way
    done: int
    total: int


def scenes(*, is_quick: bool, has_base: bool) -> tuple[Scene, ...]:
    """What is played: tiny.en, and base, which takes longer to load, where its weights are at hand and time is not
    short.
    """
    tiny = Scene(TINY, full_rounds=0 if is_quick else 1)
    if is_quick or not has_base:
        return (tiny,)
    return (tiny, Scene(BASE, full_rounds=0))


async def run_scene(scene: Scene, *, on_step: Callable[[Step], None]) -> SceneResult:
    """Play *scene* in the three ways. Raises PlatformError when a part of it cannot be started."""
    folder = await weights_folder(scene.model)
    before = await _with_models_in_workers(scene, Way.BEFORE, folder, on_step)
    cached = await _with_models_in_workers(scene, Way.CACHED, folder, on_step)
    everwarm = await _with_pods(scene, on_step)
    ways = (before, cached, everwarm)
    return SceneResult(scene.model, ways, claims(*ways))


async def _with_models_in_workers(
    scene: Scene, way: Way, folder: Path, on_step: Callable[[Step], None]
) -> WayResult:
    argv = (sys.executable, "-m", "everwarm.demo.workers", way.value, scene.model, str(folder))
    with Meter(_children) as meter:
        async with running_workers(
            [argv] * WORKERS, environment=without_our_variables(os.environ)
        ) as workers:
            result = await _measured_play(scene, way, workers, meter, on_step)
    return _with_loads(result, workers)


async def _with_pods(scene: Scene, on_step: Callable[[Step], None]) -> WayResult:
    resource = WhisperModel(
        metadata=Metadata(name=scene.model),
        spec=WhisperModelSpec(model=scene.model, languages=("en",), replicas=PODS),
    )
    pod_log: list[LogLine] = []

    def on_event(event: PlatformEvent) -> None:
        if isinstance(event, PodLogged):
            pod_log.append(event.line)

    # One CPU a pod, whatever the machine has: as many threads as each worker of the other ways uses.
    plans = plan([resource], cpus=PODS)
    with Meter(_children_and_self) as meter:
        async with running_platform(plans, port=0, on_event=on_event) as platform:
            argv = (sys.executable, "-m", "everwarm.demo.agents", scene.model)
            environment = without_our_variables(os.environ) | {
                variable.REDIS_URL: platform.redis_url,
                variable.NAMESPACE: platform.namespace,
            }
            async with running_workers([argv] * WORKERS, environment=environment) as workers:
                await platform.wait_until_warm()
                result = await _measured_play(scene, Way.EVERWARM, workers, meter, on_step, platform=platform)
    return _with_loads(result, workers, pod_log)


async def _measured_play(
    scene: Scene,
    way: Way,
    workers: Sequence[Worker],
    meter: Meter,
    on_step: Callable[[Step], None],
    *,
    platform: LocalPlatform | None = None,
) -> WayResult:
    """What *workers* made of the scene, without the loads."""
    turns, done = scene.turns, 0
    all_had_one = 0.0

    def on_played(played: Played) -> None:
        nonlocal done, all_had_one
        done += 1
        if played.turn.is_first:
            all_had_one = time.monotonic()
        on_step(Step(scene.model, way, done, len(turns)))

    on_step(Step(scene.model, way, done, len(turns)))
    began = meter.look()
    played = await play(turns, workers, on_played=on_played)
    ended = meter.look()
    names = platform.pods if platform else {}
    worker_pids = frozenset(worker.process.pid for worker in workers)
    samples = [*meter.samples, ended]
    return WayResult(
        way=way,
        model=scene.model,
        played=tuple(_with_pod_name(each, names) for each in played),
        worker_loads=0,
        pod_loads=0,
        pods=tuple(names.values()),
        memory_peak=peak_bytes(samples),
        memory_steady=steady_bytes(samples, since=all_had_one),
        memory_workers=steady_bytes(samples, since=all_had_one, pids=worker_pids),
        cpu_s=ended.cpu_s - began.cpu_s,
        cpu_peak_percent=peak_cpu_percent(samples, since=began.at),
        mapped=_mapped_libraries(worker_pids),
    )


def _with_pod_name(played: Played, names: Mapping[str, str]) -> Played:
    """*played* with the pod's name instead of its id."""
    served_by = names.get(played.answer.served_by, played.answer.served_by)
    return replace(played, answer=replace(played.answer, served_by=served_by))


def _with_loads(result: WayResult, workers: Sequence[Worker], pod_log: Sequence[LogLine] = ()) -> WayResult:
    """*result* with the loads that the logs tell of, which are whole once their writers have ended."""
    loads = sum(_loads(worker.log) for worker in workers)
    return replace(result, worker_loads=loads, pod_loads=_loads(pod_log))


def _loads(log: Iterable[LogLine]) -> int:
    """Loads that *log* tells of."""
    return sum(line.event == "model.loaded" and line.attributes.get("tag") == Tag.LOAD.value for line in log)


def _mapped_libraries(pids: Iterable[int]) -> tuple[str, ...] | None:
    """The `MODEL_LIBRARIES` in the memory maps of *pids*, which only Linux shows without special rights."""
    if sys.platform != "linux":
        return None
    paths = set()
    for pid in pids:
        with suppress(psutil.Error):
            paths |= {mapped.path for mapped in psutil.Process(pid).memory_maps()}
    return tuple(name for name in MODEL_LIBRARIES if any(name in path for path in paths))


def _children() -> tuple[int, ...]:
    """The processes of the way that runs now: nothing else is ever started beside it."""
    return tuple(child.pid for child in psutil.Process().children(recursive=True))


def _children_and_self() -> tuple[int, ...]:
    return (os.getpid(), *_children())
