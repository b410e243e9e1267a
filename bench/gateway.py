"""What the gateway adds to an utterance: its own wall time less the pod's, at half of the load that two pods can serve.

Both are told in the answer (`server-timing`): the pod's `total`, from the request's first byte to its answer, and the
gateway's, from its first byte to the pod's answer on its way out. The load is open: requests begin at their time
whatever becomes of those before.
"""

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Final

import aiohttp

from bench.report import Figure, Promise, Report, quantile, spread
from everwarm.event_loop import new_event_loop
from tests.support.load import Outcome, steady_load
from tests.support.platform import TWO_PODS, running_platform
from tests.support.speech import clips

REQUESTS: Final = 400
WARM_UP: Final = 24
PODS: Final = 2
SHARE: Final = 0.5
P50_MS: Final = 2.0
P99_MS: Final = 5.0
PATH: Final = "/v1/transcribe?model=tiny.en"
PCM: Final = "audio/pcm;rate=16000"


def run() -> Report:
    """Overhead and latency of the requests, all of which must be answered."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_platform(TWO_PODS, folder=Path(folder)) as platform,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        rate_hz, overhead_ms, outcome = runner.run(_measure(platform.url))
    return Report(
        title="Overhead of the gateway",
        promises=(
            Promise("gateway's time less the pod's, p50", statistics.median(overhead_ms), P50_MS, "ms"),
            Promise("gateway's time less the pod's, p99", quantile(overhead_ms, 0.99), P99_MS, "ms"),
            Promise(f"failed requests of {outcome.count}", len(outcome.failed), 0, "requests"),
        ),
        figures=(
            Figure("overhead", statistics.median(overhead_ms), "ms", spread(overhead_ms)),
            Figure("whole utterance, p50", statistics.median(outcome.answered_s) * 1000, "ms"),
            Figure("load", rate_hz, "requests/s"),
        ),
    )


async def _measure(url: str) -> tuple[float, list[float], Outcome]:
    bodies = [clip.pcm() for clip in clips()]
    overhead_ms: list[float] = []
    outcome = Outcome()
    async with aiohttp.ClientSession(url) as http:

        async def send(number: int) -> None:
            body = bodies[number % len(bodies)]
            async with http.post(PATH, data=body, headers={"content-type": PCM}) as answer:
                answer.raise_for_status()
                await answer.read()
                told = _durations(answer.headers["server-timing"])
            overhead_ms.append(told["gateway"] - told["total"])

        loop = asyncio.get_running_loop()
        took = []
        for number in range(WARM_UP):
            began = loop.time()
            await send(number)
            took.append(loop.time() - began)
        overhead_ms.clear()
        rate_hz = SHARE * PODS / statistics.mean(took)
        await steady_load(send, rate_hz=rate_hz, count=REQUESTS, outcome=outcome)
    return rate_hz, overhead_ms, outcome


def _durations(timing: str) -> dict[str, float]:
    """The milliseconds in a `server-timing` header, by name."""
    parts = (entry.strip().partition(";dur=") for entry in timing.split(","))
    return {name: float(value) for name, _, value in parts}
