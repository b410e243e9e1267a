"""`Line`: who waits for a place at full pods, and in which order.

An utterance that every pod refused rests for a moment and asks again, until it is answered. One that comes while others
rest stands behind them; else a steady stream of new ones, each asking at once, would take every place that comes free, and
whoever was refused once would be refused until its deadline. A place that comes free wakes the first who rests. How long
one rests at most grows with the number of those before it, so that the first asks often and many together do not ask much
more often than one.

There is a line for each name of a model and language, as those who want something else may find pods that are idle. It
orders the utterances of one agent; between agents the pods decide, by who asks when a place is free.
"""

import asyncio
from collections.abc import Container, Iterator
from contextlib import suppress
from heapq import nsmallest
from itertools import count, islice
from types import TracebackType
from typing import Final, Self

COUNTED: Final = 3
"""Of those before a turn so many are counted; waits grow no further."""

Key = tuple[str, str | None]
"""The name of a model, and a language or none."""


class Line:
    """The turns of those who were refused. For one event loop."""

    def __init__(self) -> None:
        self._turns: dict[Key, dict[Turn, None]] = {}
        self._numbers = count(1)

    @property
    def is_empty(self) -> bool:
        """Whether nobody was refused and waits."""
        return not self._turns

    def turn(self, name: str, language: str | None) -> "Turn":
        """A turn for an utterance for *name* in *language*, which stands in line from its first `rest` to its end."""
        return Turn(self, (name, language))

    def wake(self, names: Container[str], places: int = 1) -> None:
        """End the rest of the first of those who wait for one of *names*: *places* have come free for them."""
        if self.is_empty:
            return
        resting = (turn for key in self._turns if key[0] in names for turn in self.resting(key))
        for turn in nsmallest(places, resting, key=lambda turn: turn.number):
            turn.wake()

    def wake_all(self) -> None:
        """End every rest: pods have come that may hold what anybody waits for."""
        for turns in self._turns.values():
            for turn in turns:
                turn.wake()

    def resting(self, key: Key) -> "Iterator[Turn]":
        """Those of *key* who rest now, in their order; whoever asks at the moment is not among them."""
        return (turn for turn in self._turns.get(key, ()) if turn.rests)

    def join(self, turn: "Turn") -> int:
        """Put *turn* at the end of its line; returns its number there, which is larger than those before."""
        self._turns.setdefault(turn.key, {})[turn] = None
        return next(self._numbers)

    def leave(self, turn: "Turn") -> None:
        """*turn* waits no more, if it ever did."""
        if turns := self._turns.get(turn.key):
            turns.pop(turn, None)
            if not turns:
                del self._turns[turn.key]


class Turn:
    """One utterance's place in the *line* of *key*; a context manager, at whose end it is given up."""

    def __init__(self, line: Line, key: Key) -> None:
        self.key: Final = key
        self.number = 0
        """Of all that ever stood in line; 0 before it does."""
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
        """How many rest before it, up to COUNTED; all who rest while it does not stand in line itself."""
        before = (
            turn for turn in self._line.resting(self.key) if not self.number or turn.number < self.number
        )
        return sum(1 for _ in islice(before, COUNTED))

    @property
    def rests(self) -> bool:
        """Whether it rests and was not woken yet."""
        return self._woken is not None and not self._woken.done()

    async def rest(self, seconds: float) -> None:
        """Stand in line until woken, at most *seconds*."""
        self.number = self.number or self._line.join(self)
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
