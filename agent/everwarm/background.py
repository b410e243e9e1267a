"""The owner of an object's endless tasks, for objects with `start` and `aclose` as well as `async with`.

Callers such as LiveKit plugins open a client in one task and close it in another. A bare TaskGroup would cancel the
*opening* task when a child fails, wherever that task is by then; so a child here never fails: what it raises is logged
at this edge and it is started again after a pause. Ending is cancellation, and `aclose` returns when all have ended.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from everwarm_core.logs import library_logger

RESTART_AFTER_S: Final = 1.0

log = library_logger(__name__)


class Background:
    """Endless jobs by name, running between `start` and `aclose`."""

    def __init__(self, jobs: dict[str, Callable[[], Awaitable[None]]]) -> None:
        self._jobs = jobs
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_running(self) -> bool:
        """Whether it was started and not closed yet."""
        return self._group is not None

    async def start(self) -> None:
        """Start every job; does nothing when they run already."""
        if self._group is None:
            self._group = await asyncio.TaskGroup().__aenter__()
            self._tasks = [
                self._group.create_task(_endlessly(name, job), name=name) for name, job in self._jobs.items()
            ]

    async def aclose(self) -> None:
        """Cancel every job and wait until all have ended."""
        group, self._group = self._group, None
        if group is not None:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            await group.__aexit__(None, None, None)


async def _endlessly(name: str, job: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await job()
            log.error("background.returned", job=name)
        except Exception:
            # A job whose clean-up fails raises that instead of its cancellation, which still has to end us.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from None
            log.exception("background.failed", job=name)
        await asyncio.sleep(RESTART_AFTER_S)
