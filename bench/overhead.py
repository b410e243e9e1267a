"""What an agent's client, its routing and HTTP add to the pod's own time, per utterance.

The pod says how long it held a request (`server-timing: total`), the caller sees how long `transcribe` took. The
difference is everything in between: reading the samples, choosing a pod, the connection, both event loops, parsing the
answer. Clips of all lengths, one utterance at a time, through an agent that routes by itself, on the loop that the
LiveKit plugin and the gateway use (uvloop), and on asyncio's own for comparison.
"""

import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import everwarm
from bench.report import Figure, Promise, Report, quantile, spread
from everwarm.deadline import Deadline
from everwarm.dispatch import Answer, Call, Exchange
from everwarm.event_loop import new_event_loop
from tests.support.platform import TWO_PODS, RunningPlatform, running_platform
from tests.support.speech import clips

REQUESTS: Final = 120
WARM_UP: Final = 10
_TOTAL: Final = re.compile(r"total;dur=([0-9.]+)")


class Timed:
    """An exchange that keeps the pod's own total of the last answer, in seconds."""

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner
        self.pod_s = 0.0

    @asynccontextmanager
    async def exchange(self, call: Call, *, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """As the exchange inside."""
        async with self._inner.exchange(call, deadline=deadline) as answer:
            told = _TOTAL.search(answer.headers["server-timing"])
            if told is None:
                raise RuntimeError("the pod did not tell its total time")
            self.pod_s = float(told[1]) / 1000
            yield answer

    async def glance(self, call: Call, *, deadline: Deadline) -> Answer | None:
        """As the exchange inside."""
        return await self._inner.glance(call, deadline=deadline)


def run() -> Report:
    """Wall time less the pod's total, and the same as a share of the wall time."""
    with tempfile.TemporaryDirectory() as folder, running_platform(TWO_PODS, folder=Path(folder)) as platform:
        _, plain = asyncio.run(_measure(platform))
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            walls, extras = runner.run(_measure(platform))
    extra_ms = statistics.median(extras) * 1000
    return Report(
        title="Overhead of client and HTTP",
        promises=(Promise("client + HTTP over the pod's own total, p50", extra_ms, 2.0, "ms"),),
        figures=(
            Figure("overhead, p50", extra_ms, "ms", spread(extras, 1000)),
            Figure(
                "overhead on asyncio's own loop, p50",
                statistics.median(plain) * 1000,
                "ms",
                spread(plain, 1000),
            ),
            Figure("overhead, p99", quantile(extras, 0.99) * 1000, "ms"),
            Figure("whole utterance, p50", statistics.median(walls) * 1000, "ms", spread(walls, 1000)),
            Figure("overhead / whole", sum(extras) / sum(walls), "x"),
        ),
    )


async def _measure(platform: RunningPlatform) -> tuple[list[float], list[float]]:
    walls, extras = [], []
    samples = [clip.samples() for clip in clips()]
    async with everwarm.Client(redis_url=platform.redis_url()) as client:
        opened = client._opened  # noqa: SLF001 - the answer's headers are seen nowhere else
        if opened is None:
            raise RuntimeError("the client is not open")
        timed = Timed(opened.exchange)
        client._opened = opened._replace(exchange=timed)  # noqa: SLF001
        for number in range(WARM_UP + REQUESTS):
            began = time.perf_counter()
            await client.transcribe(samples[number % len(samples)], model="tiny.en", language="en")
            wall = time.perf_counter() - began
            if number >= WARM_UP:
                walls.append(wall)
                extras.append(wall - timed.pod_s)
    return walls, extras
