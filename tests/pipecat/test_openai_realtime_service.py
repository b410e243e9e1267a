"""Pipecat's own realtime service for OpenAI, unchanged, in front of the gateway: with its VAD, and with ours."""

import asyncio
from typing import Any, Literal

import pytest
from pipecat.frames.frames import (
    ErrorFrame,
    InterimTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
)
from pipecat.services.openai.stt import OpenAIRealtimeSTTService

from tests.support.pipelines import RunningPipeline, running_pipeline
from tests.support.platform import RunningPlatform
from tests.support.speech import clips, words
from tests.support.waiting import until

pytestmark = [pytest.mark.weights, pytest.mark.slow]

SAID = [clip for clip in clips() if clip.path.stem in {"yes_please", "opening_hours"}]
SERVER_VAD = {"type": "server_vad", "silence_duration_ms": 500}


def _service(
    platform: RunningPlatform,
    *,
    turn_detection: dict[str, Any] | Literal[False],
    model: str = "tiny.en",
) -> OpenAIRealtimeSTTService:
    return OpenAIRealtimeSTTService(
        api_key="unused",
        base_url=f"{platform.url.replace('http', 'ws', 1)}/v1/realtime",
        turn_detection=turn_detection,
        settings=OpenAIRealtimeSTTService.Settings(model=model),
    )


async def _finals(service: OpenAIRealtimeSTTService, pipeline: RunningPipeline) -> list[list[str]]:
    """What is heard of SAID, said once the session is configured."""
    await until(lambda: service._session_ready)
    await pipeline.hear(*SAID)
    return [words(final.text) for final in await pipeline.wait_for(TranscriptionFrame, len(SAID))]


async def test_what_its_own_vad_commits_is_transcribed(platform: RunningPlatform) -> None:
    tasks = asyncio.all_tasks()
    service = _service(platform, turn_detection=False)
    async with running_pipeline(service) as pipeline:
        assert await _finals(service, pipeline) == [words(clip.text) for clip in SAID]
    assert pipeline.frames(ErrorFrame) == []
    assert pipeline.frames(ProposedUserStoppedSpeakingFrame) == []
    await until(lambda: asyncio.all_tasks() <= tasks)


async def test_utterances_are_told_apart_by_the_server_when_it_is_asked_to(platform: RunningPlatform) -> None:
    tasks = asyncio.all_tasks()
    service = _service(platform, turn_detection=SERVER_VAD)
    async with running_pipeline(service, has_vad=False) as pipeline:
        assert await _finals(service, pipeline) == [words(clip.text) for clip in SAID]
    assert pipeline.frames(ErrorFrame) == []
    assert pipeline.frames(ProposedUserStartedSpeakingFrame)
    assert pipeline.frames(ProposedUserStoppedSpeakingFrame)
    await until(lambda: asyncio.all_tasks() <= tasks)


async def test_interim_words_are_words_of_the_final(platform: RunningPlatform) -> None:
    service = _service(platform, turn_detection=SERVER_VAD)
    async with running_pipeline(service, has_vad=False) as pipeline:
        finals = await _finals(service, pipeline)
    interim = {word for frame in pipeline.frames(InterimTranscriptionFrame) for word in words(frame.text)}
    assert interim <= {word for final in finals for word in final}


async def test_an_unknown_model_is_an_error_frame(platform: RunningPlatform) -> None:
    service = _service(platform, turn_detection=False, model="huge")
    async with running_pipeline(service) as pipeline:
        await until(lambda: service._session_ready)
        await pipeline.hear(SAID[0])
        (error,) = await pipeline.wait_for(ErrorFrame)
    assert "served models: " in error.error
    assert service.is_usable
