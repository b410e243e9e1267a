"""Whose turn it is: a number of decodes at a time, utterances before recordings.

First come, first served, among utterances; where several wait, the first ones share a turn as far as *company* allows, to be
decoded as one batch (`engine.searches`). A recording takes a turn for one 30 s window after the other and passes it on
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


@dataclass(slots=True, eq=False)
class Turn:
    """The right to decode now. company: those who got it together; holders: those who have not given it back."""

    is_recording: bool = False
    company: int = 0
    holders: int = 0


@dataclass(frozen=True, slots=True, order=True)
class _Waiter:
    """Somebody who waits for a turn; the earliest *due* goes first, of equal ones who came first."""

    due: float
    number: int
    is_recording: bool = field(compare=False)
    answer: "asyncio.Future[Turn]" = field(compare=False)


class Turns:
    """*count* turns, each lent to one recording or to up to *company* utterances."""

    def __init__(self, count: int, *, company: int = 1, patience_s: float = RECORDING_PATIENCE_S) -> None:
        self.free = count
        self._company = company
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
        loop = asyncio.get_running_loop()
        if deadline and loop.time() >= deadline.at:
            raise DeadlineExceeded(deadline_s=deadline.seconds, waiting_for="a slot")
        self._came += 1
        due = loop.time() + (self._patience_s if is_recording else 0.0)
        waiter = _Waiter(due, self._came, is_recording, loop.create_future())
        insort(self._waiting, waiter)
        self._hand_on()
        alarm = loop.call_at(due + _EARLY_S, self._hand_on) if is_recording else None
        try:
            async with asyncio.timeout_at(deadline.at if deadline else None):
                return await waiter.answer
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

    def give_back(self, turn: Turn) -> None:
        """One holder of *turn* is done with it; the last one hands it on to whoever is due."""
        turn.holders -= 1
        if turn.holders:
            return
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
            self.free -= 1
            self._recordings += due.is_recording
            self._lend([due] if due.is_recording else self._utterances()[: self._company])

    def _utterances(self) -> list[_Waiter]:
        """Those who wait and are no recordings, the first first."""
        return [waiter for waiter in self._waiting if not (waiter.is_recording or waiter.answer.done())]

    def _lend(self, waiters: list[_Waiter]) -> None:
        turn = Turn(waiters[0].is_recording, company=len(waiters), holders=len(waiters))
        for waiter in waiters:
            self._waiting.remove(waiter)
            waiter.answer.set_result(turn)

    def _is_open_to(self, waiter: _Waiter, now: float) -> bool:
        """Whether *waiter* may have a turn, of those that are free."""
        if waiter.answer.done():  # cancelled, and not yet gone
            return False
        if not waiter.is_recording:
            return True
        utterances = self._count - self.free - self._recordings
        leaves_room = self.free - 1 >= utterances or now >= waiter.due
        return leaves_room and self._recordings < max(1, self._count - 1)

    def _forgo(self, waiter: _Waiter) -> None:
        """Leave the queue. A turn handed over in the very moment of leaving goes on to the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif waiter.answer.done() and not waiter.answer.cancelled() and waiter.answer.exception() is None:
            self.give_back(waiter.answer.result())
