"""Everybody who may call, as they do in life: the library, OpenAI's client, realtime sessions, LiveKit's two ways.

A caller says a clip and tells what it heard. Those behind a connection that lasts, realtime sessions and LiveKit's
streams, say one clip after the other and watch for transcripts that nobody asked for: an utterance has exactly one. A
realtime client whose connection ends connects again, and says the utterance again unless its final was on the way.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Protocol

import numpy as np
import openai
from livekit.agents.stt import SpeechEventType
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.protocol import State

import everwarm
from everwarm.livekit import STT
from everwarm.livekit.stream import SpeechStream
from tests.support.frames import frames
from tests.support.realtime import RealtimeClient, Samples, at_24_khz, realtime
from tests.support.speech import Clip

MODEL: Final = "tiny.en"
SILENCE_MS: Final = 1000  # longer than any pause within a clip, so that each is one utterance
SESSIONS: Final = 6  # of each kind: enough that an utterance hardly ever waits for one
AT_ONCE: Final = 64  # calls that a client without sessions may have under way; more than there ever are
PATIENCE_S: Final = 60.0
RECONNECT_S: Final = 0.2
COMPLETED: Final = "conversation.item.input_audio_transcription.completed"
FAILED: Final = "conversation.item.input_audio_transcription.failed"
COMMITTED: Final = "input_audio_buffer.committed"


class LostUtteranceError(Exception):
    """There will be no transcript."""


@dataclass(slots=True)
class Tally:
    """What callers with a connection went through. doubled: transcripts beyond the one of each utterance; moved: sessions
    found closed in good order before an utterance began; broken: the same, and not in good order; said_again: utterances
    whose session ended before their final.
    """

    doubled: int = 0
    moved: int = 0
    broken: int = 0
    said_again: int = 0


class Caller(Protocol):
    """Somebody who says one clip at a time."""

    async def say(self, clip: Clip) -> str:
        """The transcript of *clip*; raises when there is none."""

    async def finish(self) -> None:
        """Hang up, once all that may still come has come."""


class ByClient:
    """The library's client."""

    def __init__(self, client: everwarm.Client) -> None:
        self._client = client

    async def say(self, clip: Clip) -> str:
        """See Caller."""
        return (await self._client.transcribe(clip.path, model=MODEL, language="en")).text

    async def finish(self) -> None:
        """See Caller."""


class ByOpenAI:
    """OpenAI's client, with the two retries it makes by itself."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client

    async def say(self, clip: Clip) -> str:
        """See Caller."""
        upload = (clip.path.name, clip.path.read_bytes())
        answer = await self._client.audio.transcriptions.create(file=upload, model=MODEL, language="en")
        return answer.text

    async def finish(self) -> None:
        """See Caller."""


class ByRealtime:
    """One realtime session after the other at *url*, each for as long as it lasts.

    is_manual: whether the client says when an utterance ends; else the server hears it.
    """

    def __init__(self, url: str, tally: Tally, *, is_manual: bool) -> None:
        self._url = url
        self._tally = tally
        self._is_manual = is_manual
        self._stack = AsyncExitStack()
        self._client: RealtimeClient | None = None
        self._told: set[str] = set()
        """Items of this session whose transcript was taken."""

    async def say(self, clip: Clip) -> str:
        """See Caller."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                client = await self._connected()
                try:
                    return await self._said(client, clip)
                except ConnectionClosed:
                    self._tally.said_again += 1
                    await self._leave(client)

    async def finish(self) -> None:
        """See Caller. Finals come in order: when that of a last silence is there, all others were."""
        client = self._client
        if client is None:
            return
        with suppress(ConnectionClosed):
            await client.speak(_silence(SILENCE_MS, 24_000))
            await client.send("input_audio_buffer.commit")
            item_id = (await client.next(COMMITTED))["item_id"]
            self._told.add(item_id)
            while (await client.next_of(COMPLETED, FAILED))["item_id"] != item_id:
                pass
            await client.socket.close()
        await self._leave(client)

    async def _connected(self) -> RealtimeClient:
        if self._client is not None and self._client.socket.state is not State.OPEN:
            code = self._client.socket.close_code
            self._tally.moved += code == 1012
            self._tally.broken += code != 1012
            await self._leave(self._client)
        while self._client is None:
            try:
                client = await self._stack.enter_async_context(realtime(self._url))
                turns = None if self._is_manual else {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
                await client.update(turn_detection=turns)
                self._client = client
            except (ConnectionClosed, InvalidHandshake, InvalidMessage, OSError):
                await self._stack.aclose()
                await asyncio.sleep(RECONNECT_S)
        return self._client

    async def _said(self, client: RealtimeClient, clip: Clip) -> str:
        try:
            if self._is_manual:
                await client.speak(_speech(clip, 24_000, 0))
                await client.send("input_audio_buffer.commit")
            else:
                await client.speak(_speech(clip, 24_000, SILENCE_MS + 500))
        except ConnectionClosed:
            pass  # what came before the end can still be read
        while True:
            event = await client.next_of(COMPLETED, FAILED)
            if event["item_id"] in self._told:
                continue  # counted when the session is left
            self._told.add(event["item_id"])
            if event["type"] == FAILED:
                raise LostUtteranceError(event["error"]["message"])
            return str(event["transcript"])

    async def _leave(self, client: RealtimeClient) -> None:
        """Read to the end of a session that is closed, and count."""
        with suppress(ConnectionClosed):
            while True:
                await client.next(COMPLETED)
        items = [event["item_id"] for event in client.events if event["type"] == COMPLETED]
        self._tally.doubled += len(items) - len(self._told.intersection(items))
        self._told.clear()
        self._client = None
        await self._stack.aclose()


class ByRecognize:
    """LiveKit's way for whole utterances."""

    def __init__(self, stt: STT) -> None:
        self._stt = stt

    async def say(self, clip: Clip) -> str:
        """See Caller."""
        event = await self._stt.recognize(frames(clip.samples()))
        return event.alternatives[0].text

    async def finish(self) -> None:
        """See Caller."""


class ByStream:
    """LiveKit's streams of *stt*, one after the other, each for as long as it lasts."""

    def __init__(self, stt: STT, tally: Tally) -> None:
        self._stt = stt
        self._tally = tally
        self._stream: SpeechStream | None = None
        self._told: set[str] = set()

    async def say(self, clip: Clip) -> str:
        """See Caller."""
        stream = self._stream = self._stream or self._stt.stream()
        for frame in frames(_speech(clip, 16_000, SILENCE_MS + 500)):
            stream.push_frame(frame)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._final(stream)
        except Exception:
            self._stream = None
            await stream.aclose()
            raise

    async def finish(self) -> None:
        """See Caller."""
        if self._stream is not None:
            self._stream.end_input()
            async for event in self._stream:
                self._tally.doubled += event.type is SpeechEventType.FINAL_TRANSCRIPT
            await self._stream.aclose()

    async def _final(self, stream: SpeechStream) -> str:
        async for event in stream:
            if event.type is SpeechEventType.FINAL_TRANSCRIPT:
                if event.request_id not in self._told:
                    self._told.add(event.request_id)
                    return event.alternatives[0].text
                self._tally.doubled += 1
            if event.type is SpeechEventType.END_OF_SPEECH and event.request_id not in self._told:
                self._told.add(event.request_id)
                raise LostUtteranceError("the stream told no final")
        raise LostUtteranceError("the stream ended")


@dataclass(slots=True)
class Way:
    """A way to call; any of its idle callers takes the next utterance."""

    name: str
    callers: list[Caller]
    idle: "asyncio.Queue[Caller]" = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        for caller in self.callers:
            self.idle.put_nowait(caller)

    async def say(self, clip: Clip) -> str:
        """See Caller."""
        caller = await self.idle.get()
        try:
            return await caller.say(clip)
        finally:
            self.idle.put_nowait(caller)


@dataclass(frozen=True, slots=True)
class Mix:
    """All ways to call, by kind; utterance *number* takes the next kind, and within it the next way."""

    kinds: tuple[tuple[Way, ...], ...]
    tally: Tally

    @property
    def ways(self) -> tuple[Way, ...]:
        """All of them."""
        return tuple(itertools.chain(*self.kinds))

    def way(self, number: int) -> Way:
        """The way of utterance *number*."""
        round_, kind = divmod(number, len(self.kinds))
        ways = self.kinds[kind]
        return ways[round_ % len(ways)]

    async def finish(self) -> None:
        """Hang up everywhere."""
        async with asyncio.TaskGroup() as group:
            for way in self.ways:
                for caller in way.callers:
                    group.create_task(caller.finish())


@asynccontextmanager
async def mixed_callers(*, redis_url: str, url: str) -> AsyncIterator[Mix]:
    """Callers of every kind, of pods that the registry at *redis_url* names and of gateways at *url*."""
    tally = Tally()

    def several(make: Callable[[], Caller]) -> list[Caller]:
        return [make() for _ in range(SESSIONS)]

    async with (
        everwarm.Client(redis_url=redis_url) as direct,
        everwarm.Client(base_url=url) as through,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as stock,
        STT(model=MODEL, language="en", redis_url=redis_url) as whole,
        STT(model=MODEL, language="en", base_url=url, silence_duration_ms=SILENCE_MS) as live,
    ):
        yield Mix(
            (
                (Way("client, by the registry", [ByClient(direct)] * AT_ONCE),),
                (
                    Way("client, by a gateway", [ByClient(through)] * AT_ONCE),
                    Way("OpenAI", [ByOpenAI(stock)] * AT_ONCE),
                ),
                (
                    Way("realtime, commits", several(lambda: ByRealtime(url, tally, is_manual=True))),
                    Way("realtime, VAD", several(lambda: ByRealtime(url, tally, is_manual=False))),
                ),
                (
                    Way("LiveKit recognize", [ByRecognize(whole)] * AT_ONCE),
                    Way("LiveKit stream", several(lambda: ByStream(live, tally))),
                ),
            ),
            tally,
        )


@cache
def _speech(clip: Clip, rate: int, silence_ms: int) -> Samples:
    """*clip* and then silence, whole 96 ms in all: what hears it cuts audio at the same places each time."""
    spoken = at_24_khz(clip.samples()) if rate == 24_000 else clip.samples()
    whole = np.concatenate([spoken, _silence(silence_ms, rate)])
    step = rate * 96 // 1000
    return np.pad(whole, (0, -len(whole) % step))


def _silence(ms: int, rate: int) -> Samples:
    return np.zeros(rate * ms // 1000, np.int16)
