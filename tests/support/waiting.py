"""Waiting for conditions that no event announces: another process's or another server's state."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from tests.fixtures.records import WAIT_S


async def until(condition: Callable[[], object | Awaitable[object]], *, within_s: float = WAIT_S) -> None:
    """Return once *condition* holds; raises TimeoutError when it does not *within_s* seconds."""
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if inspect.isawaitable(holds):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.01)
