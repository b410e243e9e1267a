"""Pipecat's own service for OpenAI, unchanged, in front of the gateway."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
from openai.types.audio import Transcription, TranscriptionVerbose
from pipecat.frames.frames import ErrorFrame, TranscriptionFrame
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.utils.errors import ErrorCategory

from tests.support.pipelines import running_pipeline
from tests.support.platform import RunningPlatform
from tests.support.speech import clips, words

pytestmark = [pytest.mark.weights, pytest.mark.slow]

SAID = [clip for clip in clips() if clip.path.stem in {"yes_please", "opening_hours"}]


@pytest.fixture
async def service(platform: RunningPlatform) -> AsyncIterator[Callable[..., OpenAISTTService]]:
    """Makes a service of a model; its HTTP client is ours, since Pipecat never closes its own."""
    async with openai.DefaultAsyncHttpxClient() as http:

        def make(model: str, **options: Any) -> OpenAISTTService:
            return OpenAISTTService(
                api_key="unused",
                base_url=f"{platform.url}/v1",
                http_client=http,
                settings=OpenAISTTService.Settings(model=model, prompt="A call to a shop.", temperature=0.0),
                **options,
            )

        yield make


@pytest.mark.parametrize("model", ["tiny.en", "whisper-1"])
async def test_it_hears_over_rest(service: Callable[..., OpenAISTTService], model: str) -> None:
    async with running_pipeline(service(model)) as pipeline:
        await pipeline.hear(*SAID)
        finals = await pipeline.wait_for(TranscriptionFrame, len(SAID))
    assert [words(final.text) for final in finals] == [words(clip.text) for clip in SAID]
    assert all(isinstance(final.result, Transcription) for final in finals)


async def test_it_gets_the_probabilities_that_it_asks_whisper_1_for(
    service: Callable[..., OpenAISTTService],
) -> None:
    async with running_pipeline(service("whisper-1", include_prob_metrics=True)) as pipeline:
        await pipeline.hear(SAID[0])
        (final,) = await pipeline.wait_for(TranscriptionFrame)
    assert isinstance(final.result, TranscriptionVerbose)
    assert final.result.segments
    assert all(segment.avg_logprob <= 0 for segment in final.result.segments)


async def test_it_reads_why_it_was_refused(service: Callable[..., OpenAISTTService]) -> None:
    async with running_pipeline(service("huge")) as pipeline:
        await pipeline.hear(SAID[0])
        (error,) = await pipeline.wait_for(ErrorFrame)
    assert "served models: " in error.error
    assert error.category is ErrorCategory.UNKNOWN  # Pipecat leaves the exception out
