"""The bound on the time of one attempt. It begins as what the caller has left, and is drawn closer by what becomes known."""

import asyncio
from types import TracebackType
from typing import Self

from everwarm.deadline import Deadline
from everwarm_core.errors import DeadlineExceeded, PodFailed


class Patience:
    """How long one attempt on *pod* may still take; only ever shortened. A context manager around the attempt."""

    def __init__(self, pod: str, deadline: Deadline) -> None:
        self._pod = pod
        self._deadline = deadline
        self._timeout = asyncio.timeout(deadline.remaining_s())
        self._is_open = False
        self._why = ""

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._is_open = False
        try:
            await self._timeout.__aexit__(kind, error, where)
        except TimeoutError as out_of_time:
            if self._why:
                raise PodFailed(self._pod, self._why) from out_of_time
            raise DeadlineExceeded(
                deadline_s=self._deadline.limit_s, waiting_for=f"the answer of pod {self._pod!r}"
            ) from out_of_time

    def ends_in(self, seconds: float, why: str) -> None:
        """Give the pod up in *seconds*, unless that is later than what holds already."""
        when = asyncio.get_running_loop().time() + seconds
        holds = self._timeout.when()
        if self._is_open and not self._timeout.expired() and (holds is None or when < holds):
            self._timeout.reschedule(when)
            self._why = why
