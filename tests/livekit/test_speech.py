"""Frames become samples, transcripts become events: nothing of what was said or when is lost on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit import rtc
from livekit.agents import stt

from everwarm.livekit.speech import confidence_of, samples_of, speech_event
from everwarm_core.errors import InvalidAudio
from everwarm_core.transcript import Segment, Transcript, Word
from tests.support.frames import frames


def _segment(logprob: float, tokens: int = 1, start: float = 0.0, end: float = 1.0) -> Segment:
    return Segment(
        id=0, seek=0, start=start, end=end, text=" x", tokens=tuple(range(tokens)), avg_logprob=logprob
    )


def _tone(seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    return (8_000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def test_frames_at_16_khz_are_the_samples_themselves() -> None:
    tone = _tone()
    assert np.array_equal(samples_of(frames(tone)), tone)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
def test_frames_at_another_rate_keep_their_length_and_pitch(rate: int) -> None:
    samples = samples_of(frames(_tone(), rate))
    assert len(samples) == pytest.approx(16_000, abs=16)
    spectrum = np.abs(np.fft.rfft(samples.astype(np.float64)))
    assert int(np.argmax(spectrum)) * 16_000 / len(samples) == pytest.approx(440, abs=2)


def test_channels_are_averaged() -> None:
    left, right = np.full(160, 1_000, np.int16), np.full(160, 3_000, np.int16)
    both = np.column_stack((left, right)).reshape(-1)
    assert set(samples_of(rtc.AudioFrame(both.tobytes(), 16_000, 2, 160))) == {2_000}


@pytest.mark.parametrize(
    "buffer",
    [[], rtc.AudioFrame(b"", 16_000, 1, 0), [*frames(_tone(0.1)), *frames(_tone(0.1), 48_000)]],
    ids=["no frames", "no samples", "two rates"],
)
def test_frames_that_are_no_utterance_are_told_as_the_callers_fault(
    buffer: list[rtc.AudioFrame] | rtc.AudioFrame,
) -> None:
    with pytest.raises(InvalidAudio):
        samples_of(buffer)


def test_an_event_carries_text_language_times_and_usage() -> None:
    segments = (_segment(-0.1, start=0.4, end=1.0), _segment(-0.1, start=1.2, end=2.5))
    heard = Transcript(language="de", duration=3.0, text="ja gut", segments=segments)
    event = speech_event(heard, request_id="req_1")
    data = event.alternatives[0]
    assert (event.type, event.request_id) == (stt.SpeechEventType.FINAL_TRANSCRIPT, "req_1")
    assert (data.text, data.language, data.start_time, data.end_time) == ("ja gut", "de", 0.4, 2.5)
    assert data.words is None
    assert event.recognition_usage == stt.RecognitionUsage(audio_duration=3.0)


def test_words_carry_their_times_and_no_spaces() -> None:
    words = (Word(word=" Yes,", start=0.2, end=0.5, probability=0.9),)
    heard = Transcript(language="en", duration=1.0, text="Yes,", segments=(_segment(-0.1),), words=words)
    (word,) = speech_event(heard, request_id="r").alternatives[0].words or []
    assert (word, word.start_time, word.end_time, word.confidence) == ("Yes,", 0.2, 0.5, 0.9)


def test_confidence_is_the_tokens_mean_probability() -> None:
    likely, unlikely = _segment(np.log(0.9), tokens=3), _segment(np.log(0.5), tokens=1)
    assert confidence_of((likely, unlikely)) == pytest.approx((0.9**3 * 0.5) ** 0.25)


@given(st.lists(st.builds(_segment, st.floats(-50, 1), st.integers(0, 30)), max_size=5))
def test_confidence_is_a_probability_whatever_a_pod_says(segments: list[Segment]) -> None:
    assert 0.0 <= confidence_of(tuple(segments)) <= 1.0
