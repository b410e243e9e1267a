"""The chaos benchmark's callers see what would be wrong: transcripts that come twice, sessions that end too soon."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bench.chaos import Findings, Span, WrongTranscriptError, say
from tests.support.callers import COMMITTED, COMPLETED, FAILED, ByRealtime, LostUtteranceError, Tally, Way
from tests.support.speech import clips

CLIP = clips()[0]

Answer = Callable[[ServerConnection, str], Awaitable[None]]
"""What a server does for the item that a client committed."""


async def tell(socket: ServerConnection, kind: str, **fields: object) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


async def right(socket: ServerConnection, item_id: str) -> None:
    await tell(socket, COMPLETED, item_id=item_id, transcript=CLIP.text)


async def twice(socket: ServerConnection, item_id: str) -> None:
    await right(socket, item_id)
    await right(socket, item_id)


async def wrong(socket: ServerConnection, item_id: str) -> None:
    await tell(socket, COMPLETED, item_id=item_id, transcript="something else")


async def failed(socket: ServerConnection, item_id: str) -> None:
    await tell(socket, FAILED, item_id=item_id, error={"message": "no place in time"})


async def leaves(socket: ServerConnection, item_id: str) -> None:
    await socket.close(1012)


@asynccontextmanager
async def sessions(*script: Answer) -> AsyncIterator[str]:
    """A server of realtime sessions that commits what it is told to and answers by *script*, then rightly."""
    answers = iter(script)

    async def session(socket: ServerConnection) -> None:
        await tell(socket, "session.created")
        async for message in socket:
            kind = json.loads(message)["type"]
            if kind == "session.update":
                await tell(socket, "session.updated")
            elif kind == "input_audio_buffer.commit":
                number = next(numbers)
                await tell(socket, COMMITTED, item_id=f"item-{number}")
                await next(answers, right)(socket, f"item-{number}")

    numbers = iter(range(100))
    async with serve(session, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@asynccontextmanager
async def caller(url: str, tally: Tally) -> AsyncIterator[Way]:
    speaker = ByRealtime(url, tally, is_manual=True)
    yield Way("realtime", [speaker])
    await speaker.finish()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (right, Tally()),
        (twice, Tally(doubled=1)),
        (leaves, Tally(said_again=1)),
    ],
)
async def test_every_utterance_has_one_transcript_and_what_is_beyond_is_counted(
    answer: Answer, found: Tally
) -> None:
    tally = Tally()
    async with sessions(answer) as url, caller(url, tally) as way:
        for _ in range(3):
            await say(way, CLIP)
    assert tally == found


@pytest.mark.parametrize(("answer", "error"), [(wrong, WrongTranscriptError), (failed, LostUtteranceError)])
async def test_an_utterance_without_its_transcript_is_told_apart(
    answer: Answer, error: type[Exception]
) -> None:
    async with sessions(answer) as url, caller(url, Tally()) as way:
        with pytest.raises(error):
            await say(way, CLIP)
        await say(way, CLIP)


def test_utterances_under_way_during_a_fault_are_those_that_meet_it() -> None:
    findings = Findings(
        "fault",
        utterances=[Span(0, 1), Span(1.5, 2.5), Span(2, 3), Span(1, 9), Span(4, 5)],
        faults=[Span(2, 3)],
    )
    assert findings.seconds_in_faults == [1.0, 1, 8]
