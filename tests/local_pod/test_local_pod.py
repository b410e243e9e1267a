"""A machine's one local pod: started once however many ask, gone when nobody does, mended when a part is killed.

Real processes throughout: users that take locks, a guardian, a pod of tiny.en.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import everwarm
from everwarm.errors import EverwarmError
from everwarm.local_pod import LocalPod
from everwarm.local_pod.guardian import is_ready
from tests.support.local_pods import end_guardians, guardians, local_pods
from tests.support.speech import clips, words

pytestmark = [pytest.mark.weights, pytest.mark.slow]

START_S = 60.0  # a few seconds on an idle machine
IDLE_S = 1.0

# As a LiveKit worker without any pod; it answers when it has its transcript and then stays.
WORKER = """
import asyncio, sys
from livekit.agents import APIConnectOptions
from everwarm.livekit import create_stt
from tests.support.frames import frames
from tests.support.speech import clips
stt = create_stt(model="tiny.en", language="en", fallback="local")
patient = APIConnectOptions(max_retry=0, timeout=60)
event = asyncio.run(stt.recognize(frames(clips()[0].samples()), conn_options=patient))
print(event.alternatives[0].text, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's runtime folder of one test, whose local pods end with it."""
    _use(tmp_path, monkeypatch)
    yield tmp_path
    end_guardians(tmp_path)


@pytest.fixture(scope="module")
def shared_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runtime folder whose local pod is left to the next test: each begins by joining what is there."""
    runtime = tmp_path_factory.mktemp("shared")
    yield runtime
    end_guardians(runtime)


@dataclass(frozen=True)
class Race:
    """What four workers that began together got, and the processes that were there then."""

    texts: tuple[str, ...]
    pods: int
    guardians: int
    gone_after_s: float


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Race]:
    """Four worker processes that start at once without any pod, are answered, and are then killed."""
    runtime = tmp_path_factory.mktemp("race")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        _use(runtime, patch)
        stack.callback(end_guardians, runtime)
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(4)
        ]
        texts = tuple(worker.stdout.readline().strip() for worker in workers if worker.stdout)
        found = len(local_pods(runtime)), len(guardians(runtime))
        killed_at = time.monotonic()
        for worker in workers:
            worker.kill()
        with contextlib.suppress(TimeoutError):
            _wait_until(lambda: not local_pods(runtime) and not guardians(runtime))
        yield Race(texts, *found, time.monotonic() - killed_at)


def test_four_workers_racing_without_a_pod_all_get_their_transcript(race: Race) -> None:
    assert [words(text) for text in race.texts] == [words(clips()[0].text)] * 4


def test_four_workers_racing_start_exactly_one_pod(race: Race) -> None:
    assert (race.pods, race.guardians) == (1, 1)


def test_the_pod_is_gone_soon_after_all_its_users_were_killed(race: Race) -> None:
    assert IDLE_S / 2 < race.gone_after_s < START_S


async def test_a_killed_pod_is_replaced_under_the_same_guardian(
    shared_runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = shared_runtime
    _use(runtime, monkeypatch)
    local = LocalPod("tiny.en", "en", idle_s=START_S)
    first = await _url(local)
    (guardian,) = guardians(runtime)
    (pod,) = local_pods(runtime)
    pod.kill()
    second = await _url(local, other_than=first)
    assert await asyncio.to_thread(is_ready, second)
    assert [process.pid for process in guardians(runtime)] == [guardian.pid]
    local.leave()


async def test_a_killed_guardian_is_replaced_and_leaves_one_pod(
    shared_runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = shared_runtime
    _use(runtime, monkeypatch)
    local = LocalPod("tiny.en", "en", idle_s=START_S)
    first = await _url(local)
    (guardian,) = guardians(runtime)
    os.kill(guardian.pid, signal.SIGKILL)
    second = await _url(local, other_than=first)
    assert len(local_pods(runtime)) == 1
    async with everwarm.Client(base_url=second) as client:
        clip = clips()[0]
        transcript = await client.transcribe(clip.path, model="tiny.en", deadline_s=START_S)
    assert words(transcript.text) == words(clip.text)
    local.leave()


async def test_a_user_that_comes_while_the_guardian_leaves_gets_a_pod(runtime: Path) -> None:
    """Users come back at the very moment the pod is given up; none may be left with a pod that ends."""
    leaver = LocalPod("tiny.en", "en", idle_s=0.2)
    first = await _url(leaver)
    leaver.leave()
    log = leaver.place.folder / "guardian.log"
    await _until(lambda: "local_pod.unused" in log.read_text(encoding="utf-8"))
    comer = LocalPod("tiny.en", "en", idle_s=0.2)
    second = await _url(comer, other_than=first)
    assert await asyncio.to_thread(is_ready, second)
    assert len(local_pods(runtime)) == 1
    comer.leave()


async def test_a_pod_that_cannot_start_is_given_up_with_its_reason(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERWARM_WEIGHTS_PATH", str(runtime / "nowhere"))
    local = LocalPod("tiny.en", "en", idle_s=START_S)
    with pytest.raises(EverwarmError, match="nowhere"):
        await _url(local)
    assert not local_pods(runtime)
    began = time.monotonic()
    with pytest.raises(EverwarmError, match="nowhere"):
        await local.look()
    assert time.monotonic() - began < 10.0
    local.leave()


def _use(runtime: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("EVERWARM_BASE_URL", "EVERWARM_REDIS_URL", "EVERWARM_FALLBACK_URLS"):
        patch.delenv(name, raising=False)
    patch.setenv("XDG_RUNTIME_DIR", str(runtime))
    patch.setenv("EVERWARM_CPUS", "1")
    patch.setenv("EVERWARM_LOCAL_POD_IDLE_SECONDS", str(IDLE_S))


async def _url(local: LocalPod, *, other_than: str = "") -> str:
    """Where the pod listens, once it does."""
    async with asyncio.timeout(START_S):
        while True:
            found = await local.look()
            if found is not None and found != other_than:
                return found
            await asyncio.sleep(0.05)  # polls, as users do


async def _until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(_wait_until, condition)


def _wait_until(condition: Callable[[], bool], timeout_s: float = START_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError([process.info for process in psutil.process_iter(["cmdline"])])
        time.sleep(0.05)  # polls a condition in other processes
