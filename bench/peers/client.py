"""The one client of all peers: sends samples, reads text, and keeps a number of callers busy.

Closed loop, unlike `tests.support.load`: a caller sends its next clip when it has the answer to the last, so the
number of requests in flight is fixed and a slow server is not buried. The header that names a model is Ray Serve's way
to route by model; the others ignore it.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import aiohttp

MODEL_ID: Final = "whisper"
HEADERS: Final = {"content-type": "audio/pcm;rate=16000", "serve_multiplexed_model_id": MODEL_ID}
TIMEOUT: Final = aiohttp.ClientTimeout(
    total=300
)  # seconds; the longest queue of a benchmark takes a tenth of it


class PeerFailed(RuntimeError):
    """A peer answered *status* instead of 200; *body* is what it said."""

    def __init__(self, *, url: str, status: int, body: str) -> None:
        super().__init__(f"{url} answered {status}: {body[:500]}")
        self.url, self.status, self.body = url, status, body


async def transcribe(url: str, pcm: bytes) -> str:
    """The text of *pcm* (s16le, mono, 16 kHz) by the peer at *url*, over a connection of its own.

    Raises PeerFailed for any status but 200, aiohttp.ClientError or TimeoutError when there is no answer.
    """
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        return await _transcribe(session, url, pcm)


async def drive(url: str, clips: Sequence[bytes], callers: int) -> list[float]:
    """Send each of *clips* once, *callers* at a time; the seconds that each took, in the order of *clips*.

    Connections are kept alive. Raises as `transcribe` does, at the first request that fails: a peer that loses some
    has no latency to compare.
    """
    took_s = [0.0] * len(clips)
    waiting = iter(enumerate(clips))

    async def call(session: aiohttp.ClientSession) -> None:
        for number, pcm in waiting:  # shared, so each clip is taken once, by whoever is free
            began = time.perf_counter()
            await _transcribe(session, url, pcm)
            took_s[number] = time.perf_counter() - began

    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(callers):
                    group.create_task(call(session), name=f"caller-{number}")
        except* (PeerFailed, aiohttp.ClientError, TimeoutError) as failed:
            raise failed.exceptions[0] from None
    return took_s


async def _transcribe(session: aiohttp.ClientSession, url: str, pcm: bytes) -> str:
    async with session.post(f"{url}/transcribe", data=pcm, headers=HEADERS) as answer:
        if answer.status != 200:
            raise PeerFailed(url=url, status=answer.status, body=await answer.text())
        told: dict[str, str] = await answer.json()
        return told["text"]
