"""SIGINT and SIGTERM for commands that own processes: the first ends the block in order, later ones hasten it.

The first signal is a cancellation of the block, once, so everything inside unwinds and drains; what hastens the
draining is set by whoever has something to hasten.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Signals:
    """What to do at the first signal and at later ones, and how many came."""

    on_first: Callable[[], None] = _nothing
    hasten: Callable[[], None] = _nothing
    count: int = 0


@asynccontextmanager
async def until_signalled() -> AsyncIterator[Signals]:
    """Inside the block, a signal ends it; afterwards `count` tells whether one did."""
    loop = asyncio.get_running_loop()
    signals = Signals()
    try:
        async with asyncio.timeout(None) as scope:

            def receive() -> None:
                signals.count += 1
                if signals.count == 1:
                    signals.on_first()
                    scope.reschedule(loop.time())
                else:
                    signals.hasten()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, receive)
            try:
                yield signals
            finally:
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(number)
    except TimeoutError:
        if signals.count == 0:
            raise
