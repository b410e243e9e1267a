"""Who may be decoded here, and when: `slots` decodes at a time, `queue` places to wait in, nothing beyond.

A request takes a place before its body is read, so a full pod answers 503 for the price of a header. It then waits
first come, first served for a slot, and gives its work to a thread of that slot. A running decode cannot be
stopped, so *the end of its thread* frees slot and place, never the cancellation of the request: otherwise each
impatient caller would add one more decode than the pod has slots. What a caller that leaves can do is ask: its
`Slot.cancelled` turns true, and the engine looks at that between segments.

Lives on one event loop and needs no locks: threads only come back through `call_soon_threadsafe`. The decisions
(`refusal`, `retry_after_s`) are pure. HTTP, metrics and spans are left to the server.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from everwarm_core.errors import CapacityError, DeadlineExceeded, PodDraining, PodFull

T = TypeVar("T")

EWMA_WEIGHT: Final = 0.2  # of the newest service time: a guess; about ten requests are remembered
MAX_RETRY_AFTER_S: Final = 60.0  # beyond that another pod, not this one, is the answer


@dataclass(frozen=True, slots=True)
class Deadline:
    """A caller's patience: *seconds* in all, over at *at* on the event loop's clock."""

    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """Decodes at a time, and requests that may wait beyond them."""

    slots: int
    queue: int


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


class Turns:
    """A number of slots, lent first come, first served."""

    def __init__(self, slots: int) -> None:
        self.free = slots
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Takers that wait now."""
        return len(self._waiting)

    async def take(self, deadline: Deadline | None) -> None:
        """Wait for a slot and make it ours; raises DeadlineExceeded, or what `refuse` was told."""
        if deadline and asyncio.get_running_loop().time() >= deadline.at:
            raise DeadlineExceeded(deadline_s=deadline.seconds, waiting_for="a slot")
        if self.free:  # then nobody waits: a slot given back is handed on at once
            self.free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline.at if deadline else None):
                await turn
        except TimeoutError as error:
            self._forgo(turn)
            assert deadline is not None
            raise DeadlineExceeded(deadline_s=deadline.seconds, waiting_for="a slot") from error
        except asyncio.CancelledError:
            self._forgo(turn)
            raise

    def give_back(self) -> None:
        """Hand a slot on to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def refuse(self, error: Callable[[], CapacityError]) -> None:
        """Fail everybody who waits, each with an error of its own."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error())

    def _forgo(self, turn: "asyncio.Future[None]") -> None:
        """Leave the queue. A slot handed over in the very moment of leaving goes on to the next."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self.give_back()


class Slot:
    """One of the pod's decodes. `run` may be called once; the end of its thread frees the slot."""

    def __init__(self, threads: ThreadPoolExecutor, ended: Callable[["Slot", bool], None]) -> None:
        self._threads = threads
        self._ended = ended
        self._is_cancelled = False
        self._job: Future[Any] | None = None
        self._answer: asyncio.Future[Any] | None = None

    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more; asked by the decode, from its thread."""
        return self._is_cancelled

    def give_up(self) -> None:
        """Ask the decode to stop at its next opportunity, and tell whoever waits for it at once."""
        self._is_cancelled = True
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
            self._ended(self, not job.cancelled())
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
            self._ended(self, False)
        else:
            self._job.cancel()  # effective only before a thread begins it; the callback frees the slot either way


class Admission:
    """The slots and places of one pod, on one event loop. `close` it when the pod ends."""

    def __init__(self, capacity: Capacity, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._clock = clock
        self._held = 0
        self._turns = Turns(capacity.slots)
        self._running: set[Slot] = set()
        self._service_s: float | None = None
        self._is_draining = False
        self._is_hastened = False
        self._became_idle = asyncio.Event()
        self._threads = ThreadPoolExecutor(capacity.slots, thread_name_prefix="decode")

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
    async def admit(self, deadline: Deadline | None = None) -> AsyncIterator["Place"]:
        """Take a place, at once or never: raises PodFull or PodDraining."""
        if refused := refusal(
            self.capacity, held=self._held, draining=self._is_draining, service_s=self.service_s
        ):
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
        await self._turns.take(place.deadline)
        taken_at = self._clock()

        def ended(slot: Slot, ran: bool) -> None:  # noqa: FBT001  # a callback's plain argument
            self._running.discard(slot)
            if ran:
                self._observe(self._clock() - taken_at)
            self._turns.give_back()
            place.slot_ended()

        slot = Slot(self._threads, ended)
        self._running.add(slot)
        return slot

    def give_back_place(self) -> None:
        """One request less is held; called once by each place."""
        self._held -= 1
        if not self._held:
            self._became_idle.set()

    def drain(self) -> None:
        """Refuse whatever comes from now on; what is held goes on."""
        self._is_draining = True

    def hasten(self) -> None:
        """Give up what is held: waiting requests are refused, running decodes asked to stop."""
        self._is_draining = self._is_hastened = True
        self._turns.refuse(PodDraining)
        for slot in self._running:
            slot.give_up()

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
