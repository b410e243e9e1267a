"""What recordings of half an hour do to those who speak meanwhile.

One pod with two slots. Utterances begin at a steady rate, a third of what the pod can serve, alone and then while one
recording after the other is transcribed, in turn; the 99th percentiles of the two are compared.
"""

import asyncio
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

import everwarm
from bench.report import Figure, Promise, Report, quantile
from everwarm.event_loop import new_event_loop
from tests.support.load import Outcome, steady_load
from tests.support.platform import running_platform
from tests.support.speech import SAMPLE_RATE, clips, recording

RECORDING_S: Final = 1800
ROUNDS: Final = 2
UTTERANCES: Final = 300  # in each round, alone and beside
SHARE: Final = 1 / 3  # of what the pod serves
LIMIT: Final = 1.5
MODEL: Final = "tiny.en"
SLOTS: Final = 2
RESOURCE: Final = f"""
apiVersion: everwarm.dev/v1alpha1
kind: WhisperModel
metadata: {{name: bench}}
spec: {{model: {MODEL}, slots: {SLOTS}, queue: 8, limits: {{uploadBytes: 67108864}}}}
"""


@dataclass(slots=True)
class Found:
    """What became of the utterances alone and beside recordings, and the seconds that each whole recording took."""

    alone: Outcome = field(default_factory=Outcome)
    beside: Outcome = field(default_factory=Outcome)
    recordings_s: list[float] = field(default_factory=list)


def run() -> Report:
    """One pod of tiny.en."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_platform(RESOURCE, folder=Path(folder)) as platform,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        found = runner.run(_measure(platform.redis_url()))
    alone, beside = (quantile(outcome.answered_s, 0.99) for outcome in (found.alone, found.beside))
    return Report(
        "Utterances beside a recording",
        figures=(
            *(
                Figure(
                    f"p99 {name}",
                    p99 * 1000,
                    "ms",
                    f"p50 {statistics.median(outcome.answered_s) * 1000:.0f} ms",
                )
                for name, p99, outcome in (("alone", alone, found.alone), ("beside", beside, found.beside))
            ),
            Figure("utterances in each", len(found.beside.answered_s), ""),
            Figure("recordings done meanwhile", len(found.recordings_s), ""),
        ),
        promises=(
            Promise("p99 of utterances beside a recording / alone", beside / alone, LIMIT, "x"),
            Promise("utterances that failed", len(found.alone.failed + found.beside.failed), 0, "utterances"),
        ),
    )


async def _measure(redis_url: str) -> Found:
    found = Found()
    short = [clip.samples() for clip in clips()]
    long = np.resize(recording().samples(), RECORDING_S * SAMPLE_RATE)
    async with everwarm.Client(redis_url=redis_url) as client:

        async def speak(number: int) -> None:
            await client.transcribe(short[number % len(short)], model=MODEL, language="en")

        async def record() -> None:
            while True:
                began = time.perf_counter()
                await client.transcribe(long, model=MODEL, language="en", deadline_s=900)
                found.recordings_s.append(time.perf_counter() - began)

        began = time.perf_counter()
        for number in range(len(short)):
            await speak(number)
        rate_hz = SHARE * SLOTS * len(short) / (time.perf_counter() - began)
        for _ in range(ROUNDS):
            await steady_load(speak, rate_hz=rate_hz, count=UTTERANCES, outcome=found.alone)
            async with asyncio.TaskGroup() as group:
                recorder = group.create_task(record())
                await steady_load(speak, rate_hz=rate_hz, count=UTTERANCES, outcome=found.beside)
                recorder.cancel()
                with suppress(asyncio.CancelledError):
                    await recorder
    return found
