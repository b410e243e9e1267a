"""The line of those who wait for a place: who is woken, who stands behind whom."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from everwarm.routing.line import COUNTED, Line, Turn
from tests.fixtures.records import WAIT_S
from tests.support.waiting import until


@asynccontextmanager
async def resting(
    line: Line, *names: str, language: str | None = "en"
) -> AsyncIterator[tuple[list[Turn], list[Turn]]]:
    """Turns for *names* that rest, in this order, and those of them that were woken, in the order of that."""
    turns: list[Turn] = []
    woken: list[Turn] = []

    async def rest(turn: Turn) -> None:
        await turn.rest(WAIT_S)
        woken.append(turn)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for name in names:
            turns.append(stack.enter_context(line.turn(name, language)))
            group.create_task(rest(turns[-1]))
        await until(lambda: all(turn.rests for turn in turns))
        yield turns, woken
        line.wake_all()


async def test_a_place_wakes_whoever_came_first() -> None:
    line = Line()
    async with resting(line, "base", "base", "base") as (turns, woken):
        line.wake(["base"], places=2)
        await until(lambda: len(woken) == 2)
        assert woken == turns[:2]
        assert turns[2].rests


async def test_a_place_is_nothing_to_those_who_wait_for_another_name() -> None:
    line = Line()
    async with resting(line, "tiny", "base") as (turns, woken):
        line.wake(["base", "whisper-1"])
        await until(lambda: woken)
        assert woken == turns[1:]


async def test_a_pod_of_several_names_wakes_the_first_of_all_of_them() -> None:
    line = Line()
    async with resting(line, "tiny", "base", "tiny") as (turns, woken):
        line.wake(["base", "tiny"])
        await until(lambda: woken)
        assert woken == turns[:1]


async def test_who_asks_again_keeps_its_place_and_is_not_woken_meanwhile() -> None:
    line = Line()
    async with resting(line, "base", "base") as ([first, second], woken):
        line.wake(["base"])
        await until(lambda: woken == [first])
        assert second.rests
        assert second.ahead == 0  # the first is asking
        async with asyncio.TaskGroup() as group:
            group.create_task(first.rest(WAIT_S))  # refused again
            await until(lambda: first.rests)
            assert (first.ahead, second.ahead) == (0, 1)
            line.wake(["base"])
        assert second.rests


async def test_whoever_comes_stands_behind_those_that_rest_for_the_same() -> None:
    line = Line()
    async with resting(line, "base", "base") as (turns, woken):
        assert line.turn("base", "en").ahead == 2
        assert line.turn("base", "de").ahead == line.turn("tiny", "en").ahead == 0
        line.wake(["base"], places=2)
        await until(lambda: len(woken) == len(turns))
        assert line.turn("base", "en").ahead == 0  # they are asking; there may be room for all


async def test_only_the_first_few_are_counted() -> None:
    line = Line()
    async with resting(line, *["base"] * (COUNTED + 2)) as (turns, _):
        assert [turn.ahead for turn in turns] == [*range(COUNTED), COUNTED, COUNTED]
        assert line.turn("base", "en").ahead == COUNTED


async def test_a_rest_ends_by_itself() -> None:
    line = Line()
    with line.turn("base", None) as turn:
        await turn.rest(0.01)
        assert not turn.rests
