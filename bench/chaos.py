"""Lost requests while parts are killed: a pod by SIGKILL, then Valkey, under steady load.

The platform is the one its users start: `everwarm up`, two pods, embedded Valkey, gateway. Half of the requests come
through the gateway, half from an agent that routes by itself. The load is half of what one pod can serve, measured
first. Each answer is compared with the clip's text, so a wrong transcript counts as lost too.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import psutil

import everwarm
from bench.report import Figure, Promise, Report, quantile, spread
from tests.support.load import Outcome, steady_load
from tests.support.platform import TWO_PODS, RunningPlatform, running_platform
from tests.support.speech import clips, words

REQUESTS: Final = 500
SHARE_OF_ONE_POD: Final = 0.5


def run() -> Report:
    """500 requests; a pod dies after a quarter of them, Valkey after a half, the other pod after three quarters."""
    with tempfile.TemporaryDirectory() as folder, running_platform(TWO_PODS, folder=Path(folder)) as platform:
        service_s, outcome, killed = asyncio.run(_under_load(platform, REQUESTS))
    for failure in outcome.failed[:10]:
        sys.stderr.write(f"bench: {failure}\n")
    return Report(
        title="Chaos",
        promises=(
            Promise(f"failed requests of {outcome.count}", len(outcome.failed), 0, "requests"),
            Promise("requests not accounted for", REQUESTS - outcome.count, 0, "requests"),
            Promise("faults not injected, of 3", 3 - len(killed), 0, "faults"),
        ),
        figures=(
            Figure("steady load", SHARE_OF_ONE_POD / service_s, "requests/s"),
            Figure("latency", statistics.median(outcome.answered_s), "s", spread(outcome.answered_s)),
            Figure("p99 of latency, faults included", quantile(outcome.answered_s, 0.99), "s"),
        ),
        notes=(f"Killed, in order: {', '.join(killed)}.",),
    )


async def _under_load(platform: RunningPlatform, count: int) -> tuple[float, Outcome, list[str]]:
    outcome, killed = Outcome(), []
    faults: list[tuple[int, str, Callable[[], psutil.Process]]] = [
        (count // 4, "a pod", lambda: platform.pods()[0]),
        (count // 2, "Valkey", platform.valkey),
        (3 * count // 4, "a pod", lambda: platform.pods()[-1]),
    ]
    async with (
        everwarm.Client(redis_url=platform.redis_url()) as direct,
        everwarm.Client(base_url=platform.url) as through_gateway,
    ):

        async def send(number: int) -> None:
            clip = clips()[number % len(clips())]
            client = direct if number % 2 else through_gateway
            result = await client.transcribe(clip.path, model="tiny.en", language="en")
            if words(result.text) != words(clip.text):
                raise ValueError(f"wrong transcript of {clip.path.name}")

        service_s = await _service_s(send)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                steady_load(send, rate_hz=SHARE_OF_ONE_POD / service_s, count=count, outcome=outcome)
            )
            for after, what, victim in faults:
                await outcome.reached(after)
                victim().kill()
                killed.append(what)
                sys.stderr.write(f"bench: request {outcome.count}: killed {what}\n")
    return service_s, outcome, killed


async def _service_s(send: Callable[[int], Awaitable[None]]) -> float:
    loop = asyncio.get_running_loop()
    took = []
    for number in range(24):
        began = loop.time()
        await send(number)
        took.append(loop.time() - began)
    return statistics.median(took)
