"""What a decode returns, and the five formats OpenAI's transcription API writes it in.

Pods render, agents parse `verbose_json` back: both sides share these values, so no field is lost on the way.
All times are seconds from the first sample of the audio that was sent.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from everwarm_core.languages import language_name


class ResponseFormat(StrEnum):
    """`response_format` of OpenAI's audio API."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VERBOSE_JSON = "verbose_json"
    VTT = "vtt"


class Wire(BaseModel):
    """A frozen value as it stands in JSON; fields that a newer pod adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _finite(value: float) -> float:
    """Whisper's figures of a segment without tokens can be NaN, which no JSON can say."""
    return value if math.isfinite(value) else 0.0


Figure = Annotated[float, AfterValidator(_finite)]


class Word(Wire):
    """One word with its times and the mean probability of its tokens."""

    word: str
    start: float
    end: float
    probability: Figure = 1.0


class Segment(Wire):
    """A piece of transcript between two timestamps, with the figures Whisper judges it by."""

    id: int
    seek: int
    """Offset of the decoded window, in frames of 10 ms."""
    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    temperature: Figure = 0.0
    avg_logprob: Figure = 0.0
    compression_ratio: Figure = 1.0
    no_speech_prob: Figure = 0.0


class Usage(Wire):
    """What was consumed, in OpenAI's duration form: *seconds* of audio, rounded up."""

    type: Literal["duration"] = "duration"
    seconds: int


class LanguageCode(Wire):
    """One detected or requested language, as newer clients read it."""

    code: str


class Transcript(Wire):
    """The transcript of one utterance or recording.

    language is a Whisper code (the detected one when `auto` was asked); duration is the audio's length in seconds.
    words is None unless word timestamps were asked for.
    """

    task: Literal["transcribe", "translate"] = "transcribe"
    language: str
    duration: float
    text: str
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] | None = None


class VerboseJson(Wire):
    """OpenAI's verbose_json: `language` is a full name; `languages` carries the code beside it."""

    task: str
    language: str
    languages: tuple[LanguageCode, ...] = Field(min_length=1)
    duration: float
    text: str
    segments: tuple[Segment, ...] | None = None
    words: tuple[Word, ...] | None = None
    usage: Usage


@dataclass(frozen=True, slots=True)
class Granularities:
    """`timestamp_granularities[]`: which times verbose_json carries; OpenAI's default is segments alone."""

    segments: bool = True
    words: bool = False


def usage_of(duration_s: float) -> Usage:
    """The billed duration: whole seconds, rounded up, as OpenAI does."""
    return Usage(seconds=int(-(-duration_s // 1)))


def render(
    transcript: Transcript,
    form: ResponseFormat,
    granularities: Granularities | None = None,
) -> str:
    """The body of an answer in *form*; granularities matter to verbose_json only."""
    match form:
        case ResponseFormat.TEXT:
            return transcript.text + "\n"
        case ResponseFormat.JSON:
            return json.dumps(
                {
                    "text": transcript.text,
                    "languages": [{"code": transcript.language}],
                    "usage": usage_of(transcript.duration).model_dump(),
                },
                ensure_ascii=False,
            )
        case ResponseFormat.VERBOSE_JSON:
            return _verbose(transcript, granularities or Granularities()).model_dump_json(exclude_none=True)
        case ResponseFormat.SRT:
            return "".join(
                f"{number}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{_cue(s.text)}\n\n"
                for number, s in enumerate(transcript.segments, start=1)
            )
        case ResponseFormat.VTT:
            return "WEBVTT\n\n" + "".join(
                f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{_cue(s.text)}\n\n"
                for s in transcript.segments
            )


def parse_verbose_json(body: str | bytes) -> Transcript:
    """The transcript in a verbose_json answer; raises pydantic.ValidationError when it is none."""
    answer = VerboseJson.model_validate_json(body)
    return Transcript(
        task="translate" if answer.task == "translate" else "transcribe",
        language=answer.languages[0].code,
        duration=answer.duration,
        text=answer.text,
        segments=answer.segments or (),
        words=answer.words,
    )


def joined_text(segments: Iterable[Segment]) -> str:
    """The text of consecutive segments: Whisper's own leading spaces separate them."""
    return "".join(segment.text for segment in segments).strip()


def _verbose(transcript: Transcript, granularities: Granularities) -> VerboseJson:
    return VerboseJson(
        task=transcript.task,
        language=language_name(transcript.language),
        languages=(LanguageCode(code=transcript.language),),
        duration=transcript.duration,
        text=transcript.text,
        segments=transcript.segments if granularities.segments else None,
        words=(transcript.words or ()) if granularities.words else None,
        usage=usage_of(transcript.duration),
    )


def _cue(text: str) -> str:
    """One line of a subtitle: a blank line, or an arrow, would end the cue."""
    return " ".join(text.split()).replace("-->", "->")


def _clock(seconds: float, decimal: str) -> str:
    """`HH:MM:SS,mmm`, the hours always written: SRT demands them and WebVTT allows them."""
    total_ms = round(max(0.0, seconds) * 1000)
    hours, rest = divmod(total_ms, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    whole, millis = divmod(rest, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{decimal}{millis:03d}"
