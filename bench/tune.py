"""Which slots suit this machine: its cores shared out in every even way, and what a batch of utterances saves.

A slot is one decode at a time on its share of the cores, so one slot answers a lone caller soonest, and as many as there
are cores answer most callers. A pod of each is asked through the whole platform, by one caller and by sixteen. What
`batch` utterances at once save (docs/adr/0012) is measured in process, on one thread.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.corpus.load import Utterance, latency_set, load_corpus
from bench.report import Figure, Report, number, quantile
from bench.systems import Load
from bench.throughput import MODEL, Burst, drive
from bench.way import Setting
from everwarm.event_loop import new_event_loop
from everwarm_core.cpus import available_cpus, threads_per_slot
from everwarm_stt.engine import DecodeOptions, Engine, searches
from everwarm_stt.engine.searches import Ask

BEAM: Final = 5
UTTERANCES: Final = 48
LONE, MANY = 1, 16
BATCHES: Final = (1, 2, 4, 8)
ROUNDS: Final = 5
WORTH_A_BATCH: Final = 0.15  # a guess at what makes up for the wait


@dataclass(frozen=True, slots=True)
class Shared:
    """What a pod gave whose cores were shared out among *slots*, asked by one caller and by many."""

    slots: int
    threads: int
    lone: Burst
    many: Burst


def run() -> Report:
    """Every way to share out the cores, then batches."""
    cpus = max(1, int(available_cpus()))
    clips = latency_set(load_corpus(), UTTERANCES)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        shared = [runner.run(_measure(slots, cpus, clips)) for slots in even_shares(cpus)]
    per_utterance_s = _batches(clips)
    return Report(
        "Slots, threads and batches",
        tuple(_figures(shared, per_utterance_s)),
        (),
        (*why_slots(shared), why_batch(per_utterance_s)),
    )


def even_shares(cpus: int) -> list[int]:
    """Numbers of slots that leave no core over."""
    return [slots for slots in range(1, cpus + 1) if cpus % slots == 0]


def why_batch(per_utterance_s: Mapping[int, Sequence[float]]) -> str:
    """Which `batch` to write, and what speaks for it."""
    medians = {size: statistics.median(took_s) for size, took_s in per_utterance_s.items()}
    best = min(medians, key=lambda size: medians[size])
    if best == 1:
        return "Leave `batch` at 1: no batch is quicker."
    saved = 1 - medians[best] / medians[1]
    if saved < WORTH_A_BATCH:
        return f"Leave `batch` at 1: a batch of {best} saves {saved:.0%} of the time, and each waits for its last."
    return f"Take `batch: {best}` where requests queue: it saves {saved:.0%} of the time, and each waits for its last."


def why_slots(shared: Sequence[Shared]) -> Iterator[str]:
    """How many `slots` to write, and what speaks for it."""
    soonest = min(shared, key=lambda one: statistics.median(one.lone.took_s))
    most = max(shared, key=lambda one: one.many.per_s)
    if soonest is most:
        yield f"Take `slots: {most.slots}`: it answers both one caller soonest and most of {MANY}."
        return
    later = statistics.median(most.lone.took_s) / statistics.median(soonest.lone.took_s)
    more = most.many.per_s / soonest.many.per_s
    yield (
        f"Take `slots: {most.slots}` where several speak at once: {number(more)} x the answers of `slots: {soonest.slots}`. "
        f"Take `slots: {soonest.slots}` where one does: with `slots: {most.slots}` that one waits {number(later)} x as long."
    )


def _figures(shared: Sequence[Shared], per_utterance_s: Mapping[int, Sequence[float]]) -> Iterator[Figure]:
    for one in shared:
        title = f"{one.slots} slot{'s' * (one.slots > 1)} of {one.threads} thread{'s' * (one.threads > 1)}"
        yield Figure(f"{title}: one caller, p50", statistics.median(one.lone.took_s) * 1000, "ms")
        p95_ms = quantile(one.many.took_s, 0.95) * 1000
        yield Figure(f"{title}: {MANY} callers", one.many.per_s, "answers/s", f"p95 {number(p95_ms)} ms")
    for size, took_s in per_utterance_s.items():
        title = f"a batch of {size}: one thread's time per utterance"
        yield Figure(title, statistics.median(took_s) * 1000, "ms")


async def _measure(slots: int, cpus: int, clips: Sequence[Utterance]) -> Shared:
    sys.stderr.write(f"bench: tune: {slots} slots\n")
    lone, many = Burst(), Burst()
    async with Load(MODEL, BEAM, slots).everwarm() as ask:
        await drive(ask, clips[:4], LONE, Burst())
        await drive(ask, clips, LONE, lone)
        await drive(ask, clips, MANY, many)
    return Shared(slots, threads_per_slot(cpus, slots), lone, many)


def _batches(clips: Sequence[Utterance]) -> dict[int, list[float]]:
    """Seconds of one utterance in a batch of each of `BATCHES`, in turn."""
    sys.stderr.write("bench: tune: batches\n")
    weights = Setting(MODEL, "en", BEAM, 1).weights()
    engine = Engine.load(weights, device="cpu", compute_type="int8", slots=1, cpu_threads=1)
    asks = _asks(engine, clips)
    took_s: dict[int, list[float]] = {size: [] for size in BATCHES}
    for _ in range(ROUNDS):
        for size in BATCHES:
            began = time.perf_counter()
            for start in range(0, max(BATCHES), size):
                searches.search(engine._whisper, asks[start : start + size])  # noqa: SLF001
            took_s[size].append((time.perf_counter() - began) / max(BATCHES))
    return took_s


def _asks(engine: Engine, clips: Sequence[Utterance]) -> list[Ask]:
    """As many as the largest batch, which fit each other."""
    asks: list[Ask] = []
    pending = engine._utterances._searches  # noqa: SLF001 - the only way to see what the engine asks
    real = pending.run

    def seen(ask: Ask) -> object:
        asks.append(ask)
        return real(ask)

    pending.run = seen  # type: ignore[method-assign]
    for clip in clips:
        engine.decode(clip.audio, DecodeOptions(language="en", beam_size=BEAM))
    fitting = [ask for ask in asks if ask.fits(asks[0])]
    return fitting[: max(BATCHES)]
