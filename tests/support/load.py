"""Steady load: requests begun at a fixed rate whatever becomes of the ones before, every one accounted for.

Open loop, as callers are: a slow answer does not delay the next request, so a stall shows as waiting and not as fewer
requests. Beginnings follow the loop's clock from the start, so a late one does not shift those after it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """What became of the requests: seconds each answered one took, and what each failed one said."""

    answered_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _ended: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def count(self) -> int:
        """Requests ended so far, one way or the other."""
        return len(self.answered_s) + len(self.failed)

    async def reached(self, count: int) -> None:
        """Return once *count* requests have ended: the moment to inject a fault."""
        async with self._ended:
            await self._ended.wait_for(lambda: self.count >= count)

    async def record(self, *, took_s: float, error: Exception | None) -> None:
        """Count one request that took *took_s* seconds, or failed by *error*."""
        async with self._ended:
            if error is None:
                self.answered_s.append(took_s)
            else:
                self.failed.append(f"after {took_s:.1f} s: {type(error).__name__}: {error}")
            self._ended.notify_all()


async def steady_load(
    send: Callable[[int], Awaitable[None]], *, rate_hz: float, count: int, outcome: Outcome
) -> None:
    """Begin *count* requests, *rate_hz* each second, and return when all have ended.

    send: makes request number n and raises when its answer is missing or wrong; outcome is filled as they end, so
    that whoever injects faults can follow along.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int) -> None:
        started = loop.time()
        error: Exception | None = None
        try:
            await send(number)
        except Exception as raised:  # noqa: BLE001 - whatever it is, the utterance is lost, and that is counted
            error = raised
        await outcome.record(took_s=loop.time() - started, error=error)

    async with asyncio.TaskGroup() as requests:
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate_hz - loop.time()))
            requests.create_task(one(number), name=f"request-{number}")
