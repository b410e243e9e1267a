"""`everwarm.livekit.STT` as livekit-agents uses it, against a real pod."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError, APITimeoutError
from livekit.agents import stt as livekit_stt

from everwarm.errors import InvalidParameter, UnsupportedLanguage
from everwarm.livekit import STT
from everwarm.livekit.pods import PREPARE_S
from tests.fixtures.records import WAIT_S
from tests.support.frames import frames
from tests.support.pods import PodProcess, free_port
from tests.support.speech import Clip, clips, words

pytestmark = pytest.mark.weights

ONCE = APIConnectOptions(max_retry=0, timeout=20.0)


@pytest.fixture
def clip() -> Clip:
    """A short utterance that tiny.en gets right."""
    return next(clip for clip in clips() if clip.path.stem == "yes_please")


@pytest.fixture
async def stt(pod: PodProcess) -> AsyncIterator[STT]:
    """An STT of the pod, in English."""
    async with STT(model="tiny.en", language="en", base_url=pod.url) as made:
        yield made


def _text(event: livekit_stt.SpeechEvent) -> list[str]:
    return words(event.alternatives[0].text)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 1), (48_000, 2)])
async def test_recognize_gives_the_text_of_frames_at_any_rate(
    stt: STT, clip: Clip, rate: int, channels: int
) -> None:
    event = await stt.recognize(frames(clip.samples(), rate, channels), conn_options=ONCE)
    assert event.type is livekit_stt.SpeechEventType.FINAL_TRANSCRIPT
    assert _text(event) == words(clip.text)
    assert event.alternatives[0].language == "en"
    assert event.recognition_usage is not None
    assert event.recognition_usage.audio_duration == pytest.approx(clip.seconds, abs=0.05)


async def test_recognize_finds_pods_in_the_registry_that_the_environment_names(
    pod: PodProcess, valkey: str, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERWARM_REDIS_URL", valkey)
    monkeypatch.setenv("EVERWARM_NAMESPACE", "livekit")
    async with STT(model="tiny.en", language="en") as stt:
        assert _text(await stt.recognize(frames(clip.samples()), conn_options=ONCE)) == words(clip.text)


async def test_events_carry_a_request_id_and_a_confidence(stt: STT, clip: Clip) -> None:
    event = await stt.recognize(frames(clip.samples()), conn_options=ONCE)
    assert event.request_id.startswith("req_")
    assert 0.3 < event.alternatives[0].confidence <= 1.0


async def test_words_have_times_when_they_were_asked_for(pod: PodProcess, clip: Clip) -> None:
    async with STT(model="tiny.en", language="en", word_timestamps=True, base_url=pod.url) as stt:
        assert stt.capabilities.aligned_transcript == "word"
        event = await stt.recognize(frames(clip.samples()), conn_options=ONCE)
    timed = event.alternatives[0].words or []
    assert words(" ".join(timed)) == words(clip.text)
    starts = [word.start_time for word in timed]
    assert starts == sorted(starts)  # type: ignore[type-var]  # all are given


def test_capabilities_promise_nothing_that_is_not_there() -> None:
    capabilities = STT(model="tiny.en", base_url="http://pods").capabilities
    assert all((capabilities.offline_recognize, capabilities.streaming, capabilities.interim_results))
    assert capabilities.manual_flush
    assert not any((capabilities.aligned_transcript, capabilities.diarization, capabilities.keyterms))


def test_model_and_provider_are_named() -> None:
    stt = STT(model="tiny.en", base_url="http://pods")
    assert (stt.model, stt.provider) == ("tiny.en", "Everwarm")


async def test_a_language_asked_for_once_changes_nothing_for_others(stt: STT, clip: Clip) -> None:
    async with asyncio.TaskGroup() as group:
        french = group.create_task(_status_of(stt, clip, language="fr"))
        english = group.create_task(stt.recognize(frames(clip.samples()), conn_options=ONCE))
    assert french.result() == (400, False)
    assert _text(english.result()) == words(clip.text)
    assert stt.language == "en"


async def test_an_unknown_model_is_told_at_once_and_not_tried_again(pod: PodProcess, clip: Clip) -> None:
    async with STT(model="huge", base_url=pod.url) as stt:
        assert await _status_of(stt, clip) == (404, False)


async def test_the_sessions_timeout_is_the_deadline(stt: STT, clip: Clip) -> None:
    soon = APIConnectOptions(max_retry=0, timeout=0.001)
    with pytest.raises(APITimeoutError):
        await stt.recognize(frames(clip.samples()), conn_options=soon)


async def test_pods_that_cannot_be_reached_are_a_connection_error(clip: Clip) -> None:
    soon = APIConnectOptions(max_retry=0, timeout=0.5)
    async with STT(model="tiny.en", base_url=f"http://127.0.0.1:{free_port()}") as stt:
        with pytest.raises(APIConnectionError) as caught:
            await stt.recognize(frames(clip.samples()), conn_options=soon)
    assert caught.value.retryable


def test_one_instance_serves_loops_that_come_and_go(pod: PodProcess, clip: Clip) -> None:
    stt = STT(model="tiny.en", language="en", base_url=pod.url)
    for _ in range(2):
        event = asyncio.run(stt.recognize(frames(clip.samples()), conn_options=ONCE))
        assert _text(event) == words(clip.text)
    asyncio.run(stt.aclose())


async def test_a_closed_instance_opens_again_when_it_is_used(stt: STT, clip: Clip) -> None:
    await stt.recognize(frames(clip.samples()), conn_options=ONCE)
    await stt.aclose()
    assert not stt._own_loop.is_running
    assert _text(await stt.recognize(frames(clip.samples()), conn_options=ONCE)) == words(clip.text)


def test_constructing_opens_nothing_and_starts_nothing(pod: PodProcess, valkey: str) -> None:
    process = psutil.Process()
    gc.collect()  # what others have left is closed now, and not in the midst of this
    threads, files = threading.active_count(), process.num_fds()
    made = [
        STT(model="tiny.en", base_url=pod.url),
        STT(model="tiny.en", redis_url=valkey),
        STT(model="tiny.en", redis_url=valkey, fallback="local"),
    ]
    assert threading.active_count() <= threads
    assert process.num_fds() <= files
    assert not any(stt._own_loop.is_running for stt in made)


def test_prewarm_without_a_loop_returns_at_once_and_follows_the_registry(valkey: str) -> None:
    stt = STT(model="tiny.en", redis_url=valkey)
    began = time.monotonic()
    stt.prewarm()
    assert time.monotonic() - began < PREPARE_S
    _until(lambda: stt._own_loop.submit(_snapshot).result(WAIT_S) is not None)
    asyncio.run(stt.aclose())


def test_a_forgotten_instance_ends_its_thread(pod: PodProcess) -> None:
    stt = STT(model="tiny.en", base_url=pod.url)
    stt.prewarm()
    life = stt._own_loop._life
    assert life is not None
    del stt
    gc.collect()
    life.thread.join(WAIT_S)
    assert not life.thread.is_alive()


def test_nothing_that_says_where_pods_are_is_an_error_in_the_constructor() -> None:
    with pytest.raises(InvalidParameter, match="EVERWARM_REDIS_URL"):
        STT(model="tiny.en")


@pytest.mark.parametrize(("model", "language"), [("tiny.en", "fr"), ("tiny", "klingon")])
def test_a_language_the_model_cannot_know_is_an_error_in_the_constructor(model: str, language: str) -> None:
    with pytest.raises(UnsupportedLanguage):
        STT(model=model, language=language, base_url="http://pods")


async def _status_of(stt: STT, clip: Clip, **asked: str) -> tuple[int, bool]:
    """Status and retryability of the error that one attempt ends with."""
    try:
        await stt.recognize(frames(clip.samples()), conn_options=ONCE, **asked)
    except APIStatusError as error:
        return error.status_code, error.retryable
    raise AssertionError("it was answered")


async def _snapshot(transcriber: object) -> object:
    return transcriber._client.router.snapshot  # type: ignore[attr-defined]  # Pods


def _until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)  # polls a condition on another thread
