"""A resource on a loop of its own: callers come from any loop or none, and it ends with its owner."""

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from everwarm.livekit.own_loop import OwnLoop, Stopped
from tests.fixtures.records import WAIT_S
from tests.support.waiting import until

caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


class Resource:
    """Says on which thread it is used, and waits when asked to."""

    def __init__(self) -> None:
        self.is_open = False
        self.entered = threading.Event()
        self.cancelled = threading.Event()

    async def thread(self) -> int:
        return threading.get_ident()

    async def caller(self) -> str:
        return caller.get()

    async def wait(self) -> None:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def _own_loop(resource: Resource) -> OwnLoop[Resource]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Resource]:
        resource.is_open = True
        yield resource
        resource.is_open = False

    return OwnLoop("test", opened)


def test_loop_has_no_thread_until_it_is_used() -> None:
    before = threading.active_count()
    own_loop = _own_loop(Resource())
    assert not own_loop.is_running
    assert threading.active_count() <= before  # one of others may have ended


async def test_calls_run_on_one_thread_that_is_not_the_callers() -> None:
    own_loop = _own_loop(Resource())
    ours = {await own_loop.call(Resource.thread) for _ in range(3)}
    elsewhere = await asyncio.to_thread(lambda: asyncio.run(own_loop.call(Resource.thread)))
    assert ours == {elsewhere}
    assert threading.get_ident() not in ours
    await own_loop.aclose()


async def test_calls_see_the_context_of_their_caller() -> None:
    own_loop = _own_loop(Resource())
    caller.set("first")
    assert await own_loop.call(Resource.caller) == "first"
    caller.set("second")
    assert await own_loop.call(Resource.caller) == "second"
    await own_loop.aclose()


async def test_a_call_is_cancelled_with_its_caller() -> None:
    resource = Resource()
    own_loop = _own_loop(resource)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(own_loop.call(Resource.wait))
        assert await asyncio.to_thread(resource.entered.wait, WAIT_S)
        waiting.cancel()
    assert await asyncio.to_thread(resource.cancelled.wait, WAIT_S)
    assert await own_loop.call(Resource.caller) == "nobody"
    await own_loop.aclose()


async def test_stopping_ends_calls_and_closes_the_resource() -> None:
    resource = Resource()
    own_loop = _own_loop(resource)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_stopped(own_loop))
        assert await asyncio.to_thread(resource.entered.wait, WAIT_S)
        await own_loop.aclose()
    assert waiting.result() == "stopped"
    assert not resource.is_open
    assert not own_loop.is_running


async def test_a_call_after_stopping_opens_the_resource_again() -> None:
    resource = Resource()
    own_loop = _own_loop(resource)
    first = await own_loop.call(Resource.thread)
    await own_loop.aclose()
    assert isinstance(await own_loop.call(Resource.thread), int)
    assert resource.is_open
    assert first
    await own_loop.aclose()


async def test_every_caller_is_told_why_the_resource_cannot_be_opened() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[Resource]:
        if not address:
            raise ValueError("no address")
        yield Resource()

    address = ""
    own_loop = OwnLoop("test", broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="no address"):
            await own_loop.call(Resource.thread)


def test_calls_racing_with_the_end_are_all_answered() -> None:
    for _ in range(50):
        own_loop = _own_loop(Resource())
        own_loop.start()
        life = own_loop._life
        assert life is not None
        stopper = threading.Thread(target=life.stop)
        stopper.start()
        futures = [life.submit(Resource.thread) for _ in range(20)]
        outcomes = [future.exception(timeout=WAIT_S) for future in futures]
        stopper.join()
        life.thread.join(WAIT_S)
        assert all(outcome is None or isinstance(outcome, Stopped) for outcome in outcomes)


async def _stopped(own_loop: OwnLoop[Resource]) -> str:
    try:
        await own_loop.call(Resource.wait)
    except Stopped:
        return "stopped"
    return "answered"


async def test_loop_does_not_keep_its_owner_alive() -> None:
    own_loop = _own_loop(Resource())
    own_loop.submit(Resource.thread).result(WAIT_S)
    life = own_loop._life
    assert life is not None
    gone = weakref.ref(own_loop)
    del own_loop

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    await until(is_gone)  # the loop's thread may hold its last job a moment longer
    life.stop()
    life.thread.join(WAIT_S)
    assert not life.thread.is_alive()
