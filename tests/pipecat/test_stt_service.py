"""`everwarm.pipecat.STTService` in real pipelines, with Pipecat's own VAD, against a real platform."""

import asyncio
import gc
import threading
from pathlib import Path

import psutil
import pytest
from pipecat.audio.utils import pcm_to_wav
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    STTMetadataFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import ProcessingMetricsData, STTUsageMetricsData, TTFBMetricsData
from pipecat.services.settings import STTSettings
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory

import everwarm
from everwarm.errors import InvalidParameter, UnsupportedLanguage
from everwarm.gateway import run_gateway
from everwarm.pipecat import STTService
from everwarm.settings import GatewaySettings
from everwarm_core.languages import LANGUAGE_NAMES
from tests.support.pipelines import running_pipeline
from tests.support.platform import RunningPlatform
from tests.support.pods import free_port
from tests.support.speech import Clip, clips, words
from tests.support.waiting import until

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def _clip(stem: str) -> Clip:
    return next(clip for clip in clips() if clip.path.stem == stem)


YES, OPENING = _clip("yes_please"), _clip("opening_hours")


def _texts(finals: list[TranscriptionFrame]) -> list[list[str]]:
    return [words(final.text) for final in finals]


# --- What is heard ---------------------------------------------------------------------------------------------------


async def test_a_pipeline_hears_each_utterance_between_silences(platform: RunningPlatform) -> None:
    async with running_pipeline(STTService(model="tiny.en", base_url=platform.url)) as pipeline:
        await pipeline.hear(YES, OPENING)
        finals = await pipeline.wait_for(TranscriptionFrame, 2)
    assert _texts(finals) == [words(YES.text), words(OPENING.text)]
    assert all(final.finalized and final.language is Language.EN for final in finals)
    assert all(isinstance(final.result, everwarm.Transcript) for final in finals)
    assert pipeline.frames(ErrorFrame) == []


async def test_pods_are_found_in_the_registry_that_the_environment_names(
    platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERWARM_REDIS_URL", platform.redis_url())
    async with running_pipeline(STTService(model="whisper-1", language="en-US")) as pipeline:
        await pipeline.hear(YES)
        (final,) = await pipeline.wait_for(TranscriptionFrame)
    assert words(final.text) == words(YES.text)


async def test_telephone_audio_is_heard(platform: RunningPlatform) -> None:
    """At 8 kHz the WAV file goes to the pod as it is, which resamples it."""
    service = STTService(model="tiny.en", base_url=platform.url)
    async with running_pipeline(service, rate=8_000) as pipeline:
        await pipeline.hear(OPENING)
        (final,) = await pipeline.wait_for(TranscriptionFrame)
    assert words(final.text) == words(OPENING.text)


async def test_silence_is_no_transcript_and_no_error(platform: RunningPlatform) -> None:
    service = STTService(model="tiny.en", base_url=platform.url)
    silence = pcm_to_wav(bytes(64_000), 16_000)
    async with running_pipeline(service):
        assert [frame async for frame in service.run_stt(silence)] == []


async def test_an_utterance_has_its_times_and_its_seconds_in_the_metrics(platform: RunningPlatform) -> None:
    # Pipecat measures no final that comes later than that behind the speech, by default two seconds.
    service = STTService(model="tiny.en", base_url=platform.url, stt_ttfb_timeout=60.0)
    async with running_pipeline(service) as pipeline:
        await pipeline.hear(YES)
        await pipeline.wait_for(TranscriptionFrame)
    (request,) = [
        data for data in pipeline.metrics(ProcessingMetricsData) if data.value
    ]  # the first are empty
    (until_final,) = [data for data in pipeline.metrics(TTFBMetricsData) if data.value]
    usage = sum(data.value.audio_seconds for data in pipeline.metrics(STTUsageMetricsData))
    assert {request.processor, until_final.processor} == {service.name}
    assert 0 < request.value < 10
    assert 0 < until_final.value < 20
    assert YES.seconds < usage < YES.seconds + 3
    assert {request.model, until_final.model} == {"tiny.en"}


async def test_turns_are_told_how_long_a_final_takes(platform: RunningPlatform) -> None:
    service = STTService(model="tiny.en", base_url=platform.url, ttfs_p99_latency=0.4)
    async with running_pipeline(service) as pipeline:
        (told,) = await pipeline.wait_for(STTMetadataFrame)
    assert told.ttfs_p99_latency == 0.4


async def test_a_model_and_a_language_may_be_changed_on_the_way(platform: RunningPlatform) -> None:
    service = STTService(model="tiny.en", base_url=platform.url)
    async with running_pipeline(service) as pipeline:
        delta = STTSettings(model="whisper-1", language=Language.EN_GB)
        await pipeline.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
        await until(lambda: service.settings.model == "whisper-1")  # audio would overtake the frame
        await pipeline.hear(YES)
        (final,) = await pipeline.wait_for(TranscriptionFrame)
    assert words(final.text) == words(YES.text)
    assert (service.settings.model, service._language) == ("whisper-1", "en")


def test_every_language_of_whisper_is_one_of_pipecat() -> None:
    assert {Language(code) for code in LANGUAGE_NAMES}


# --- What goes wrong -------------------------------------------------------------------------------------------------


async def _error(service: STTService, *, audio: bytes | None = None) -> ErrorFrame:
    """The one ErrorFrame that the pipeline sees of an utterance, or of *audio*."""
    async with running_pipeline(service) as pipeline:
        if audio is None:
            await pipeline.hear(YES)
        else:
            await service.process_generator(service.run_stt(audio))
        (error,) = await pipeline.wait_for(ErrorFrame)
    assert pipeline.frames(TranscriptionFrame) == []
    assert error.processor is service
    return error


async def test_an_unknown_model_is_told_with_the_names_that_are_served(platform: RunningPlatform) -> None:
    service = STTService(model="huge", base_url=platform.url)
    error = await _error(service)
    assert error.category is ErrorCategory.INVALID_REQUEST
    assert "served models: " in error.error
    assert "tiny.en" in error.error
    assert not service.is_usable


async def test_a_service_hears_again_once_its_model_is_corrected(platform: RunningPlatform) -> None:
    service = STTService(model="huge", base_url=platform.url)
    async with running_pipeline(service) as pipeline:
        await pipeline.hear(YES)
        await pipeline.wait_for(ErrorFrame)
        await pipeline.worker.queue_frame(STTUpdateSettingsFrame(delta=STTSettings(model="tiny.en")))
        await until(lambda: service.is_usable)
        await pipeline.hear(OPENING)
        (final,) = await pipeline.wait_for(TranscriptionFrame)
    assert words(final.text) == words(OPENING.text)


async def test_pods_that_cannot_be_reached_cost_an_utterance_and_not_the_service() -> None:
    service = STTService(model="tiny.en", base_url=f"http://127.0.0.1:{free_port()}", deadline_s=0.5)
    error = await _error(service)
    assert error.category in (ErrorCategory.CONNECTIVITY, ErrorCategory.SERVER)
    assert "everwarm status" in error.error
    assert service.is_usable


async def test_audio_that_is_none_is_no_fault_of_the_service(platform: RunningPlatform) -> None:
    service = STTService(model="tiny.en", base_url=platform.url)
    error = await _error(service, audio=b"no sound at all")
    assert error.category is ErrorCategory.APPLICATION
    assert service.is_usable


async def test_a_wrong_key_is_told_with_where_to_give_the_right_one(
    platform: RunningPlatform, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n", encoding="utf-8")
    settings = GatewaySettings(redis_url=platform.redis_url(), gateway_port=0, gateway_api_keys_file=keys)
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_gateway(settings, ready=up.set_result, stop=stop))
        wrong = STTService(model="tiny.en", base_url=await up, api_key="wrong")
        error = await _error(wrong)
        async with running_pipeline(
            STTService(model="tiny.en", base_url=await up, api_key="right")
        ) as pipeline:
            await pipeline.hear(YES)
            (final,) = await pipeline.wait_for(TranscriptionFrame)
        stop.set()
    assert error.category is ErrorCategory.AUTHENTICATION
    assert "EVERWARM_API_KEY" in error.error
    assert "wrong" not in error.error.replace("missing or wrong", "")
    assert words(final.text) == words(YES.text)


# --- Opening and closing ---------------------------------------------------------------------------------------------


def _connections(*ports: int) -> list[object]:
    """This process's TCP connections to *ports*."""
    found = psutil.Process().net_connections("tcp")
    return [c for c in found if c.status == psutil.CONN_ESTABLISHED and c.raddr.port in ports]


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


async def test_constructing_opens_nothing_and_starts_nothing(platform: RunningPlatform) -> None:
    process = psutil.Process()
    STTService(model="tiny.en", base_url=platform.url)  # what the first one imports
    gc.collect()  # what others have left is closed now, and not in the midst of this
    threads, files, tasks = threading.active_count(), process.num_fds(), asyncio.all_tasks()
    made = [
        STTService(model="tiny.en", base_url=platform.url),
        STTService(model="tiny.en", redis_url="redis://127.0.0.1:1"),
    ]
    assert threading.active_count() <= threads
    assert process.num_fds() <= files
    assert asyncio.all_tasks() <= tasks
    assert [service._client.router for service in made] == [None, None]


def test_nothing_that_says_where_pods_are_is_an_error_in_the_constructor() -> None:
    with pytest.raises(InvalidParameter, match="EVERWARM_REDIS_URL"):
        STTService(model="tiny.en")


@pytest.mark.parametrize(("model", "language"), [("tiny.en", "fr"), ("tiny", "klingon")])
def test_a_language_the_model_cannot_know_is_an_error_in_the_constructor(model: str, language: str) -> None:
    with pytest.raises(UnsupportedLanguage):
        STTService(model=model, language=language, base_url="http://pods")


async def test_an_ended_pipeline_has_transcribed_what_was_said_and_leaves_nothing(
    platform: RunningPlatform,
) -> None:
    tasks = asyncio.all_tasks()
    redis_url = platform.redis_url()
    service = STTService(model="tiny.en", redis_url=redis_url)
    async with running_pipeline(service) as pipeline:
        await pipeline.hear(YES)
        await pipeline.wait_for(VADUserStoppedSpeakingFrame)
        await pipeline.end()
    left = [type(frame) for frame in pipeline.seen if isinstance(frame, TranscriptionFrame | EndFrame)]
    assert left[-2:] == [TranscriptionFrame, EndFrame]
    assert service._client.router is None
    await until(lambda: asyncio.all_tasks() <= tasks)
    await until(lambda: not _connections(_port(redis_url)))


async def test_a_cancelled_pipeline_drops_what_was_said_and_leaves_nothing(
    platform: RunningPlatform,
) -> None:
    tasks = asyncio.all_tasks()
    service = STTService(model="tiny.en", base_url=platform.url)
    async with running_pipeline(service) as pipeline:
        await pipeline.hear(*clips()[:6])
        await pipeline.wait_for(VADUserStoppedSpeakingFrame)
        await pipeline.cancel()
    assert len(pipeline.frames(TranscriptionFrame)) < 6
    await until(lambda: asyncio.all_tasks() <= tasks)
    await until(lambda: not _connections(_port(platform.url)))
