"""Live audio without a StreamAdapter: `STT.stream`, against real pods, and against pods that fail on order."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError
from livekit.agents import stt as livekit_stt
from livekit.agents.metrics import STTMetrics
from livekit.agents.stt import SpeechEvent, SpeechEventType, STTError

from everwarm.errors import InvalidParameter, ModelNotFound, Unauthorized, UnsupportedLanguage
from everwarm.livekit import STT
from everwarm.livekit.stream import load_detector
from everwarm_core.registry.connection import connect
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.writer import RegistryWriter
from tests.support.faulty_pods import FaultyPod, faulty_pod, refuse, tell
from tests.support.frames import FRAMES_PER_S, frames
from tests.support.pods import PodProcess, free_port, running_pod
from tests.support.speech import Clip, clips, words
from tests.support.waiting import until

pytestmark = pytest.mark.weights

START = SpeechEventType.START_OF_SPEECH
INTERIM = SpeechEventType.INTERIM_TRANSCRIPT
PREFLIGHT = SpeechEventType.PREFLIGHT_TRANSCRIPT
FINAL = SpeechEventType.FINAL_TRANSCRIPT
END = SpeechEventType.END_OF_SPEECH
USAGE = SpeechEventType.RECOGNITION_USAGE

PATIENT: Final = APIConnectOptions(max_retry=3, timeout=60.0)
SILENCE: Final = np.zeros(16_000, np.int16)

Samples = npt.NDArray[np.int16]


def clip_called(name: str) -> Clip:
    return next(clip for clip in clips() if clip.path.stem == name)


FIRST, SECOND = clip_called("yes_please"), clip_called("opening_hours")


@pytest.fixture
async def stt(pod: PodProcess) -> AsyncIterator[STT]:
    """An STT of the pod, in English."""
    async with STT(model="tiny.en", language="en", base_url=pod.url) as made:
        yield made


async def speak(stream: livekit_stt.RecognizeStream, *speech: Samples, pace: float = 0.0) -> None:
    """Push *speech*; pace: 1.0 takes as long as speaking does, 0 no time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, frame in enumerate(frames(np.concatenate(speech)), 1):
        stream.push_frame(frame)
        if pace:
            await asyncio.sleep(max(0.0, began + number / FRAMES_PER_S * pace - loop.time()))


async def heard(
    stream: livekit_stt.RecognizeStream,
    last: SpeechEventType = USAGE,
    *,
    events: list[SpeechEvent] | None = None,
) -> list[SpeechEvent]:
    """The events up to the first of kind *last*; put into *events* as they come."""
    events = [] if events is None else events
    async with asyncio.timeout(60):
        async for event in stream:
            events.append(event)
            if event.type is last:
                return events
    raise AssertionError(f"the stream ended with {[event.type for event in events]}")


def text(events: list[SpeechEvent]) -> list[str]:
    """The words of the final among *events*."""
    (final,) = (event for event in events if event.type is FINAL)
    return words(final.alternatives[0].text)


def kinds(events: list[SpeechEvent]) -> list[SpeechEventType]:
    """What they are, without those that may be missing on a busy machine."""
    return [event.type for event in events if event.type not in (INTERIM, PREFLIGHT)]


async def test_each_utterance_of_a_stream_has_its_whole_story(stt: STT) -> None:
    async with stt.stream(conn_options=PATIENT) as stream:
        for clip in (FIRST, SECOND):
            await speak(stream, SILENCE, clip.samples(), SILENCE)
            events = await heard(stream)
            assert kinds(events) == [START, FINAL, END, USAGE]
            assert text(events) == words(clip.text)
            assert len({event.request_id for event in events}) == 1


async def test_utterances_that_come_at_once_keep_their_order(stt: STT) -> None:
    async with stt.stream(conn_options=PATIENT) as stream:
        await speak(stream, FIRST.samples(), SILENCE, SECOND.samples(), SILENCE)
        stream.end_input()
        events = [event async for event in stream]
    finals = [event.alternatives[0].text for event in events if event.type is FINAL]
    assert [words(final) for final in finals] == [words(FIRST.text), words(SECOND.text)]
    assert [kind for kind in kinds(events) if kind in (START, END)] == [START, END] * 2


async def test_speech_at_its_own_pace_is_shown_as_it_grows_and_foreseen_in_the_pause(
    pod: PodProcess,
) -> None:
    """The speaker waits for a machine that is slower than speech, before he goes on and before his silence is long."""
    clip = clip_called("complaint")
    events: list[SpeechEvent] = []

    async def go_on(part: Samples) -> None:
        before = len(_of_kind(events, INTERIM))
        await speak(stream, part, pace=1.0)
        with suppress(TimeoutError):  # a look finds nothing while the slot is taken
            await until(lambda: len(_of_kind(events, INTERIM)) > before, within_s=10)

    def is_foreseen() -> bool:
        return events[-1].type is PREFLIGHT and words(events[-1].alternatives[0].text) == words(clip.text)

    async with (
        STT(model="tiny.en", language="en", base_url=pod.url, silence_duration_ms=10_000) as stt,
        stt.stream(conn_options=PATIENT) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(heard(stream, events=events))
        for part in np.array_split(clip.samples(), 4):
            await go_on(part)
        for _ in range(90):
            if not is_foreseen():
                await speak(stream, SILENCE[:1_600], pace=1.0)
        await speak(stream, *[SILENCE] * 11)
    order = [event.type for event in events]
    assert order[:2] == [START, INTERIM]
    assert order[-4:] == [PREFLIGHT, FINAL, END, USAGE]
    shown = [words(event.alternatives[0].text) for event in _of_kind(events, INTERIM)]
    assert len(shown) >= 3
    assert len(shown[0]) < len(shown[-1]) <= len(words(clip.text)) + 2
    preflight, final = (event.alternatives[0] for event in events[-4:-2])
    assert preflight == final  # one decode, told when it was there and when it was certain
    assert words(final.text) == words(clip.text)


async def test_without_interim_results_there_are_none(pod: PodProcess) -> None:
    async with (
        STT(model="tiny.en", base_url=pod.url, interim_results=False) as stt,
        stt.stream(conn_options=PATIENT) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        assert not stt.capabilities.interim_results
        tasks.create_task(speak(stream, SECOND.samples(), SILENCE, pace=1.0))
        events = await heard(stream)
    assert INTERIM not in {event.type for event in events}
    assert text(events) == words(SECOND.text)


async def test_times_and_words_are_on_the_clock_that_livekit_set(pod: PodProcess) -> None:
    async with (
        STT(model="tiny.en", word_timestamps=True, base_url=pod.url) as stt,
        stt.stream(conn_options=PATIENT) as stream,
    ):
        stream.start_time_offset = 100.0
        await speak(stream, SILENCE, SILENCE, FIRST.samples(), SILENCE)
        said = next(e.alternatives[0] for e in await heard(stream) if e.type is FINAL)
    assert said.start_time == pytest.approx(102.0, abs=0.5)
    assert said.end_time == pytest.approx(102.0 + FIRST.seconds, abs=0.5)
    assert words(" ".join(said.words or [])) == words(FIRST.text)
    times = [moment for word in said.words or [] for moment in (word.start_time, word.end_time)]
    assert times == sorted(times)  # type: ignore[type-var]  # all are given
    assert 101.5 < float(times[0]) < float(times[-1]) < 102.5 + FIRST.seconds  # type: ignore[arg-type]
    assert 0.3 < said.confidence <= 1.0


async def test_words_are_timed_in_finals_alone() -> None:
    events: list[SpeechEvent] = []
    *begun, rest = np.array_split(FIRST.samples(), 4)
    async with (
        faulty_pod("pod") as asked,
        STT(model="base.en", word_timestamps=True, base_url=asked.url) as stt,
        stt.stream(conn_options=PATIENT) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(heard(stream, events=events))
        await speak(stream, *begun)
        await until(lambda: _of_kind(events, INTERIM))
        await speak(stream, rest, SILENCE)
    requests = [(len(got.body), "granularities" in got.query) for got in asked.received]
    assert {is_timed for _, is_timed in requests} == {False, True}
    assert max(requests)[1]  # the longest is the early decode in the last pause, which became the final


async def test_usage_becomes_livekits_metrics(stt: STT) -> None:
    collected: list[STTMetrics] = []
    stt.on("metrics_collected", collected.append)
    async with stt.stream(conn_options=PATIENT) as stream:
        await speak(stream, FIRST.samples(), SILENCE)
        usage = (await heard(stream))[-1].recognition_usage
        stream.end_input()
        assert [event async for event in stream] == []
    assert usage is not None
    assert usage.audio_duration == pytest.approx(FIRST.seconds, abs=0.5)
    assert [(metrics.streamed, metrics.audio_duration) for metrics in collected] == [
        (True, usage.audio_duration)
    ]


async def test_a_flush_ends_the_open_utterance_and_is_always_answered_by_a_final(pod: PodProcess) -> None:
    async with (
        STT(model="tiny.en", base_url=pod.url, silence_duration_ms=10_000) as stt,
        stt.stream(conn_options=PATIENT) as stream,
    ):
        await speak(stream, FIRST.samples(), SILENCE)
        stream.flush()
        assert text(await heard(stream)) == words(FIRST.text)
        stream.flush()
        assert text(await heard(stream, FINAL)) == []
        await speak(stream, SECOND.samples())
        stream.flush()
        assert text(await heard(stream)) == words(SECOND.text)


async def test_the_end_of_the_input_finishes_what_was_being_said(stt: STT) -> None:
    async with stt.stream(conn_options=PATIENT) as stream:
        await speak(stream, FIRST.samples())
        stream.end_input()
        events = [event async for event in stream]
    assert kinds(events) == [START, FINAL, END, USAGE]
    assert text(events) == words(FIRST.text)


async def test_silence_is_told_by_nothing(stt: STT) -> None:
    async with stt.stream(conn_options=PATIENT) as stream:
        await speak(stream, *[SILENCE] * 5)
        stream.end_input()
        assert [event async for event in stream] == []


async def test_rooms_may_send_any_rate_and_two_channels(stt: STT) -> None:
    async with stt.stream(conn_options=PATIENT) as stream:
        for frame in frames(np.concatenate((FIRST.samples(), SILENCE)), 48_000, 2):
            stream.push_frame(frame)
        assert text(await heard(stream)) == words(FIRST.text)


async def test_each_stream_has_its_own_language_and_may_change_it() -> None:
    async with faulty_pod("de") as german, faulty_pod("fr") as french:
        asked = [await _languages(pod) for pod in (german, french)]
    assert asked == [["de", "es"], ["fr", "es"]]


async def test_a_language_the_model_cannot_know_is_an_error_at_once(stt: STT) -> None:
    with pytest.raises(UnsupportedLanguage):
        stt.stream(language="fr")
    async with stt.stream() as stream:
        with pytest.raises(UnsupportedLanguage):
            stream.update_options(language="fr")
    assert stt.language == "en"


@pytest.mark.parametrize(
    ("name", "value"),
    [("vad_threshold", 1.5), ("prefix_padding_ms", -1), ("silence_duration_ms", 50)],
)
def test_endpointing_out_of_bounds_is_an_error_in_the_constructor(name: str, value: float) -> None:
    with pytest.raises(InvalidParameter, match=name):
        STT(model="tiny.en", base_url="http://pods", **{name: value})  # type: ignore[arg-type]


@pytest.mark.slow
async def test_a_pod_that_is_killed_while_it_decodes_costs_no_word(valkey: str, tmp_path: Path) -> None:
    """Both are stopped before they are asked, so that the one that is, is killed with the utterance in its hands.

    Their leases are renewed for them: what is looked at comes before the registry would lose them.
    """
    environment = {"EVERWARM_REDIS_URL": valkey, "EVERWARM_NAMESPACE": "killed"}
    with running_pod(environment, folder=tmp_path) as one, running_pod(environment, folder=tmp_path) as other:
        by_port = {int(pod.url.rpartition(":")[2]): pod.process for pod in (one, other)}
        async with (
            STT(
                model="tiny.en",
                language="en",
                redis_url=valkey,
                namespace="killed",
                interim_results=False,
            ) as stt,
            stt.stream(conn_options=PATIENT) as stream,
        ):
            await load_detector()
            async with RegistryReader(valkey, "killed") as reader, connect(valkey) as redis:

                async def are_warm() -> bool:
                    """A pod is ready a moment before the registry says so."""
                    return len((await reader.read_all()).by_name.get("tiny.en", ())) == len(by_port)

                await until(are_warm)
                for process in by_port.values():
                    process.send_signal(signal.SIGSTOP)
                for lease in (await reader.read_all()).leases:
                    await RegistryWriter(redis, "killed", ttl_s=60.0).heartbeat(lease.pod)
            stt.prewarm()
            await speak(stream, FIRST.samples(), SILENCE)
            await until(lambda: _connected(by_port))
            killed = by_port.pop(_connected(by_port).pop())
            killed.kill()
            for process in by_port.values():
                process.send_signal(signal.SIGCONT)
            assert text(await heard(stream)) == words(FIRST.text)


async def test_an_utterance_that_fails_is_told_and_the_stream_goes_on() -> None:
    async with faulty_pod("mended", *[refuse()] * 100) as faulty:
        stt = STT(model="base.en", base_url=faulty.url, deadline_s=0.5)
        errors = _errors_of(stt)
        async with stt, stt.stream(conn_options=PATIENT) as stream:
            await speak(stream, FIRST.samples(), SILENCE)
            assert kinds(await heard(stream, END)) == [START, END]
            faulty.script.clear()
            await speak(stream, SECOND.samples(), SILENCE)
            assert text(await heard(stream)) == ["mended"]
    assert [error.recoverable for error in errors] == [True]


async def test_a_stream_gives_up_when_more_utterances_in_a_row_fail_than_livekit_would_retry() -> None:
    stt = STT(model="tiny.en", base_url=f"http://127.0.0.1:{free_port()}", deadline_s=0.2)
    errors = _errors_of(stt)
    async with stt, stt.stream(conn_options=APIConnectOptions(max_retry=1)) as stream:
        await speak(stream, *[FIRST.samples(), SILENCE] * 2)
        with pytest.raises(APIConnectionError, match="2 utterances in a row"):
            await heard(stream)
    assert [error.recoverable for error in errors] == [True, False]


@pytest.mark.parametrize(
    ("error", "status"), [(Unauthorized(), 401), (ModelNotFound("base.en"), 404)], ids=["key", "model"]
)
async def test_what_would_befall_every_utterance_ends_the_stream_at_once(
    error: Unauthorized | ModelNotFound, status: int
) -> None:
    async with (
        faulty_pod("strict", *[tell(error)] * 100) as faulty,
        STT(model="base.en", base_url=faulty.url) as stt,
        stt.stream() as stream,
    ):
        await speak(stream, FIRST.samples(), SILENCE)
        with pytest.raises(APIStatusError) as caught:
            await heard(stream)
    assert caught.value.status_code == status


async def test_livekits_fallback_goes_on_with_its_next_stt(stt: STT) -> None:
    nobody = STT(model="tiny.en", base_url=f"http://127.0.0.1:{free_port()}", deadline_s=0.2)
    adapter = livekit_stt.FallbackAdapter([nobody, stt], max_retry_per_stt=0)
    assert adapter.capabilities.interim_results
    async with adapter.stream() as stream:
        await speak(stream, FIRST.samples(), SILENCE)
        await heard(stream, END)
        await until(lambda: not adapter._status[0].available)
        await speak(stream, SECOND.samples(), SILENCE)
        assert text(await heard(stream)) == words(SECOND.text)
    await adapter.aclose()
    await nobody.aclose()


@pytest.mark.parametrize("is_speaking", [True, False], ids=["in a word", "in silence"])
async def test_a_closed_stream_leaves_nothing_behind(pod: PodProcess, *, is_speaking: bool) -> None:
    tasks, threads = asyncio.all_tasks(), _threads()
    async with STT(model="tiny.en", base_url=pod.url) as stt:
        stream = stt.stream()
        await speak(stream, FIRST.samples())
        await heard(stream, START)
        if not is_speaking:
            await speak(stream, SILENCE)
            await heard(stream)
        await stream.aclose()
        assert asyncio.all_tasks() <= tasks
    assert _threads() <= threads  # some of others may have ended


def _of_kind(events: list[SpeechEvent], kind: SpeechEventType) -> list[SpeechEvent]:
    return [event for event in events if event.type is kind]


def _threads() -> set[threading.Thread]:
    """Those that run, without the loop's own pool."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


def _connected(ports: Collection[int]) -> set[int]:
    """Which of *ports* this process is connected to."""
    connections = psutil.Process().net_connections("tcp")
    return {c.raddr.port for c in connections if c.status == psutil.CONN_ESTABLISHED} & set(ports)


def _errors_of(stt: STT) -> list[STTError]:
    errors: list[STTError] = []
    stt.on("error", errors.append)
    return errors


async def _languages(pod: FaultyPod) -> list[str]:
    """The languages that *pod* was asked for, by a stream in its own that went on in Spanish."""
    stt = STT(model="base", language="en", base_url=pod.url, interim_results=False)
    async with stt, stt.stream(language=pod.name) as stream:
        await speak(stream, FIRST.samples(), SILENCE)
        await heard(stream)
        stream.update_options(language="es-MX")
        await speak(stream, SECOND.samples(), SILENCE)
        await heard(stream)
    assert stt.language == "en"
    asked = [part for got in pod.received for part in got.query.split("&") if part.startswith("language=")]
    return list(dict.fromkeys(part.removeprefix("language=") for part in asked))
