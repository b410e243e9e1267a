"""What is sent to a pod for one utterance and what comes back, and the contract of whoever sees to it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

from multidict import CIMultiDictProxy

from everwarm.deadline import Deadline
from everwarm.routing.router import Wish
from everwarm_core.errors import EverwarmError
from everwarm_core.http.headers import IDLE_HEADER


class Body(Protocol):
    """A request body that can be sent more than once."""

    @property
    def size(self) -> int | None:
        """Bytes in all; None while that is unknown."""

    @property
    def error(self) -> EverwarmError | None:
        """Why the body itself will never be complete; None while nothing is wrong with it."""

    def open(self) -> bytes | memoryview | AsyncIterator[bytes]:
        """The body from its first byte."""

    def when_complete(self, tell: Callable[[], None]) -> None:
        """Call *tell* once every byte is here; at once when they are."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body that is in memory already."""

    data: bytes | memoryview

    @property
    def size(self) -> int:
        """See Body."""
        return len(self.data)

    @property
    def error(self) -> None:
        """See Body; nothing can be wrong."""
        return

    def open(self) -> bytes | memoryview:
        """See Body."""
        return self.data

    def when_complete(self, tell: Callable[[], None]) -> None:
        """See Body."""
        tell()


@dataclass(frozen=True, slots=True)
class Call:
    """One POST as any pod may get it; *path* begins with a slash and carries the query, percent-encoded."""

    path: str
    headers: Mapping[str, str]
    body: Body
    wish: Wish

    def idle_only(self) -> "Call":
        """The same, to be refused by a pod that has no idle slot at once."""
        return replace(self, headers={**self.headers, IDLE_HEADER: "1"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a pod answered: 2xx, or a 4xx that is the caller's own fault.

    body: the whole answer, or None for an event stream, which `stream` then yields as it comes.
    """

    status: int
    headers: CIMultiDictProxy[str]
    pod: str
    attempts: int
    body: bytes | None
    stream: AsyncIterator[bytes] | None = None


class Exchange(Protocol):
    """A way to have a call answered."""

    def exchange(self, call: Call, *, deadline: Deadline) -> AbstractAsyncContextManager[Answer]:
        """The answer to *call*; a stream is open inside the context only. Raises what no retry could mend."""

    async def glance(self, call: Call, *, deadline: Deadline) -> Answer | None:
        """The answer to *call* of whoever has an idle slot now; None when nobody has, or when anything goes wrong: the
        caller can do without.
        """


class Held(AbstractAsyncContextManager[Answer]):
    """The answer that *answer* brings, entered; what it left on the stack it was given is closed at the end."""

    def __init__(self, answer: Callable[[AsyncExitStack], Awaitable[Answer]]) -> None:
        self._answer = answer
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Answer:
        try:
            return await self._answer(self._stack)
        except BaseException:
            await self._stack.aclose()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, where)
