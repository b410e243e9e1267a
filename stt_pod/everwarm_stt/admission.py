"""Who may be decoded here, and when: `slots` decodes at a time, `queue` places to wait in, nothing beyond.

A request takes a place before its body is read, so a full pod answers 503 for the price of a header. It then waits
for its turn (`turns`: utterances before recordings), and gives its work to a thread. A running decode cannot be
stopped, so *the end of its thread* frees slot and place, never the cancellation of the request: otherwise each
impatient caller would add one more decode than the pod has slots. What a caller that leaves can do is ask: its
`Slot.cancelled` turns true, and the engine looks at that before each window; there a recording lets others go first.

Lives on one event loop and needs no locks: threads only come back through `call_soon_threadsafe`. The decisions
(`refusal`, `retry_after_s`) are pure. HTTP, metrics and spans are left to the server.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from everwarm_core.errors import CapacityError, DecodeCancelled, PodDraining, PodFull
from everwarm_stt.turns import Deadline, Turn, Turns

T = TypeVar("T")

EWMA_WEIGHT: Final = 0.2  # of the newest service time: a guess; about ten requests are remembered
MAX_RETRY_AFTER_S: Final = 60.0  # beyond that another pod, not this one, is the answer


@dataclass(frozen=True, slots=True)
class Capacity:
    """Decodes at a time, requests that may wait beyond them, and utterances that one decode may be a batch of."""

    slots: int
    queue: int
    batch: int = 1


def retry_after_s(capacity: Capacity, *, held: int, service_s: float) -> float:
    """When a place is likely to be free, in whole seconds from 1 to 60.

    held: requests in the pod, decoding or waiting; service_s: what one usually holds a slot for. The next slot is
    free after a share of the work in front of it.
    """
    waiting = max(1, held - capacity.slots)
    return float(min(MAX_RETRY_AFTER_S, max(1, math.ceil(waiting * service_s / capacity.slots))))


def refusal(capacity: Capacity, *, held: int, draining: bool, service_s: float) -> CapacityError | None:
    """Why one more request is refused by a pod that holds *held* of them; None when it is welcome."""
    if draining:
        return PodDraining()
    if held >= capacity.slots + capacity.queue:
        wait_s = retry_after_s(capacity, held=held, service_s=service_s)
        return PodFull(slots=capacity.slots, queue=capacity.queue, retry_after_s=wait_s)
    return None


class Slot:
    """One of the pod's decodes, or a share in one. `run` may be called once; the end of its thread frees the slot.

    company: requests that got it together, this one included.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, turns: Turns, turn: Turn, ended: Callable[["Slot", bool], None]
    ) -> None:
        self._threads = threads
        self._turns = turns
        self._turn: Turn | None = turn
        self.company = turn.company
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._is_cancelled = False
        self._passing: Future[None] | None = None
        self._job: Future[Any] | None = None
        self._answer: asyncio.Future[Any] | None = None
        self.is_recording = False

    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more; asked by the decode, from its thread, before each window.

        A recording passes its turn on here, and returns when it is due again.
        """
        if self.is_recording and not self._is_cancelled:
            self._let_others_go_first()
        return self._is_cancelled

    def give_way(self) -> None:
        """What is decoded here is a recording, as its thread has found out: from now on others go first.

        Raises DecodeCancelled when nobody waits for it any more.
        """
        self.is_recording = True
        if self.cancelled():
            raise DecodeCancelled

    def _let_others_go_first(self) -> None:
        try:
            self._passing = asyncio.run_coroutine_threadsafe(self._pass_turn(), self._loop)
            self._passing.result()
        except (CapacityError, CancelledError, RuntimeError):  # a hastened drain; it left; the loop is closed
            self._is_cancelled = True

    async def _pass_turn(self) -> None:
        self._return_turn()
        if self._is_cancelled:
            raise asyncio.CancelledError
        self._turn = await self._turns.take(None, is_recording=True)

    def _return_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            self._turns.give_back(turn)

    def give_up(self) -> None:
        """Ask the decode to stop at its next opportunity, and tell whoever waits for it at once."""
        self._is_cancelled = True
        if self._passing is not None:
            self._passing.cancel()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(PodDraining())

    async def run(self, work: Callable[[], T]) -> T:
        """The result of *work*, which runs on a thread with this task's context variables (and so its span).

        Raises what *work* raises, and PodDraining when a hastened drain has no time for it.
        """
        assert self._job is None, "a slot is taken for one decode"
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._answer = answer
        job = self._job = self._threads.submit(copy_context().run, work)

        def settle() -> None:  # the slot is free by the time the awaiting task goes on
            self._end(ran=not job.cancelled())
            if answer.done():
                return
            if job.cancelled():
                answer.cancel()
            elif (error := job.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(job.result())

        job.add_done_callback(lambda _: _call_soon(loop, settle))
        return await answer

    def leave(self) -> None:
        """The request has no more use for the slot: what still runs should stop, what never ran frees it now."""
        self._is_cancelled = True
        if self._job is None:
            self._end(ran=False)
            return
        self._job.cancel()  # effective only before a thread begins it; the callback frees the slot either way
        if self._passing is not None:
            self._passing.cancel()  # it need not wait for its turn

    def _end(self, *, ran: bool) -> None:
        self._return_turn()
        self._ended(self, ran)


class Admission:
    """The slots and places of one pod, on one event loop. `close` it when the pod ends."""

    def __init__(self, capacity: Capacity, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._clock = clock
        self._held = 0
        self._turns = Turns(capacity.slots, company=capacity.batch)
        self._running: set[Slot] = set()
        self._service_s: float | None = None
        self._is_draining = False
        self._is_hastened = False
        self._became_idle = asyncio.Event()
        self._place_came_free = asyncio.Event()
        # A recording that waits for its next window keeps its thread; so does each utterance of a batch.
        self._threads = ThreadPoolExecutor(capacity.slots + capacity.queue, thread_name_prefix="decode")

    @property
    def inflight(self) -> int:
        """Requests held: waiting, decoding, and decodes whose callers left but whose threads have not ended."""
        return self._held

    @property
    def busy(self) -> int:
        """Slots in use now."""
        return self.capacity.slots - self._turns.free

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot now."""
        return self._turns.waiting

    @property
    def has_idle_slot(self) -> bool:
        """Whether a slot is free that nobody waits for."""
        return self._turns.free > 0 and not self._turns.waiting and not self._is_draining

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused for good."""
        return self._is_draining

    @property
    def is_hastened(self) -> bool:
        """Whether what is held was given up."""
        return self._is_hastened

    @property
    def service_s(self) -> float:
        """What a request usually holds a slot for, in seconds: a moving average, 1 before the first."""
        return 1.0 if self._service_s is None else self._service_s

    @asynccontextmanager
    async def admit(
        self, deadline: Deadline | None = None, *, is_promised: bool = False
    ) -> AsyncIterator["Place"]:
        """Take a place, at once or never: raises PodFull or PodDraining.

        is_promised: it belongs to a session that was let in before the drain, and ends in haste only.
        """
        draining = self._is_hastened if is_promised else self._is_draining
        if refused := refusal(self.capacity, held=self._held, draining=draining, service_s=self.service_s):
            raise refused
        self._held += 1
        place = Place(self, deadline)
        try:
            yield place
        finally:
            place.leave()

    async def take_slot(self, place: "Place") -> Slot:
        """Wait for a slot on behalf of *place*; raises DeadlineExceeded or PodDraining."""
        if self._is_hastened:
            raise PodDraining
        turn = await self._turns.take(place.deadline)
        taken_at = self._clock()

        def ended(slot: Slot, ran: bool) -> None:  # noqa: FBT001  # a callback's plain argument
            self._running.discard(slot)
            if ran and not slot.is_recording:  # those wait in between
                self._observe((self._clock() - taken_at) / slot.company)
            place.slot_ended()

        slot = Slot(self._threads, self._turns, turn, ended)
        self._running.add(slot)
        return slot

    def give_back_place(self) -> None:
        """One request less is held; called once by each place."""
        self._held -= 1
        self._place_came_free.set()
        if not self._held:
            self._became_idle.set()

    def drain(self) -> None:
        """Refuse whatever comes from now on; what is held goes on."""
        self._is_draining = True

    def hasten(self) -> None:
        """Give up what is held: waiting requests are refused, running decodes asked to stop."""
        self._is_draining = self._is_hastened = True
        self._place_came_free.set()
        self._turns.refuse(PodDraining)
        for slot in self._running:
            slot.give_up()

    async def place_came_free(self) -> None:
        """Wait until some place is given back; others may have waited for the same one."""
        self._place_came_free.clear()
        await self._place_came_free.wait()

    async def idle(self) -> None:
        """Wait until nothing is held."""
        while self._held:
            self._became_idle.clear()
            await self._became_idle.wait()

    def close(self) -> bool:
        """Give the threads up; whether all of them are done, so that the interpreter can end by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not self._running

    def _observe(self, service_s: float) -> None:
        if self._service_s is None:
            self._service_s = service_s
        else:
            self._service_s += EWMA_WEIGHT * (service_s - self._service_s)


class Place:
    """A request's place in the pod, from before its body is read until nothing runs for it any more."""

    def __init__(self, admission: Admission, deadline: Deadline | None) -> None:
        self.deadline = deadline
        self._admission = admission
        self._is_left = False
        self._has_slot = False

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for a slot, first come, first served; once per place.

        Raises DeadlineExceeded when the deadline ends first, PodDraining when a drain is hastened meanwhile.
        """
        slot = await self._admission.take_slot(self)
        self._has_slot = True
        try:
            yield slot
        finally:
            slot.leave()

    def slot_ended(self) -> None:
        """Nothing runs for this place any more."""
        if self._has_slot:
            self._has_slot = False
            self._settle()

    def leave(self) -> None:
        """The request is over; a decode that still runs keeps the place until it ends."""
        self._is_left = True
        self._settle()

    def _settle(self) -> None:
        if self._is_left and not self._has_slot:
            self._admission.give_back_place()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Back onto the loop from a thread; a decode that outlives the loop has nobody left to tell."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
