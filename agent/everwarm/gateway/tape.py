"""`BodyTape`: an upload recorded as it arrives, which any number of readers play from the beginning.

The first pod is fed while the caller is still sending; a second one, after the first has failed, gets the same bytes
again and then goes on live. Every byte is held once, however many readers there are, and counted twice over: against
the limit of the request and against `ByteBudget`, which all requests share, so that many large uploads cannot together
take the memory that one may. One event loop, no locks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from everwarm_core.errors import EverwarmError, GatewayFull, UploadTooLarge


class ByteBudget:
    """Bytes that all tapes together may hold."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.held = 0

    def ensure_room(self, size: int) -> None:
        """Raise GatewayFull when *size* more bytes would be too many."""
        if self.held + size > self._limit:
            raise GatewayFull(f"{self.held >> 20} MiB of uploads")

    def take(self, size: int) -> None:
        """Count *size* bytes; raises as `ensure_room`."""
        self.ensure_room(size)
        self.held += size

    def give_back(self, size: int) -> None:
        """Uncount *size* bytes."""
        self.held -= size


class BodyTape:
    """One upload of at most *limit_bytes*; *size* as declared by the caller, None when it did not say.

    Written by one task with `append` and then `finish` or `fail`; a `dispatch.Body` to whoever reads.
    """

    def __init__(self, *, limit_bytes: int, budget: ByteBudget, size: int | None = None) -> None:
        self._limit = limit_bytes
        self._budget = budget
        self._declared = size
        self._pieces: list[bytes] = []
        self._is_complete = False
        self._more = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self.received = 0
        """Bytes so far."""
        self.error: EverwarmError | None = None
        """Why it will never be complete."""

    @property
    def size(self) -> int | None:
        """Bytes in all: as declared, or as counted once it is complete; None while nobody knows."""
        return self.received if self._is_complete else self._declared

    @property
    def is_complete(self) -> bool:
        """Whether the last byte is here."""
        return self._is_complete

    def append(self, piece: bytes) -> None:
        """Record *piece*; raises UploadTooLarge or GatewayFull, after which the tape is still to be failed."""
        if self.received + len(piece) > self._limit:
            raise UploadTooLarge(self._limit)
        self._budget.take(len(piece))
        self._pieces.append(piece)
        self.received += len(piece)
        self._wake()

    def finish(self) -> None:
        """That was the last piece."""
        self._is_complete = True
        self._wake()
        listeners, self._listeners = self._listeners, []
        for tell in listeners:
            tell()

    def fail(self, error: EverwarmError) -> None:
        """No more will come, because of *error*; readers raise it where the recording ends."""
        self.error = error
        self._wake()

    def erase(self) -> None:
        """Forget the bytes; nobody may open the tape afterwards."""
        self._budget.give_back(self.received)
        self.received = 0
        self._pieces.clear()

    async def open(self) -> AsyncIterator[bytes]:
        """The recording from its first byte, followed live to its end."""
        position = 0
        while True:
            while position < len(self._pieces):
                yield self._pieces[position]
                position += 1
            if self.error is not None:
                raise self.error
            if self._is_complete:
                return
            await self._more.wait()

    async def grew(self) -> None:
        """Return at the next piece, end or failure."""
        await self._more.wait()

    def when_complete(self, tell: Callable[[], None]) -> None:
        """Call *tell* when the last byte is here; at once when it is."""
        if self._is_complete:
            tell()
        else:
            self._listeners.append(tell)

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
