"""Realtime sessions: how much sooner a final is there when it was decoded in the pause, and what an idle session costs.

Speech is played at its own pace into listeners that have their utterances transcribed by a real platform's pods through
a gateway, one utterance with and one without the early decode, in turn. What counts is the time from the moment the end is certain,
after half a second of silence, to the final. The decode itself is what the utterance takes without it. Idle sessions
are opened at the gateway by the thousand; its process is looked at before and after.
"""

import asyncio
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import numpy as np
import psutil

import everwarm
from bench.memory import pss_mib
from bench.report import Figure, Promise, Report, quantile, spread
from everwarm_core.realtime.audio import SAMPLE_RATE, Samples
from everwarm_core.realtime.endpoint import Endpointing
from everwarm_core.realtime.listener import (
    Completed,
    Habits,
    Happening,
    Listener,
    SpeechStopped,
    Transcriber,
    Utterance,
    Wish,
)
from everwarm_core.transcript import Transcript
from tests.support.platform import TWO_PODS, running_platform
from tests.support.realtime import realtime
from tests.support.speech import clips

ROUNDS: Final = 4
IDLE: Final = 1000
OPENED_AT_ONCE: Final = 50
PIECE: Final = SAMPLE_RATE // 50
SILENCE_S: Final = 0.5
PAUSE_KNOWN_S: Final = 0.15
SHARE: Final = 0.9
IDLE_KB: Final = 60.0
TAIL: Final = np.zeros(2 * SAMPLE_RATE, np.int16)


def run() -> Report:
    """Both measurements, each on a platform of its own."""
    with tempfile.TemporaryDirectory() as folder, running_platform(TWO_PODS, folder=Path(folder)) as platform:
        late_s, early_s = asyncio.run(_finals(platform.url))
    saved_s = [late - early for late, early in zip(late_s, early_s, strict=True)]
    possible_s = [min(late, SILENCE_S - PAUSE_KNOWN_S) for late in late_s]
    with tempfile.TemporaryDirectory() as folder, running_platform(TWO_PODS, folder=Path(folder)) as platform:
        idle_kb = asyncio.run(_idle_kb(platform.process.pid, platform.url))
    return Report(
        title="Realtime sessions",
        promises=(
            Promise(
                "time to the final that the early decode does not save, of what it could",
                1 - sum(saved_s) / sum(possible_s),
                1 - SHARE,
                "x",
            ),
            Promise(f"memory of the gateway's process per idle session, of {IDLE}", idle_kb, IDLE_KB, "KB"),
        ),
        figures=(
            Figure("from the end to the final, p50", _ms(early_s), "ms", spread(early_s, 1000)),
            Figure("the same, p99", quantile(early_s, 0.99) * 1000, "ms"),
            Figure("without the early decode, p50", _ms(late_s), "ms", spread(late_s, 1000)),
            Figure("saved, p50", _ms(saved_s), "ms", spread(saved_s, 1000)),
        ),
    )


def _ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


class _ByClient(Transcriber):
    """A Transcriber over the library's client."""

    def __init__(self, client: everwarm.Client) -> None:
        self._client = client

    async def transcribe(self, utterance: Utterance) -> Transcript:
        return await self._client.transcribe(_samples(utterance), model=utterance.wish.model)

    async def glance(self, utterance: Utterance) -> Transcript | None:
        return await self._client.glance(_samples(utterance), model=utterance.wish.model)


def _samples(utterance: Utterance) -> Samples:
    return np.frombuffer(utterance.pcm, "<i2")


async def _finals(url: str) -> tuple[list[float], list[float]]:
    """Seconds from the certain end to the final: without and with the early decode, by utterance."""
    late: list[float] = []
    early: list[float] = []
    spoken = [clip.samples() for clip in clips() for _ in range(ROUNDS)]
    async with everwarm.Client(base_url=url) as client:
        for number, samples in enumerate(spoken):
            if number % 10 == 0:
                sys.stderr.write(f"bench: realtime: utterance {number} of {len(spoken)}\n")
            for is_eager, took in ((False, late), (True, early)):
                took.append(await _final_s(client, samples, is_eager=is_eager))
    return late, early


async def _final_s(client: everwarm.Client, samples: Samples, *, is_eager: bool) -> float:
    loop = asyncio.get_running_loop()
    ended: list[float] = []
    done = asyncio.Event()

    async def tell(happening: Happening) -> None:
        if isinstance(happening, SpeechStopped):
            ended[:] = [loop.time()]
        if isinstance(happening, Completed):
            ended.append(loop.time())
            done.set()

    async with Listener(
        _ByClient(client),
        tell,
        endpointing=Endpointing(silence_ms=int(SILENCE_S * 1000)),
        wish=lambda: Wish("tiny.en"),
        habits=Habits(glance_s=0, is_eager=is_eager),
    ) as listener:
        stream, began = np.concatenate([samples, TAIL]), loop.time()
        for start in range(0, len(stream), PIECE):
            await listener.hear(stream[start : start + PIECE])
            if done.is_set():
                break
            await asyncio.sleep(max(0.0, began + (start + PIECE) / SAMPLE_RATE - loop.time()))
        await done.wait()
    return ended[-1] - ended[0]


async def _idle_kb(up_pid: int, url: str) -> float:
    """KB that each of many idle sessions adds to the process that serves *url*."""
    (gateway,) = [
        process
        for process in (psutil.Process(up_pid), *psutil.Process(up_pid).children(recursive=True))
        if any(
            c.status == psutil.CONN_LISTEN and url.endswith(f":{c.laddr.port}")
            for c in process.net_connections()
        )
    ]
    async with AsyncExitStack() as sessions:
        for _ in range(OPENED_AT_ONCE):  # what the first ones load is not a session's
            await sessions.enter_async_context(realtime(url))
        before = pss_mib(gateway.pid)
        for _ in range(IDLE):
            await sessions.enter_async_context(realtime(url))
        return (pss_mib(gateway.pid) - before) * 1024 / IDLE
