"""A key waits once, is worked on by one at a time, and comes again when its work failed."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from everwarm_operator.work_queue import BACKOFF_MAX_S, WorkQueue, backoff_s
from tests.support.waiting import until


async def test_a_key_added_twice_is_taken_once() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    queue.add("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert queue.is_idle


async def test_a_key_added_while_worked_on_is_worked_on_once_more_and_not_at_the_same_time() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    await queue.take()
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.take() == "a"


async def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    queue = WorkQueue[int]()
    for key in (3, 1, 2):
        queue.add(key)
    assert [await queue.take() for _ in range(3)] == [3, 1, 2]


async def test_a_key_whose_work_failed_comes_again_after_its_wait() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    await queue.take()
    began = asyncio.get_running_loop().time()
    delay_s = queue.failed("a")
    assert await queue.take() == "a"
    assert asyncio.get_running_loop().time() - began >= delay_s


async def test_news_of_a_key_that_waits_after_a_failure_bring_it_forward() -> None:
    queue = WorkQueue[str]()
    queue.add_later("a", 3600)
    queue.add("a")
    assert await queue.take() == "a"


async def test_the_sooner_of_two_later_times_counts() -> None:
    queue = WorkQueue[str]()
    queue.add_later("a", 0.01)
    queue.add_later("a", 3600)
    async with asyncio.timeout(5):
        assert await queue.take() == "a"


async def test_a_forgotten_key_does_not_come_again() -> None:
    queue = WorkQueue[str]()
    queue.add_later("gone", 0.001)
    queue.add("gone")
    queue.forget("gone")
    queue.add_later("other", 0.01)
    assert await queue.take() == "other"


async def test_success_forgets_failures() -> None:
    queue = WorkQueue[str]()
    for _ in range(3):
        queue.add("a")
        await queue.take()
        queue.failed("a")
    queue.add("a")
    await queue.take()
    queue.done("a")
    queue.add("a")
    await queue.take()
    assert queue.failed("a") == backoff_s(1)


@given(failures=st.integers(1, 10_000))
def test_waits_grow_and_have_an_end(failures: int) -> None:
    assert backoff_s(failures) <= backoff_s(failures + 1) <= BACKOFF_MAX_S


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_whatever_is_added_is_taken_at_least_once_after_its_last_addition(keys: list[str]) -> None:
    async def run() -> None:
        queue = WorkQueue[str]()
        taken: list[str] = []

        async def work() -> None:
            while True:
                key = await queue.take()
                taken.append(key)
                await asyncio.sleep(0)
                queue.done(key)

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work()) for _ in range(2)]
            for number, key in enumerate(keys):
                before = len(taken)
                queue.add(key)
                if number % 3 == 0:
                    await asyncio.sleep(0)
                    assert len(taken) >= before
            await until(lambda: queue.is_idle)
            for worker in workers:
                worker.cancel()
        assert set(taken) == set(keys)

    asyncio.run(run())
