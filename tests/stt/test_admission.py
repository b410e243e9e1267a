"""Slots and places: never more decodes than slots, never more requests than places, and none of either lost."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import DeadlineExceeded, PodDraining, PodFull
from everwarm_stt.admission import Admission, Capacity, Slot, refusal, retry_after_s
from everwarm_stt.turns import Deadline

CAPACITIES = st.builds(Capacity, slots=st.integers(1, 8), queue=st.integers(0, 16))


class Decode:
    """Work for a slot that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(10)
        return "text"


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until *condition* holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # threads and callbacks in between set no event of ours
            await asyncio.sleep(0.001)


async def request(admission: Admission, work: Callable[[], str], deadline: Deadline | None = None) -> str:
    async with admission.admit(deadline) as place, place.slot() as slot:
        return await slot.run(work)


# --- Decisions ------------------------------------------------------------------------------------------------------


@given(capacity=CAPACITIES, held=st.integers(0, 40), service_s=st.floats(0, 100))
def test_refusal_comes_exactly_when_slots_and_queue_are_taken(
    capacity: Capacity, held: int, service_s: float
) -> None:
    refused = refusal(capacity, held=held, draining=False, service_s=service_s)
    assert (refused is not None) == (held >= capacity.slots + capacity.queue)


@given(capacity=CAPACITIES, held=st.integers(0, 40))
def test_draining_pod_refuses_even_when_idle(capacity: Capacity, held: int) -> None:
    assert isinstance(refusal(capacity, held=held, draining=True, service_s=1.0), PodDraining)


@given(capacity=CAPACITIES, held=st.integers(0, 1000), service_s=st.floats(0, 1000))
def test_retry_after_is_whole_seconds_between_one_and_a_minute(
    capacity: Capacity, held: int, service_s: float
) -> None:
    seconds = retry_after_s(capacity, held=held, service_s=service_s)
    assert 1 <= seconds <= 60
    assert seconds == int(seconds)


@given(capacity=CAPACITIES, held=st.integers(0, 100), more=st.integers(0, 50), service_s=st.floats(0.01, 10))
def test_retry_after_never_shrinks_with_more_work_in_front(
    capacity: Capacity, held: int, more: int, service_s: float
) -> None:
    before = retry_after_s(capacity, held=held, service_s=service_s)
    assert retry_after_s(capacity, held=held + more, service_s=service_s) >= before


# --- Places and slots -----------------------------------------------------------------------------------------------


async def test_request_beyond_slots_and_queue_is_refused_at_once() -> None:
    admission = Admission(Capacity(slots=1, queue=1))
    async with admission.admit(), admission.admit():
        with pytest.raises(PodFull) as refused:
            async with admission.admit():
                pass
    assert (refused.value.slots, refused.value.queue) == (1, 1)
    assert admission.inflight == 0


async def test_waiting_requests_get_the_slot_in_the_order_they_came() -> None:
    admission = Admission(Capacity(slots=1, queue=8))
    order: list[int] = []
    first = Decode()

    def noted(number: int) -> Callable[[], str]:
        def work() -> str:
            order.append(number)
            return ""

        return work

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(request(admission, first))
        await until(first.begun.is_set)
        for number in range(5):
            tasks.create_task(request(admission, noted(number)))
            await until(lambda number=number: admission.waiting == number + 1)  # type: ignore[misc]
        first.may_end.set()
    assert order == [0, 1, 2, 3, 4]


async def test_slot_stays_taken_until_its_thread_ends_when_the_caller_leaves() -> None:
    """The point of it all: a cancelled request must not let another decode in beside the one that still runs."""
    admission = Admission(Capacity(slots=1, queue=1))
    decode = Decode()
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(request(admission, decode))
        await until(decode.begun.is_set)
        leaving.cancel()
        await until(leaving.done)
        assert (admission.busy, admission.inflight) == (1, 1)
        decode.may_end.set()
        await until(lambda: admission.busy == 0)
    assert admission.inflight == 0


async def test_decode_is_told_that_its_caller_left() -> None:
    admission = Admission(Capacity(slots=1, queue=0))
    noticed = threading.Event()
    begun = threading.Event()

    async def leave_in_the_middle() -> None:
        async with admission.admit() as place, place.slot() as slot:

            def work() -> None:
                begun.set()
                while not slot.cancelled():
                    pass
                noticed.set()

            await slot.run(work)

    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(leave_in_the_middle())
        await until(begun.is_set)
        leaving.cancel()
        await until(noticed.is_set)
    await admission.idle()


async def test_client_that_leaves_while_waiting_frees_its_place_at_once() -> None:
    admission = Admission(Capacity(slots=1, queue=1))
    decode = Decode()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(request(admission, decode))
        waiting = tasks.create_task(request(admission, Decode()))
        await until(lambda: admission.waiting == 1)
        waiting.cancel()
        await until(waiting.done)
        assert (admission.waiting, admission.inflight) == (0, 1)
        decode.may_end.set()


async def test_deadline_ends_the_wait_for_a_slot() -> None:
    admission = Admission(Capacity(slots=1, queue=1))
    decode = Decode()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(request(admission, decode))
        await until(decode.begun.is_set)
        with pytest.raises(DeadlineExceeded) as late:
            await request(admission, Decode(), Deadline(0.01, asyncio.get_running_loop().time() + 0.01))
        assert late.value.waiting_for == "a slot"
        assert admission.inflight == 1
        decode.may_end.set()


async def test_deadline_that_is_over_is_kept_even_when_a_slot_is_free() -> None:
    """An answer that comes too late for its caller would only keep others waiting."""
    admission = Admission(Capacity(slots=1, queue=0))
    with pytest.raises(DeadlineExceeded):
        await request(admission, lambda: "late", Deadline(0.0, asyncio.get_running_loop().time()))
    assert (admission.busy, admission.inflight) == (0, 0)


async def test_error_of_a_decode_reaches_its_caller_and_frees_the_slot() -> None:
    admission = Admission(Capacity(slots=1, queue=0))

    def fail() -> str:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        await request(admission, fail)
    assert (admission.busy, admission.inflight) == (0, 0)


async def test_decode_runs_with_the_context_of_its_request() -> None:
    """Trace and log context would otherwise end at the thread's door."""
    admission = Admission(Capacity(slots=1, queue=0))
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("from the request")
    assert await request(admission, variable.get) == "from the request"


async def test_retry_after_of_a_full_pod_follows_the_measured_service_time() -> None:
    now = [0.0]
    admission = Admission(Capacity(slots=1, queue=1), clock=lambda: now[0])

    def slow() -> str:
        now[0] += 7.0
        return ""

    await request(admission, slow)
    assert admission.service_s == 7.0
    async with admission.admit(), admission.admit():
        with pytest.raises(PodFull) as refused:
            async with admission.admit():
                pass
    assert refused.value.retry_after_s == 7.0


# --- Drain ----------------------------------------------------------------------------------------------------------


async def test_draining_lets_in_what_was_promised_before_and_haste_does_not() -> None:
    admission = Admission(Capacity(slots=1, queue=0))
    admission.drain()
    async with admission.admit(is_promised=True):
        assert admission.inflight == 1
    admission.hasten()
    with pytest.raises(PodDraining):
        async with admission.admit(is_promised=True):
            pass


async def test_waiting_for_a_place_ends_when_one_is_given_back() -> None:
    admission = Admission(Capacity(slots=1, queue=0))
    async with asyncio.TaskGroup() as tasks:
        async with admission.admit():
            waiting = tasks.create_task(admission.place_came_free())
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting


async def test_draining_finishes_what_is_held_and_refuses_what_comes() -> None:
    admission = Admission(Capacity(slots=1, queue=2))
    decode = Decode()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(request(admission, decode))
        waiting = tasks.create_task(request(admission, lambda: "later"))
        await until(lambda: admission.waiting == 1)
        admission.drain()
        with pytest.raises(PodDraining):
            async with admission.admit():
                pass
        decode.may_end.set()
        await admission.idle()
    assert (running.result(), waiting.result()) == ("text", "later")


async def test_hastened_drain_answers_everybody_without_waiting_for_threads() -> None:
    admission = Admission(Capacity(slots=1, queue=2))
    decode = Decode()

    async def refused(work: Callable[[], str]) -> bool:
        try:
            await request(admission, work)
        except PodDraining:
            return True
        return False

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(refused(decode))
        waiting = tasks.create_task(refused(Decode()))
        await until(lambda: decode.begun.is_set() and admission.waiting == 1)
        admission.hasten()
        await until(lambda: running.done() and waiting.done())
        assert not admission.close()  # its thread still runs, and says so
        decode.may_end.set()
        await admission.idle()
    assert (running.result(), waiting.result()) == (True, True)


# --- Recordings -----------------------------------------------------------------------------------------------------


async def test_utterance_is_decoded_between_two_windows_of_a_recording() -> None:
    admission = Admission(Capacity(slots=1, queue=2))
    has_given_way, utterance_waits = threading.Event(), threading.Event()
    order: list[str] = []

    def utterance() -> str:
        order.append("utterance")
        return "text"

    def recording(slot: Slot) -> str:
        slot.give_way()
        has_given_way.set()
        assert utterance_waits.wait(10)
        order.append("first window")
        assert not slot.cancelled()
        order.append("second window")
        return "text"

    async def record() -> str:
        async with admission.admit() as place, place.slot() as slot:
            return await slot.run(lambda: recording(slot))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(record())
        await until(has_given_way.is_set)  # before it has, it would let the utterance go first
        tasks.create_task(request(admission, utterance))
        await until(lambda: admission.waiting == 1)
        utterance_waits.set()
    assert order == ["first window", "utterance", "second window"]
    assert (admission.busy, admission.inflight) == (0, 0)
    assert admission.close()


@pytest.mark.parametrize("how", ["its caller leaves", "the drain is hastened"])
async def test_recording_that_waits_for_its_next_window_ends_at_once_when(how: str) -> None:
    admission = Admission(Capacity(slots=1, queue=2))
    decode, utterance_waits = Decode(), threading.Event()
    ended: list[bool] = []

    def recording(slot: Slot) -> str:
        assert utterance_waits.wait(10)
        ended.append(slot.cancelled())
        return "text"

    async def record() -> None:
        async with admission.admit() as place, place.slot() as slot:
            slot.is_recording = True
            await slot.run(lambda: recording(slot))

    async with asyncio.TaskGroup() as tasks:
        recorder = tasks.create_task(_quietly(record()))
        await until(lambda: admission.busy == 1)
        tasks.create_task(_quietly(request(admission, decode)))
        await until(lambda: admission.waiting == 1)
        utterance_waits.set()
        await until(lambda: decode.begun.is_set() and admission.waiting == 1)
        if how == "its caller leaves":
            recorder.cancel()
        else:
            admission.hasten()
        await until(lambda: ended == [True])
        decode.may_end.set()
    await admission.idle()
    assert (admission.busy, admission.waiting) == (0, 0)


async def _quietly(work: Coroutine[Any, Any, object]) -> None:
    with suppress(PodDraining):
        await work


async def test_recordings_teach_nothing_about_how_long_a_slot_is_held() -> None:
    admission = Admission(Capacity(slots=1, queue=0), clock=iter(range(0, 1000, 50)).__next__)
    async with admission.admit() as place, place.slot() as slot:
        await slot.run(slot.give_way)
    assert admission.service_s == 1.0


# --- Whatever happens -----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "leave", "end", "expire"]), st.integers(0, 30)), max_size=40
)


@given(slots=st.integers(1, 3), queue=st.integers(0, 3), steps=STEPS)
def test_no_order_of_events_loses_a_slot_or_a_place(
    slots: int, queue: int, steps: list[tuple[str, int]]
) -> None:
    """Requests come, leave, end and run out of time in any order; afterwards the pod is as empty as before."""

    async def play() -> None:
        admission = Admission(Capacity(slots=slots, queue=queue))
        running = [0]
        lock = threading.Lock()
        decodes: list[Decode] = []
        tasks: list[asyncio.Task[None]] = []

        def counted(decode: Decode) -> Callable[[], str]:
            def work() -> str:
                with lock:
                    running[0] += 1
                    assert running[0] <= slots
                try:
                    return decode()
                finally:
                    with lock:
                        running[0] -= 1

            return work

        async def one(decode: Decode, deadline: Deadline | None) -> None:
            try:
                await request(admission, counted(decode), deadline)
            except (PodFull, DeadlineExceeded):
                return

        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for step, number in steps:
                if step in ("come", "expire"):
                    decodes.append(Decode())
                    soon = Deadline(0.0, asyncio.get_running_loop().time())
                    tasks.append(group.create_task(one(decodes[-1], soon if step == "expire" else None)))
                elif step == "leave" and tasks:
                    tasks[number % len(tasks)].cancel()
                elif step == "end" and decodes:
                    decodes[number % len(decodes)].may_end.set()
                await asyncio.sleep(0)
                assert admission.inflight <= slots + queue
                assert admission.busy <= slots
            for decode in decodes:
                decode.may_end.set()
        await admission.idle()
        assert (admission.busy, admission.waiting, admission.inflight) == (0, 0, 0)
        assert admission.close()

    asyncio.run(play())
