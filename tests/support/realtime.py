"""A realtime client that does exactly what a test says: raw events over a WebSocket, and all that came back kept."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soxr
from websockets.asyncio.client import ClientConnection, connect

WAIT_S: Final = 60.0
RATE: Final = 24_000
PIECE_S: Final = 0.1
SILENCE: Final = np.zeros(RATE, np.int16)

Event = dict[str, Any]
Samples = npt.NDArray[np.int16]


def at_24_khz(samples: Samples) -> Samples:
    """*samples* of 16 kHz as `audio/pcm` wants them."""
    resampled: Samples = soxr.resample(samples, 16_000, RATE).astype(np.int16)
    return resampled


@dataclass
class RealtimeClient:
    """One connection; `events` are those read so far."""

    socket: ClientConnection
    events: list[Event] = field(default_factory=list)

    async def send(self, kind: str, **fields: object) -> None:
        """Send an event of type *kind*."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def update(self, **audio_input: object) -> Event:
        """Set `audio.input`, and return the session as it is then."""
        await self.send("session.update", session={"type": "transcription", "audio": {"input": audio_input}})
        return await self.next("session.updated")

    async def append(self, data: bytes) -> None:
        """Send *data* as audio."""
        await self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    async def speak(self, *speech: Samples, pace: float = 0.0) -> None:
        """Send *speech* (24 kHz) in pieces of 100 ms; pace: 1.0 takes as long as speaking does, 0 no time."""
        whole, size = np.concatenate(speech), int(RATE * PIECE_S)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, start in enumerate(range(0, len(whole), size)):
            await self.append(whole[start : start + size].astype("<i2").tobytes())
            await asyncio.sleep(max(0.0, began + (number + 1) * PIECE_S * pace - loop.time()))

    async def next(self, kind: str) -> Event:
        """The next event of type *kind*; others are kept. Raises AssertionError for an `error` nobody waits for."""
        return await self.next_of(kind)

    async def next_of(self, *kinds: str) -> Event:
        """As `next`, for several types."""
        async with asyncio.timeout(WAIT_S):
            while True:
                event: Event = json.loads(await self.socket.recv())
                self.events.append(event)
                if event["type"] in kinds:
                    return event
                assert event["type"] != "error", event

    async def transcript(self) -> str:
        """The next final."""
        done = await self.next("conversation.item.input_audio_transcription.completed")
        return str(done["transcript"])

    def kinds(self) -> list[str]:
        """The types of `events`."""
        return [event["type"] for event in self.events]

    def deltas(self, item_id: str) -> str:
        """What was told of the item's text before its final."""
        kind = "conversation.item.input_audio_transcription.delta"
        return "".join(e["delta"] for e in self.events if e["type"] == kind and e["item_id"] == item_id)


@asynccontextmanager
async def realtime(
    base_url: str, *, model: str | None = "tiny.en", token: str | None = None
) -> AsyncIterator[RealtimeClient]:
    """A session at *base_url*, which begins with `http`."""
    query = "intent=transcription" + (f"&model={model}" if model else "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"ws{base_url.removeprefix('http')}/v1/realtime?{query}"
    async with connect(url, additional_headers=headers, compression=None, max_size=None) as socket:
        client = RealtimeClient(socket)
        await client.next("session.created")
        yield client
