"""Realtime clients that people already use, unchanged but for the address."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import stt as livekit_stt
from livekit.agents import utils
from livekit.plugins import openai as livekit_openai
from openai import AsyncOpenAI, OpenAI
from openai.types.realtime import ConversationItemInputAudioTranscriptionCompletedEvent

from tests.support.platform import RunningPlatform
from tests.support.realtime import SILENCE, at_24_khz
from tests.support.speech import clips, words

pytestmark = [pytest.mark.weights, pytest.mark.timeout(120)]

COMPLETED = "conversation.item.input_audio_transcription.completed"
CLIP = clips()[1]
SPEECH = np.concatenate([SILENCE, at_24_khz(CLIP.samples()), SILENCE])
INPUT = {"transcription": {"model": "tiny.en", "language": "en"}}


def session(**changes: object) -> Any:
    """A plain dict will do, whatever the client's types say."""
    return {"type": "transcription", "audio": {"input": {**INPUT, **changes}}}


def pieces() -> list[str]:
    return [
        base64.b64encode(SPEECH[n : n + 4800].astype("<i2").tobytes()).decode()
        for n in range(0, len(SPEECH), 4800)
    ]


def overlap(text: str) -> float:
    said, heard = set(words(CLIP.text)), set(words(text))
    return len(said & heard) / len(said)


async def test_openais_async_client_transcribes_speech_as_it_comes(platform: RunningPlatform) -> None:
    client = AsyncOpenAI(base_url=f"{platform.url}/v1", api_key="none")
    deltas, final = "", ""
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        await connection.session.update(session=session())
        for piece in pieces():
            await connection.input_audio_buffer.append(audio=piece)
        async for event in connection:
            assert event.type != "error", event
            if event.type == "conversation.item.input_audio_transcription.delta":
                deltas += event.delta or ""
            if isinstance(event, ConversationItemInputAudioTranscriptionCompletedEvent):
                final = event.transcript
                break
    assert overlap(final) > 0.8
    assert deltas


@pytest.mark.filterwarnings(
    "ignore:connect.* must be used:DeprecationWarning"
)  # openai's way to use websockets
def test_openais_sync_client_commits_by_itself(platform: RunningPlatform) -> None:
    client = OpenAI(base_url=f"{platform.url}/v1", api_key="none")
    with client.realtime.connect(model="tiny.en") as connection:
        connection.session.update(session=session(turn_detection=None))
        for piece in pieces():
            connection.input_audio_buffer.append(audio=piece)
        connection.input_audio_buffer.commit()
        event = next(event for event in connection if event.type in (COMPLETED, "error"))
    assert isinstance(event, ConversationItemInputAudioTranscriptionCompletedEvent)
    assert overlap(event.transcript) > 0.8


@pytest.fixture
async def livekit_http() -> AsyncIterator[None]:
    """The HTTP session that LiveKit gives each job."""
    async with utils.http_context.open():
        yield


@pytest.mark.usefixtures("livekit_http")
async def test_livekits_openai_plugin_streams_by_the_realtime_api(platform: RunningPlatform) -> None:
    stt = livekit_openai.STT(
        model="tiny.en", language="en", base_url=f"{platform.url}/v1", api_key="none", use_realtime=True
    )
    async with stt.stream() as stream:
        frame = rtc.AudioFrame(SPEECH.tobytes(), 24_000, 1, len(SPEECH))
        stream.push_frame(frame)
        async with asyncio.timeout(60):
            async for event in stream:
                if event.type == livekit_stt.SpeechEventType.FINAL_TRANSCRIPT:
                    break
    assert overlap(event.alternatives[0].text) > 0.8
    await stt.aclose()
