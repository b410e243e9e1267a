"""How many people who talk to voice agents two cores can hear: the figure to size a platform by.

A speaker says an utterance of the corpus, in its own time, waits for its transcript, listens to the agent for `REPLY_S`,
and says the next. More and more speakers talk, as independent as people are, until one answer in twenty takes longer than
the last of `BOUNDS_S`. The same weights, beams and cores for Everwarm, through its whole platform, and for faster-whisper
with one model that is kept, in process.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bench.corpus.load import Utterance, latency_set, load_corpus
from bench.report import Figure, Report, percentiles, quantile
from bench.systems import FASTER_WHISPER, OURS, Ask, Load, System
from bench.throughput import Burst, drive
from everwarm.event_loop import new_event_loop

MODELS: Final = ("tiny.en", "base")
BEAMS: Final = 5  # the default of both
SPEAKERS: Final = (6, 12, 24, 36, 48, 64, 80, 96)
REPLY_S: Final = 5.0  # an agent's sentence or two
BOUNDS_S: Final = (0.5, 1.0)
"""p95: hardly felt beside the pause that ends a turn and the agent's own work; felt."""
ANSWERS: Final = 120  # at each step at least, so that p95 rests on half a dozen
SLOTS: Final = 2
UTTERANCES: Final = 48


@dataclass(slots=True)
class Step:
    """What some number of speakers waited for their transcripts, in seconds."""

    speakers: int
    waited_s: list[float] = field(default_factory=list)

    @property
    def p95_s(self) -> float:
        """One answer in twenty took longer."""
        return quantile(self.waited_s, 0.95)


def run() -> Report:
    """Both models, both systems, each alone on the machine."""
    clips = latency_set(load_corpus(), UTTERANCES)
    figures: list[Figure] = []
    for model in MODELS:
        load = Load(model, BEAMS, SLOTS)
        for name, system in ((OURS, load.everwarm), (FASTER_WHISPER, load.faster_whisper)):
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                steps = runner.run(_climb(system, f"{model}, {name}", clips))
            figures += _figures(f"{model}, {name}", steps)
    seconds = statistics.mean(clip.seconds for clip in clips)
    note = (
        f"{BEAMS} beams, {SLOTS} decodes at a time. Utterances of {seconds:.1f} s on average, replies of {REPLY_S:.0f} s; what is"
        " waited for is the transcript, from the end of the utterance."
    )
    return Report("Speakers", tuple(figures), (), (note,))


async def _climb(system: System, name: str, clips: Sequence[Utterance]) -> list[Step]:
    """More speakers with every step; the last one is the first that was too much."""
    steps: list[Step] = []
    async with system() as ask:
        await drive(ask, clips[:8], SLOTS, Burst())
        for speakers in SPEAKERS:
            steps.append(await _talk(ask, speakers, clips))
            sys.stderr.write(f"bench: speakers: {name}, {speakers}: {percentiles(steps[-1].waited_s)}\n")
            if steps[-1].p95_s > BOUNDS_S[-1]:
                break
    return steps


async def _talk(ask: Ask, speakers: int, clips: Sequence[Utterance]) -> Step:
    """*speakers* at a time until there are `ANSWERS` and everybody had their say; the first of each does not count: they
    begin at once.
    """
    step = Step(speakers)
    turns = 1 + -(-ANSWERS // speakers)

    async def speak(number: int) -> None:
        rng = Random(number)
        await asyncio.sleep(rng.uniform(0.0, REPLY_S))  # into the conversation
        for turn in range(turns):
            clip = rng.choice(clips)
            await asyncio.sleep(clip.seconds)
            ended = time.perf_counter()
            await ask(clip)
            if turn:
                step.waited_s.append(time.perf_counter() - ended)
            await asyncio.sleep(REPLY_S)

    async with asyncio.TaskGroup() as group:
        for number in range(speakers):
            group.create_task(speak(number))
    return step


def _figures(name: str, steps: Sequence[Step]) -> Iterator[Figure]:
    for bound_s in BOUNDS_S:
        most = max((step.speakers for step in steps if step.p95_s <= bound_s), default=0)
        yield Figure(f"{name}: speakers with p95 within {bound_s} s", most, "")
    for step in steps:
        yield Figure(f"{name}, p95 with {step.speakers}", step.p95_s, "s", percentiles(step.waited_s))
