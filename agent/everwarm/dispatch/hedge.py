"""A second attempt beside a slow one, begun by a timer, so that a hung pod costs a second and not the whole patience."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from everwarm.dispatch.exchange import Answer
from everwarm.dispatch.patience import Patience


class Hedge:
    """A second attempt that begins by itself some time after the first one's body was sent.

    group: whose task it is; ask: makes it; held: what a streamed answer of it leaves open until it is taken over.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        ask: Callable[[AsyncExitStack], Awaitable[Answer | None]],
        *,
        after_s: float,
        held: AsyncExitStack,
    ) -> None:
        self.answer: Answer | None = None
        self.kept = AsyncExitStack()
        self._group, self._ask, self._after_s, self._held = group, ask, after_s, held
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def arm(self, first: Patience) -> None:
        """The first attempt's body is out; *first* is how long it may take."""
        begin = partial(self._begin, first)
        self._timer = asyncio.get_running_loop().call_later(self._after_s, begin)

    def disarm(self) -> None:
        """Begin no more; what has begun goes on."""
        if self._timer is not None:
            self._timer.cancel()

    def cancel(self) -> None:
        """The first attempt was answered."""
        self.disarm()
        if self._task is not None:
            self._task.cancel()

    def _begin(self, first: Patience) -> None:
        self._task = self._group.create_task(self._run(first), name="hedge")

    async def _run(self, first: Patience) -> None:
        answer = await self._ask(self._held)
        if answer is not None:
            self.answer, self.kept = answer, self._held.pop_all()
            first.ends_in(0.0, "another pod was faster")
