"""`create_stt`: one instance per model and language in a process, and log lines that say so."""

import gc
import logging
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from livekit.agents import stt as livekit_stt
from livekit.agents.metrics import STTMetrics
from livekit.agents.vad import VAD, VADCapabilities, VADStream

from everwarm.livekit import create_stt

URL = "http://127.0.0.1:9"


class SilentVad(VAD):
    """A VAD that is never asked: only its wrapping is looked at."""

    def __init__(self) -> None:
        super().__init__(capabilities=VADCapabilities(update_interval=0.1))

    def stream(self) -> VADStream:
        raise AssertionError("nobody listens here")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the factory logs, as the handlers of the program around it get it, and nothing that others log meanwhile."""
    caplog.set_level(logging.INFO, logger="everwarm.livekit.factory")
    with caplog.filtering(logging.Filter("everwarm.livekit.factory")):
        yield caplog


def test_the_same_model_and_language_share_an_instance() -> None:
    assert create_stt(model="base", language="en", base_url=URL) is create_stt(
        model="base", language="en-US", base_url=URL
    )


@pytest.mark.parametrize(
    "other",
    [
        {"model": "small"},
        {"language": "de"},
        {"base_url": "http://127.0.0.1:10"},
        {"namespace": "voice"},
        {"api_key": "another"},
        {"fallback": "local"},
        {"word_timestamps": True},
        {"deadline_s": 3.0},
        {"interim_results": False},
        {"vad_threshold": 0.6},
        {"prefix_padding_ms": 200},
        {"silence_duration_ms": 300},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_differs_makes_another_instance(other: dict[str, object]) -> None:
    usual: dict[str, object] = {"model": "base", "language": "en", "base_url": URL}
    assert create_stt(**usual) is not create_stt(**{**usual, **other})  # type: ignore[arg-type]


def test_eight_threads_at_once_get_one_instance(logged: pytest.LogCaptureFixture) -> None:
    barrier = Barrier(8)

    def create(_: int) -> int:
        barrier.wait(60)
        return id(create_stt(model="base.en", language="en", base_url=URL))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(8)))) == 1
    assert sorted(logged.messages) == ["stt.created", *["stt.reused"] * 7]


def test_the_original_tag_key_and_instance_are_logged(logged: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        create_stt(model="medium.en", language="en", base_url=URL)
    assert logged.messages == ["stt.created", "stt.reused"]
    created, reused = (vars(record) for record in logged.records)
    assert created["tag"] == reused["tag"] == "[STT-CACHE]"
    assert created["key"] == "medium.en_en"
    assert (created["model"], created["language"]) == ("medium.en", "en")
    assert created["instance"] == reused["instance"] != ""


@pytest.mark.parametrize("fallback", [None, "local"])
def test_a_vad_gets_an_adapter_of_its_own_around_the_shared_instance(fallback: None) -> None:
    vad = SilentVad()
    plain = create_stt(model="base.en", language="en", base_url=URL, fallback=fallback)
    first, second = (
        create_stt(model="base.en", language="en", base_url=URL, fallback=fallback, vad=vad) for _ in range(2)
    )
    assert isinstance(first, livekit_stt.StreamAdapter)
    assert isinstance(second, livekit_stt.StreamAdapter)
    assert first is not second
    assert first.wrapped_stt is second.wrapped_stt is plain
    assert first.capabilities.streaming
    assert plain.capabilities.streaming  # without a VAD of one's own


def test_adapters_of_ended_sessions_are_forgotten() -> None:
    plain = create_stt(model="base.en", base_url=URL)
    gone = [weakref.ref(create_stt(model="base.en", base_url=URL, vad=SilentVad())) for _ in range(3)]
    gc.collect()
    assert [adapter() for adapter in gone] == [None] * 3
    assert not plain._events.get("metrics_collected")


async def test_an_adapter_hands_on_the_metrics_until_it_is_closed() -> None:
    plain = create_stt(model="base.en", base_url=URL)
    adapter = create_stt(model="base.en", base_url=URL, vad=SilentVad())
    heard: list[STTMetrics] = []
    adapter.on("metrics_collected", heard.append)
    metrics = STTMetrics(
        label="x", request_id="r", timestamp=0.0, duration=1.0, audio_duration=1.0, streamed=False
    )
    plain.emit("metrics_collected", metrics)
    await adapter.aclose()
    plain.emit("metrics_collected", metrics)
    assert heard == [metrics]
