"""How many utterances are answered with one, four and sixteen callers, by Everwarm, faster-whisper and two peers.

Two cores, and for everybody two threads in the way that serves most (two decodes of one thread each), the same weights,
int8, greedy (`bench.systems`). Callers ask again as soon as they are answered. Systems take turns by rounds, each alone on
the machine while it is asked.
"""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.corpus.load import Utterance, latency_set, load_corpus
from bench.peers.serving import PEERS
from bench.report import Figure, Promise, Report, percentiles
from bench.systems import FASTER_WHISPER, OURS, Ask, Load, System
from everwarm.event_loop import new_event_loop

MODEL: Final = "tiny.en"
BEAMS: Final = 1
UTTERANCES: Final = 48
CALLERS: Final = (1, 4, 16)
ROUNDS: Final = 2
SLOTS: Final = 2
TIMES: Final = 3.0  # as many answers as each of the others, with sixteen callers


@dataclass(slots=True)
class Burst:
    """What one system did with a number of callers, over all rounds: seconds of each answer, and of the whole."""

    took_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers in a second."""
        return len(self.took_s) / self.wall_s


def run() -> Report:
    """Every system in turn, `ROUNDS` times."""
    clips = latency_set(load_corpus(), UTTERANCES)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        bursts = runner.run(_measure(clips))
    ours = bursts[OURS, CALLERS[-1]].per_s
    promises = [
        Promise(f"{system} / Everwarm, answers with {callers} callers", burst.per_s / ours, 1 / TIMES, "x")
        for (system, callers), burst in bursts.items()
        if callers == CALLERS[-1] and system != OURS
    ]
    return Report(
        "Throughput", _figures(bursts), tuple(promises), (f"{MODEL}, greedy, {len(clips)} utterances.",)
    )


def _figures(bursts: Mapping[tuple[str, int], Burst]) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            f"{system}, {callers} caller{'s' if callers > 1 else ''}",
            burst.per_s,
            "answers/s",
            percentiles(burst.took_s),
        )
        for (system, callers), burst in bursts.items()
    )


async def _measure(clips: Sequence[Utterance]) -> dict[tuple[str, int], Burst]:
    bursts: defaultdict[tuple[str, int], Burst] = defaultdict(Burst)
    load = Load(MODEL, BEAMS, SLOTS)
    systems: dict[str, System] = {FASTER_WHISPER: load.faster_whisper, OURS: load.everwarm}
    systems |= {peer.name: load.peer(peer) for peer in PEERS}
    for number in range(ROUNDS):
        for system, running_system in systems.items():
            sys.stderr.write(f"bench: throughput: round {number + 1}, {system}\n")
            async with running_system() as ask:
                await drive(ask, clips[:4], 2, Burst())
                for callers in CALLERS:
                    await drive(ask, clips, callers, bursts[system, callers])
    return bursts


async def drive(ask: Ask, clips: Sequence[Utterance], callers: int, burst: Burst) -> None:
    """Ask for each of *clips* once, *callers* at a time."""
    left = iter(clips)

    async def call() -> None:
        for clip in left:  # shared: each clip is taken once, by whoever is free
            began = time.perf_counter()
            await ask(clip)
            burst.took_s.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    burst.wall_s += time.perf_counter() - began
