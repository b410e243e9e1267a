"""Uploads recorded once and played any number of times."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm.gateway.tape import BodyTape, ByteBudget
from everwarm_core.errors import GatewayFull, UploadTooLarge, UploadTooSlow


def new_tape(*, limit: int = 1000, budget: int = 1000, size: int | None = None) -> BodyTape:
    return BodyTape(limit_bytes=limit, budget=ByteBudget(budget), size=size)


async def played(tape: BodyTape) -> bytes:
    return b"".join([piece async for piece in tape.open()])


@given(
    pieces=st.lists(st.binary(max_size=20), max_size=10), joins_at=st.lists(st.integers(0, 10), max_size=3)
)
def test_every_reader_gets_the_whole_body_whenever_it_begins(
    pieces: list[bytes], joins_at: list[int]
) -> None:
    async def scene() -> None:
        tape = new_tape()
        async with asyncio.TaskGroup() as group:
            readers = []
            for number, piece in enumerate(pieces):
                readers += [group.create_task(played(tape)) for at in joins_at if at == number]
                tape.append(piece)
                await asyncio.sleep(0)
            tape.finish()
            readers.append(group.create_task(played(tape)))
        assert {reader.result() for reader in readers} == {b"".join(pieces)}

    asyncio.run(scene())


async def test_a_reader_gets_what_there_was_and_then_the_failure() -> None:
    tape = new_tape()
    tape.append(b"abc")
    tape.fail(UploadTooSlow(1.0))
    reader = tape.open()
    assert await anext(reader) == b"abc"
    with pytest.raises(UploadTooSlow):
        await anext(reader)


def test_a_tape_refuses_more_than_its_limit() -> None:
    tape = new_tape(limit=4)
    tape.append(b"abcd")
    with pytest.raises(UploadTooLarge):
        tape.append(b"e")


def test_tapes_share_one_budget_and_give_it_back() -> None:
    budget = ByteBudget(6)
    first, second = (BodyTape(limit_bytes=5, budget=budget) for _ in range(2))
    first.append(b"abcd")
    with pytest.raises(GatewayFull):
        second.append(b"efgh")
    first.erase()
    second.append(b"efgh")
    assert budget.held == 4
    second.erase()
    assert budget.held == 0


def test_a_tape_knows_its_size_as_declared_and_then_as_counted() -> None:
    tape = new_tape(size=None)
    sizes = [tape.size]
    tape.append(b"abc")
    tape.finish()
    sizes.append(tape.size)
    assert sizes == [None, 3]
    assert new_tape(size=7).size == 7


def test_listeners_are_told_of_the_end_once() -> None:
    tape, told = new_tape(), []
    tape.when_complete(lambda: told.append("before"))
    tape.append(b"abc")
    assert told == []
    tape.finish()
    tape.when_complete(lambda: told.append("after"))
    assert told == ["before", "after"]
