"""Whose turn it is: a number of decodes at a time, utterances before recordings.

First come, first served, among utterances. A recording takes a turn for one 30 s window after the other and passes it on
in between; whoever speaks right now does not wait for all of it, nor share the machine with it for long: a recording goes
on when as many turns stay free as utterances are being decoded, so with two slots when nobody speaks. After
`RECORDING_PATIENCE_S` it goes on anyway, so that it is slow on a busy pod and not stuck. And where there are several turns,
recordings never hold the last of them.

Lives on one event loop and needs no locks.
"""

import asyncio
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from everwarm_core.errors import CapacityError, DeadlineExceeded

RECORDING_PATIENCE_S: Final = (
    5.0  # a guess: where somebody always speaks, a recording then takes a third of its own length
)
_EARLY_S: Final = 0.01  # timers ring up to a millisecond before their time


@dataclass(frozen=True, slots=True)
class Deadline:
    """A caller's patience: *seconds* in all, over at *at* on the event loop's clock."""

    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to decode now."""

    is_recording: bool = False


@dataclass(frozen=True, slots=True, order=True)
class _Waiter:
    """Somebody who waits for a turn; the earliest *due* goes first, of equal ones who came first."""

    due: float
    number: int
    turn: Turn = field(compare=False)
    answer: "asyncio.Future[None]" = field(compare=False)


class Turns:
    """*count* turns, lent one by one."""

    def __init__(self, count: int, *, patience_s: float = RECORDING_PATIENCE_S) -> None:
        self.free = count
        self._patience_s = patience_s
        self._count = count
        self._recordings = 0
        self._waiting: list[_Waiter] = []
        self._came = 0

    @property
    def waiting(self) -> int:
        """Takers that wait now."""
        return len(self._waiting)

    async def take(self, deadline: Deadline | None, *, is_recording: bool = False) -> Turn:
        """Wait for a turn; raises DeadlineExceeded, or what `refuse` was told."""
        loop, turn = asyncio.get_running_loop(), Turn(is_recording)
        if deadline and loop.time() >= deadline.at:
            raise DeadlineExceeded(deadline_s=deadline.seconds, waiting_for="a slot")
        self._came += 1
        due = loop.time() + (self._patience_s if is_recording else 0.0)
        waiter = _Waiter(due, self._came, turn, loop.create_future())
        insort(self._waiting, waiter)
        self._hand_on()
        alarm = loop.call_at(due + _EARLY_S, self._hand_on) if is_recording else None
        try:
            async with asyncio.timeout_at(deadline.at if deadline else None):
                await waiter.answer
        except TimeoutError as error:
            self._forgo(waiter)
            assert deadline is not None
            raise DeadlineExceeded(deadline_s=deadline.seconds, waiting_for="a slot") from error
        except asyncio.CancelledError:
            self._forgo(waiter)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
        return turn

    def give_back(self, turn: Turn) -> None:
        """Hand *turn* on to whoever is due."""
        self.free += 1
        self._recordings -= turn.is_recording
        self._hand_on()

    def refuse(self, error: Callable[[], CapacityError]) -> None:
        """Fail everybody who waits, each with an error of its own."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.answer.done():
                waiter.answer.set_exception(error())

    def _hand_on(self) -> None:
        now = asyncio.get_running_loop().time()
        while self.free:
            due = next((waiter for waiter in self._waiting if self._is_open_to(waiter, now)), None)
            if due is None:
                return
            self._waiting.remove(due)
            self.free -= 1
            self._recordings += due.turn.is_recording
            due.answer.set_result(None)

    def _is_open_to(self, waiter: _Waiter, now: float) -> bool:
        """Whether *waiter* may have a turn, of those that are free."""
        if waiter.answer.done():  # cancelled, and not yet gone
            return False
        if not waiter.turn.is_recording:
            return True
        utterances = self._count - self.free - self._recordings
        leaves_room = self.free - 1 >= utterances or now >= waiter.due
        return leaves_room and self._recordings < max(1, self._count - 1)

    def _forgo(self, waiter: _Waiter) -> None:
        """Leave the queue. A turn handed over in the very moment of leaving goes on to the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif waiter.answer.done() and not waiter.answer.cancelled() and waiter.answer.exception() is None:
            self.give_back(waiter.turn)
