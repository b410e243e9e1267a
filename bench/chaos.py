"""Lost, wrong and doubled utterances while parts are killed, hang and leave, under load, with every kind of caller.

The platform is the one its users start, `everwarm up` with two pods and an embedded Valkey, behind two gateways with one
address. Callers are the library's client, OpenAI's, realtime sessions and LiveKit's plugin, an even mix. The load is
open, 70 % of what one pod less can serve, measured first with the same mix while a pod is killed again and again, since a
birth takes time of the same few cores. Each fault has a platform of its own and is
injected again as soon as the last one is healed, until the load is through:

- pod SIGKILL: the older of the pods dies.
- pod SIGSTOP: a pod hangs, longer than its lease, and is then continued or, each second time, replaced.
- Valkey killed: it is started again, empty.
- gateway SIGTERM: the older of the gateways drains and is replaced; sessions move between two utterances.

A transcript is right when its words are the clip's, whichever way they went; at rest they are, which is checked first.
"""

import asyncio
import itertools
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from bench.report import Figure, Promise, Report, number, quantile
from everwarm_core.errors import RegistryUnavailable
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import PodRecord, PodState, Snapshot
from tests.support.callers import Mix, Way, mixed_callers
from tests.support.gateways import Gateways, running_gateways
from tests.support.load import Outcome, steady_load
from tests.support.platform import TWO_PODS, RunningPlatform, running_platform
from tests.support.speech import Clip, clips, words
from tests.support.waiting import until

UTTERANCES: Final = 500
SHARE_OF_ONE_POD: Final = 0.7
CALLERS: Final = 5
"""At once, to find what a pod can serve: as many as it has places (a slot, four in its queue), so it always has something
to do and refuses nobody."""
MEASURED: Final = 120
FIRST_FAULT_AFTER: Final = 8
HEALED_S: Final = 90.0


class WrongTranscriptError(Exception):
    """An utterance was answered with something else than what was said."""


@dataclass(frozen=True, slots=True)
class Span:
    """When something was under way, in seconds of the loop's clock."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long."""
        return self.ended - self.began

    def meets(self, other: "Span") -> bool:
        """Whether both were under way at one time."""
        return self.began < other.ended and other.began < self.ended


@dataclass(slots=True)
class Findings:
    """What became of the utterances of one scenario."""

    fault: str
    utterances: list[Span] = field(default_factory=list)
    faults: list[Span] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    doubled: int = 0
    moved: int = 0
    said_again: int = 0

    @property
    def spoilt(self) -> int:
        """Utterances without exactly one right transcript."""
        return len(self.lost) + len(self.wrong) + self.doubled

    @property
    def seconds(self) -> list[float]:
        """What each utterance took."""
        return [utterance.seconds for utterance in self.utterances]

    @property
    def seconds_in_faults(self) -> list[float]:
        """What those took that were under way during a fault."""
        return [u.seconds for u in self.utterances if any(u.meets(fault) for fault in self.faults)]

    def row(self) -> str:
        """A row under `HEAD`."""
        seconds, in_faults = self.seconds, self.seconds_in_faults
        times = (quantile(seconds, 0.5), quantile(seconds, 0.99), quantile(in_faults, 0.99))
        cells = (
            self.fault,
            f"{len(self.faults)}",
            *(f"{count}" for count in (len(self.lost), len(self.wrong), self.doubled)),
            *(f"{number(s)} s" for s in times),
            f"{len(in_faults)}",
            f"{self.moved}",
            f"{self.said_again}",
        )
        return f"| {' | '.join(cells)} |"


HEAD: Final = (
    "| fault | times | lost | wrong | doubled | p50 | p99 | p99 in faults | so many | moved | said again |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A platform with its gateways, and everybody who calls it."""

    platform: RunningPlatform
    gateways: Gateways
    mix: Mix
    registry: RegistryReader

    async def look(self) -> Snapshot | None:
        """The registry now; None while it does not answer."""
        try:
            return await self.registry.read_all()
        except RegistryUnavailable:
            return None

    async def warm(self) -> list[PodRecord]:
        """The pods that are warm now, by the registry."""
        seen = await self.look()
        return [lease.pod for lease in seen.leases if lease.pod.state is PodState.WARM] if seen else []

    async def whole(self, without: frozenset[str] = frozenset()) -> None:
        """Return once two pods are warm, none of them of the lives (`boot`) in *without*."""

        async def is_whole() -> bool:
            boots = {pod.boot for pod in await self.warm()}
            return len(boots) == 2 and not boots & without

        await until(is_whole, within_s=HEALED_S)

    async def say(self, count: int) -> None:
        """Say utterance *count*, by its turn; raises when its transcript is not what was said."""
        await say(self.mix.way(count), clip_of(count))

    async def gone(self, boot: str) -> None:
        """Return once the life *boot* is not warm any more, by the registry."""

        async def is_gone() -> bool:
            return boot not in {pod.boot for pod in await self.warm()}

        await until(is_gone, within_s=HEALED_S)

    def oldest_pod(self) -> tuple[psutil.Process, int]:
        """The pod that has lived longest, and its port."""
        pod = min(self.platform.pods(), key=psutil.Process.create_time)
        (listening,) = (c for c in pod.net_connections() if c.status == psutil.CONN_LISTEN)
        return pod, listening.laddr.port

    async def boot_at(self, port: int) -> str:
        """The life of the warm pod at *port*."""
        return next(pod.boot for pod in await self.warm() if pod.url.endswith(f":{port}"))


async def say(way: Way, clip: Clip) -> None:
    """Say *clip* by *way*; raises WrongTranscriptError, or what *way* raises when there is no transcript."""
    heard = words(await way.say(clip))
    if heard != words(clip.text):
        raise WrongTranscriptError(f"{way.name}: {clip.path.name}: {' '.join(heard)!r}")


Fault = Callable[[Stage, int], Awaitable[None]]
"""Injects a fault for the n-th time, from 0, and returns when it is healed."""


async def pod_killed(stage: Stage, _: int) -> None:
    """A pod dies, and its successor becomes warm."""
    pod, port = stage.oldest_pod()
    boot = await stage.boot_at(port)
    pod.kill()
    await stage.whole(without=frozenset({boot}))


async def pod_hangs(stage: Stage, time: int) -> None:
    """A pod does nothing until the registry has lost it; then it goes on, or another takes its place."""
    pod, port = stage.oldest_pod()
    boot = await stage.boot_at(port)
    pod.send_signal(signal.SIGSTOP)
    try:
        await stage.gone(boot)
    finally:
        pod.send_signal(signal.SIGKILL if time % 2 else signal.SIGCONT)
    await stage.whole(without=frozenset({boot}) if time % 2 else frozenset())


async def valkey_killed(stage: Stage, _: int) -> None:
    """Valkey dies; its successor knows nothing until the pods tell it."""
    before = await stage.look()
    assert before is not None
    stage.platform.valkey().kill()

    async def is_another() -> bool:
        now = await stage.look()
        return now is not None and now.epoch not in ("", before.epoch)

    await until(is_another, within_s=HEALED_S)
    await stage.whole()


async def gateway_leaves(stage: Stage, time: int) -> None:
    """A gateway drains and is replaced."""
    ports = sorted(stage.gateways.processes)
    await stage.gateways.replace(ports[time % len(ports)])


FAULTS: Final[Mapping[str, Fault]] = {
    "pod SIGKILL": pod_killed,
    "pod SIGSTOP": pod_hangs,
    "Valkey killed": valkey_killed,
    "gateway SIGTERM": gateway_leaves,
}


def run(count: int = UTTERANCES) -> Report:
    """Every fault over *count* utterances."""
    with asyncio.Runner() as runner:
        rate_hz, ways = runner.run(measured())
        sys.stderr.write(f"bench: chaos: {rate_hz:.2f} utterances/s\n")
        found = [runner.run(scenario(name, count, rate_hz)) for name in FAULTS]
    return Report(
        title="Chaos",
        promises=(
            *(
                Promise(f"{f.fault}: lost, wrong or doubled of {count} utterances", f.spoilt, 0, "utterances")
                for f in found
            ),
            Promise(
                "utterances not accounted for",
                sum(count - len(f.utterances) for f in found),
                0,
                "utterances",
            ),
            Promise("faults injected fewer than twice", sum(len(f.faults) < 2 for f in found), 0, "faults"),
        ),
        figures=(
            Figure("steady load, 0.7 of what one pod less can serve", rate_hz, "utterances/s"),
            *(
                Figure(f"{f.fault}: p99 of utterances in faults", quantile(f.seconds_in_faults, 0.99), "s")
                for f in found
            ),
        ),
        notes=(
            f"Over {count} utterances each, by turns: {', '.join(ways)}.",
            "",
            *HEAD,
            *(f.row() for f in found),
        ),
    )


def clip_of(count: int) -> Clip:
    """The clip of utterance *count*: each way comes to each."""
    return clips()[(count // 8 + count) % len(clips())]


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """A stage with two warm pods and two ready gateways."""
    with tempfile.TemporaryDirectory() as folder, running_platform(TWO_PODS, folder=Path(folder)) as platform:
        redis_url = platform.redis_url()
        async with (
            running_gateways(redis_url, folder=Path(folder)) as gateways,
            RegistryReader(redis_url, "local") as registry,
            mixed_callers(redis_url=redis_url, url=gateways.url) as mix,
        ):
            stage = Stage(platform, gateways, mix, registry)
            await stage.whole()
            yield stage


async def measured() -> tuple[float, list[str]]:
    """The load to put on, in utterances a second, and the ways that were measured, each of which hears every clip right."""
    async with staged() as stage:
        for way in stage.mix.ways:
            for clip in clips():
                await say(way, clip)
        async with asyncio.TaskGroup() as group:
            dying = group.create_task(_again_and_again(stage))
            rate_hz = await _closed_load(stage)
            dying.cancel()
        await stage.whole()
        await stage.mix.finish()
    return SHARE_OF_ONE_POD * rate_hz, [way.name for way in stage.mix.ways]


async def _again_and_again(stage: Stage) -> None:
    """One pod less, and its births: on a machine this small these take the time of the pod that is left."""
    for time in itertools.count():
        await pod_killed(stage, time)


async def _closed_load(stage: Stage) -> float:
    """Utterances a second that CALLERS get answered, each one after the other."""
    loop = asyncio.get_running_loop()
    numbers = itertools.count()
    began = loop.time()

    async def call() -> None:
        while (count := next(numbers)) < MEASURED:
            await stage.say(count)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call())
    return MEASURED / (loop.time() - began)


async def scenario(name: str, count: int, rate_hz: float) -> Findings:
    """*count* utterances while the fault *name* comes again and again."""
    findings, outcome = Findings(name), Outcome()
    loop = asyncio.get_running_loop()
    async with staged() as stage:

        async def send(number_: int) -> None:
            began = loop.time()
            try:
                await stage.say(number_)
            except WrongTranscriptError as error:
                findings.wrong.append(str(error))
                raise
            except Exception as error:
                way = stage.mix.way(number_).name
                findings.lost.append(
                    f"{way}, after {loop.time() - began:.1f} s: {type(error).__name__}: {error}"
                )
                raise
            finally:
                findings.utterances.append(Span(began, loop.time()))

        for way in range(8):  # connections are open, and no utterance is the first of its way
            await stage.say(way)
        async with asyncio.TaskGroup() as group:
            load = group.create_task(steady_load(send, rate_hz=rate_hz, count=count, outcome=outcome))
            await outcome.reached(FIRST_FAULT_AFTER)
            for time in itertools.count():
                if load.done():
                    break
                began = loop.time()
                await FAULTS[name](stage, time)
                findings.faults.append(Span(began, loop.time()))
                sys.stderr.write(
                    f"bench: chaos: {name} {time + 1}, {findings.faults[-1].seconds:.1f} s; "
                    f"{outcome.count} utterances, {findings.spoilt} spoilt\n"
                )
        await stage.mix.finish()
        tally = stage.mix.tally
    findings.doubled, findings.moved, findings.said_again = tally.doubled, tally.moved, tally.said_again
    for failure in (*findings.lost, *findings.wrong):
        sys.stderr.write(f"bench: chaos: {name}: {failure}\n")
    if tally.broken:
        sys.stderr.write(f"bench: chaos: {name}: {tally.broken} sessions ended without a word\n")
    return findings
