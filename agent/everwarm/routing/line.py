"""`Line`: who waits for a place at full pods, name by name, and in which order.

An utterance that every pod refused stands in the line of its model's name until it is answered, and keeps its place there
while it asks again. One that comes later stands behind it; else a steady stream of new ones, each asking at once, would
take every place that comes free, and whoever was refused once would be refused until its deadline. A place that comes free
wakes the first who rests. How long one rests at most grows with the number of those before it, so that the first asks
often and many together do not ask much more often than one.

It orders the utterances of one agent; between agents the pods decide, by who asks when a place is free.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from heapq import nsmallest
from itertools import count, islice
from types import TracebackType
from typing import Final, Self

COUNTED: Final = 3
"""Of those before a turn so many are counted; waits grow no further."""


class Line:
    """The turns of those who wait, by name. For one event loop."""

    def __init__(self) -> None:
        self._turns: dict[str, dict[Turn, None]] = {}
        self._numbers = count()

    def turn(self, name: str) -> "Turn":
        """A turn for an utterance for *name*, which stands in line from its first `rest` until its context is left."""
        return Turn(self, name)

    def is_empty(self, name: str) -> bool:
        """Whether nobody waits for *name*."""
        return name not in self._turns

    def wake(self, names: Iterable[str], places: int = 1) -> None:
        """End the rest of the first of those who wait for one of *names*: *places* have come free for them."""
        if not self._turns:
            return
        resting = (turn for name in names for turn in self._turns.get(name, ()) if turn.rests)
        for turn in nsmallest(places, resting, key=lambda turn: turn.number):
            turn.wake()

    def wake_all(self) -> None:
        """End every rest: pods have come that may hold what anybody waits for."""
        for turns in self._turns.values():
            for turn in turns:
                turn.wake()

    def join(self, turn: "Turn") -> None:
        """Put *turn* at the end of its line; does nothing when it stands there already."""
        if turn not in (turns := self._turns.setdefault(turn.name, {})):
            turns[turn] = None
            turn.number = next(self._numbers)

    def leave(self, turn: "Turn") -> None:
        """*turn* waits no more, if it ever did."""
        if turns := self._turns.get(turn.name):
            turns.pop(turn, None)
            if not turns:
                del self._turns[turn.name]

    def ahead(self, turn: "Turn") -> int:
        """How many stand before *turn*, up to COUNTED."""
        first = list(islice(self._turns.get(turn.name, ()), COUNTED))
        return first.index(turn) if turn in first else len(first)


class Turn:
    """One utterance's place in the *line* of *name*; a context manager, at whose end it is given up."""

    def __init__(self, line: Line, name: str) -> None:
        self.name: Final = name
        self.number = 0
        """Its own, of all that ever stood in line, once it does."""
        self._line = line
        self._woken: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._line.leave(self)

    @property
    def ahead(self) -> int:
        """How many stand before it, up to COUNTED; all who wait while it does not stand in line itself."""
        return self._line.ahead(self)

    @property
    def rests(self) -> bool:
        """Whether it rests and was not woken yet."""
        return self._woken is not None and not self._woken.done()

    async def rest(self, seconds: float) -> None:
        """Stand in line until woken, at most *seconds*."""
        self._line.join(self)
        self._woken = asyncio.get_running_loop().create_future()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken
        finally:
            self._woken = None

    def wake(self) -> None:
        """End its rest."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
