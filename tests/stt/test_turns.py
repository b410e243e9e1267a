"""Turns: utterances in their order, recordings behind them, and never all turns for recordings."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_stt.turns import Turn, Turns


async def settled() -> None:
    """Let every task go on as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_utterances_go_first_come_first_served() -> None:
    turns = Turns(1)
    first = await turns.take(None)
    order: list[int] = []

    async def one(number: int) -> None:
        turn = await turns.take(None)
        order.append(number)
        turns.give_back(turn)

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(one(number))
        await settled()
        turns.give_back(first)
    assert order == [0, 1, 2, 3]


async def test_utterance_goes_before_a_recording_that_has_waited_longer() -> None:
    turns = Turns(1)
    first = await turns.take(None)
    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(turns.take(None, is_recording=True))
        utterance = tasks.create_task(turns.take(None))
        await settled()
        turns.give_back(first)
        await settled()
        assert (utterance.done(), recording.done()) == (True, False)
        turns.give_back(utterance.result())
    assert recording.result().is_recording


async def test_recording_whose_patience_is_over_goes_before_an_utterance_that_comes_later() -> None:
    turns = Turns(1, patience_s=0.0)
    first = await turns.take(None)
    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(turns.take(None, is_recording=True))
        await settled()
        utterance = tasks.create_task(turns.take(None))
        await settled()
        turns.give_back(first)
        await settled()
        assert (recording.done(), utterance.done()) == (True, False)
        turns.give_back(recording.result())


async def test_recording_waits_while_somebody_speaks_though_a_turn_is_free() -> None:
    turns = Turns(2)
    utterance = await turns.take(None)
    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(turns.take(None, is_recording=True))
        await settled()
        assert not recording.done()
        turns.give_back(utterance)
    assert recording.result().is_recording


async def test_recording_goes_on_where_as_many_turns_stay_free_as_utterances_are_decoded() -> None:
    turns = Turns(4)
    await turns.take(None)
    assert (await turns.take(None, is_recording=True)).is_recording


async def test_recording_goes_on_beside_an_utterance_when_its_patience_is_over() -> None:
    turns = Turns(2, patience_s=0.05)
    await turns.take(None)
    async with asyncio.timeout(5):
        assert (await turns.take(None, is_recording=True)).is_recording


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_recordings_leave_a_turn_to_utterances_where_there_are_several(count: int) -> None:
    turns = Turns(count)
    async with asyncio.TaskGroup() as tasks:
        recordings = [tasks.create_task(turns.take(None, is_recording=True)) for _ in range(count + 2)]
        await settled()
        held = [recording for recording in recordings if recording.done()]
        assert len(held) == max(1, count - 1)
        for recording in recordings:
            recording.cancel()


async def test_the_next_recording_gets_the_turn_that_another_gives_back() -> None:
    turns = Turns(2)
    first = await turns.take(None, is_recording=True)
    async with asyncio.TaskGroup() as tasks:
        second = tasks.create_task(turns.take(None, is_recording=True))
        await settled()
        assert not second.done()
        turns.give_back(first)
    assert second.result().is_recording


async def test_utterances_that_wait_share_a_turn_as_far_as_it_goes() -> None:
    turns = Turns(1, company=3)
    first = await turns.take(None)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(turns.take(None)) for _ in range(4)]
        await settled()
        turns.give_back(first)
        await settled()
        assert [task.done() for task in waiting] == [True, True, True, False]
        shared = waiting[0].result()
        assert all(task.result() is shared for task in waiting[:3])
        assert (first.company, shared.company) == (1, 3)
        for _ in range(3):
            assert not waiting[3].done()
            turns.give_back(shared)
            await settled()
        assert waiting[3].result().company == 1


async def test_recording_shares_its_turn_with_nobody() -> None:
    turns = Turns(1, company=3, patience_s=0.0)
    first = await turns.take(None)
    async with asyncio.TaskGroup() as tasks:
        recordings = [tasks.create_task(turns.take(None, is_recording=True)) for _ in range(2)]
        await settled()
        turns.give_back(first)
        await settled()
        assert [task.done() for task in recordings] == [True, False]
        turns.give_back(recordings[0].result())


@given(
    count=st.integers(1, 3),
    company=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.sampled_from(["utterance", "recording", "leave", "end"]), st.integers(0, 20)),
        max_size=40,
    ),
)
def test_no_order_of_events_loses_a_turn_or_lends_one_twice(
    count: int, company: int, steps: list[tuple[str, int]]
) -> None:
    async def play() -> None:
        turns = Turns(count, company=company)
        takers: list[asyncio.Task[Turn]] = []
        lent: list[Turn] = []

        def collect() -> None:
            for taker in [taker for taker in takers if taker.done()]:
                takers.remove(taker)
                if not taker.cancelled():
                    lent.append(taker.result())

        async with asyncio.TaskGroup() as group:
            for step, number in steps:
                if step == "leave" and takers:
                    takers[number % len(takers)].cancel()
                elif step == "end" and lent:
                    turns.give_back(lent.pop(number % len(lent)))
                elif step in ("utterance", "recording"):
                    takers.append(group.create_task(turns.take(None, is_recording=step == "recording")))
                if number % 2:
                    await settled()
                    collect()
                    assert len(set(lent)) + turns.free == count
                    assert all(lent.count(turn) == turn.holders <= company for turn in lent)
                    assert sum(turn.is_recording for turn in lent) <= max(1, count - 1)
            for taker in takers:
                taker.cancel()
        collect()
        for turn in lent:
            turns.give_back(turn)
        assert (turns.free, turns.waiting) == (count, 0)

    asyncio.run(play())
