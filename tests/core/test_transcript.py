"""The five formats of an answer, and the way back from the richest one."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from everwarm_core.languages import LANGUAGE_NAMES
from everwarm_core.transcript import (
    Granularities,
    ResponseFormat,
    Segment,
    Transcript,
    Word,
    joined_text,
    parse_verbose_json,
    render,
    usage_of,
)

HELLO = Transcript(
    language="en",
    duration=3.2,
    text="Hello there. Good & <bad>.",
    segments=(
        Segment(
            id=0, seek=0, start=0.0, end=1.5, text=" Hello there.", tokens=(50364, 2425), avg_logprob=-0.25
        ),
        Segment(
            id=1,
            seek=0,
            start=1.5,
            end=3.2,
            text=" Good & <bad>.",
            compression_ratio=0.9,
            no_speech_prob=0.01,
        ),
    ),
    words=(
        Word(word=" Hello", start=0.0, end=0.5, probability=0.9),
        Word(word=" there.", start=0.5, end=1.5, probability=0.8),
    ),
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
TIMES = st.floats(0, 1e5)
FIGURES = st.floats(-1e3, 1e3)
SEGMENTS = st.builds(
    Segment,
    id=st.integers(0, 1000),
    seek=st.integers(0, 10**7),
    start=TIMES,
    end=TIMES,
    text=TEXTS,
    tokens=st.lists(st.integers(0, 51865), max_size=4).map(tuple),
    temperature=st.floats(0, 1),
    avg_logprob=FIGURES,
    compression_ratio=FIGURES,
    no_speech_prob=st.floats(0, 1),
)
WORDS = st.builds(Word, word=TEXTS, start=TIMES, end=TIMES, probability=st.floats(0, 1))
TRANSCRIPTS = st.builds(
    Transcript,
    task=st.sampled_from(["transcribe", "translate"]),
    language=st.sampled_from(sorted(LANGUAGE_NAMES)),
    duration=TIMES,
    text=TEXTS,
    segments=st.lists(SEGMENTS, max_size=3).map(tuple),
    words=st.lists(WORDS, max_size=3).map(tuple),
)


# --- Plain formats -------------------------------------------------------------------------------------------------


def test_text_is_the_text_and_a_newline() -> None:
    assert render(HELLO, ResponseFormat.TEXT) == "Hello there. Good & <bad>.\n"


def test_json_has_the_text_the_language_and_what_was_consumed() -> None:
    assert json.loads(render(HELLO, ResponseFormat.JSON)) == {
        "text": "Hello there. Good & <bad>.",
        "languages": [{"code": "en"}],
        "usage": {"type": "duration", "seconds": 4},
    }


def test_json_keeps_letters_as_they_are() -> None:
    assert "größer" in render(HELLO.model_copy(update={"text": "größer"}), ResponseFormat.JSON)


@pytest.mark.parametrize(
    ("duration", "seconds"), [(0.0, 0), (0.01, 1), (1.0, 1), (1.001, 2), (59.999, 60), (1800.0, 1800)]
)
def test_usage_is_whole_seconds_rounded_up(duration: float, seconds: int) -> None:
    assert usage_of(duration).seconds == seconds


# --- Subtitles -----------------------------------------------------------------------------------------------------


def test_srt_numbers_its_cues_and_writes_times_with_a_comma() -> None:
    assert render(HELLO, ResponseFormat.SRT) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n00:00:01,500 --> 00:00:03,200\nGood & <bad>.\n\n"
    )


def test_vtt_begins_with_its_header_and_writes_times_with_a_point() -> None:
    assert render(HELLO, ResponseFormat.VTT) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n00:00:01.500 --> 00:00:03.200\nGood & <bad>.\n\n"
    )


def test_subtitles_of_silence_have_no_cue() -> None:
    silence = Transcript(language="en", duration=2.0, text="")
    assert render(silence, ResponseFormat.SRT) == ""
    assert render(silence, ResponseFormat.VTT) == "WEBVTT\n\n"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0004, "00:00:00,000"),
        (0.9996, "00:00:01,000"),
        (59.9999, "00:01:00,000"),
        (3599.9999, "01:00:00,000"),
        (86_399.5, "23:59:59,500"),
        (360_000.0, "100:00:00,000"),
        (-0.02, "00:00:00,000"),
    ],
)
def test_subtitle_time_carries_over_when_it_is_rounded(seconds: float, written: str) -> None:
    segment = Segment(id=0, seek=0, start=seconds, end=seconds, text="x")
    srt = render(Transcript(language="en", duration=1, text="x", segments=(segment,)), ResponseFormat.SRT)
    assert srt.splitlines()[1] == f"{written} --> {written}"


@given(TRANSCRIPTS)
def test_subtitles_have_a_cue_for_each_segment_whatever_its_text(transcript: Transcript) -> None:
    """A blank line or an arrow inside a text would end its cue or begin another."""
    for form in (ResponseFormat.SRT, ResponseFormat.VTT):
        body = render(transcript, form)
        times = re.findall(r"(?m)^\d\d+:\d\d:\d\d[,.]\d{3} --> \d\d+:\d\d:\d\d[,.]\d{3}$", body)
        assert len(times) == body.count("-->") == len(transcript.segments)


# --- Verbose JSON --------------------------------------------------------------------------------------------------


def test_verbose_json_names_the_language_in_full_and_its_code_beside_it() -> None:
    body = json.loads(render(HELLO, ResponseFormat.VERBOSE_JSON))
    assert body["language"] == "english"
    assert body["languages"] == [{"code": "en"}]
    assert body["task"] == "transcribe"
    assert body["usage"] == {"type": "duration", "seconds": 4}


def test_verbose_json_has_segments_and_no_words_by_default() -> None:
    body = json.loads(render(HELLO, ResponseFormat.VERBOSE_JSON))
    assert set(body["segments"][0]) == {
        "id", "seek", "start", "end", "text", "tokens", "temperature",
        "avg_logprob", "compression_ratio", "no_speech_prob",
    }  # fmt: skip
    assert "words" not in body


def test_verbose_json_has_words_and_no_segments_when_only_words_are_asked_for() -> None:
    form = Granularities(segments=False, words=True)
    body = json.loads(render(HELLO, ResponseFormat.VERBOSE_JSON, form))
    assert [word["word"] for word in body["words"]] == [" Hello", " there."]
    assert "segments" not in body


@given(TRANSCRIPTS)
def test_transcript_is_the_same_after_a_trip_through_verbose_json(transcript: Transcript) -> None:
    body = render(transcript, ResponseFormat.VERBOSE_JSON, Granularities(segments=True, words=True))
    assert parse_verbose_json(body) == transcript
    assert parse_verbose_json(body.encode()) == transcript


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), float("-inf")])
def test_figure_that_json_cannot_say_becomes_zero(figure: float) -> None:
    """Whisper gives NaN for a segment without tokens; the answer must stay readable."""
    segment = Segment(id=0, seek=0, start=0, end=1, text="", avg_logprob=figure, compression_ratio=figure)
    transcript = Transcript(language="en", duration=1, text="", segments=(segment,))
    (again,) = parse_verbose_json(render(transcript, ResponseFormat.VERBOSE_JSON)).segments
    assert (again.avg_logprob, again.compression_ratio) == (0.0, 0.0)


def test_verbose_json_of_a_newer_pod_is_read_without_what_it_adds() -> None:
    body = json.loads(render(HELLO, ResponseFormat.VERBOSE_JSON))
    body["speaker"] = "unknown"
    body["segments"][0]["speaker"] = "A"
    assert parse_verbose_json(json.dumps(body)).segments == HELLO.segments


@pytest.mark.parametrize(
    "body", ["", "null", "[]", "{}", "<html>", '{"text": "x"}', '{"text":"x","languages":[]}'], ids=repr
)
def test_answer_is_refused_when_it_is_no_verbose_json(body: str) -> None:
    with pytest.raises(ValidationError):
        parse_verbose_json(body)


# --- Joining -------------------------------------------------------------------------------------------------------


def test_text_of_segments_is_joined_by_their_own_spaces() -> None:
    assert joined_text(HELLO.segments) == HELLO.text


def test_text_of_no_segments_is_empty() -> None:
    assert joined_text(()) == ""
