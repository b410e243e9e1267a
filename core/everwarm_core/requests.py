"""What one request for a transcript asks for, read from form fields or a query string.

Pods and the gateway parse the same fields, so the gateway can route by a request and a pod can serve it without
the two disagreeing on what it says. Field names and their combinations follow OpenAI's audio API: arrays carry
brackets (`timestamp_granularities[]`), fields we do not know are ignored (`include[]`, `chunking_strategy`), an
empty optional field counts as absent (browsers send those). A scalar given twice is refused: two readers could
pick different ones. Pure: the audio itself is no part of this.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from everwarm_core.errors import InvalidParameter
from everwarm_core.languages import parse_language
from everwarm_core.transcript import Granularities, ResponseFormat

Task = Literal["transcribe", "translate"]

DEFAULT_GRANULARITIES: Final = Granularities()

MAX_MODEL_CHARS: Final = 253  # as the spec's names
MAX_LANGUAGE_CHARS: Final = 64  # the longest name in the table has 14
MAX_PROMPT_CHARS: Final = 16_384  # Whisper reads the last 224 tokens of it

_GRANULARITIES: Final = ("timestamp_granularities[]", "timestamp_granularities")
_SCALARS: Final = frozenset(
    {"model", "language", "prompt", "response_format", "temperature", "stream", "task"}
)
_TRUE: Final = frozenset({"true", "1"})
_FALSE: Final = frozenset({"false", "0"})


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """One request, checked.

    model: the name as the caller wrote it; language: a Whisper code, `auto`, or None when none was named (what it
    then means depends on the pod: `everwarm_core.keys.requested_language`); temperature: None leaves the choice to
    the pod's spec; stream: deliver server-sent events while decoding.
    """

    model: str
    task: Task = "transcribe"
    language: str | None = None
    prompt: str | None = None
    response_format: ResponseFormat = ResponseFormat.JSON
    temperature: float | None = None
    granularities: Granularities = DEFAULT_GRANULARITIES
    stream: bool = False


def parse_transcription_fields(fields: Iterable[tuple[str, str]], *, task: Task) -> TranscriptionRequest:
    """The request in the text *fields* of a multipart form, in the order they were sent.

    Raises InvalidParameter or UnsupportedLanguage, both of which name the field.
    """
    scalars, granularities = _sorted_out(fields)
    response_format = _response_format(scalars.get("response_format"))
    stream = _boolean("stream", scalars.get("stream"))
    if stream and response_format not in (ResponseFormat.JSON, ResponseFormat.TEXT):
        # OpenAI streams from models that answer json alone; events carry text, never cues or segments.
        raise InvalidParameter(
            "response_format", f"{response_format.value!r} cannot be streamed; use 'json' or 'text'"
        )
    if granularities.words and response_format is not ResponseFormat.VERBOSE_JSON:
        raise InvalidParameter(_GRANULARITIES[0], "word timestamps need response_format 'verbose_json'")
    return TranscriptionRequest(
        model=_model(scalars.get("model")),
        task=task,
        language=_language(scalars.get("language")),
        prompt=_bounded("prompt", scalars.get("prompt"), MAX_PROMPT_CHARS),
        response_format=response_format,
        temperature=_temperature(scalars.get("temperature")),
        granularities=granularities,
        stream=stream,
    )


def parse_transcribe_query(fields: Iterable[tuple[str, str]]) -> TranscriptionRequest:
    """The request in the query of `POST /v1/transcribe`, percent-decoded.

    Answers there are always a whole verbose_json, so `response_format` and `stream` are ignored; `task` may be
    given (`transcribe`, the default, or `translate`). Raises as `parse_transcription_fields`.
    """
    scalars, granularities = _sorted_out(fields)
    return TranscriptionRequest(
        model=_model(scalars.get("model")),
        task=_task(scalars.get("task")),
        language=_language(scalars.get("language")),
        prompt=_bounded("prompt", scalars.get("prompt"), MAX_PROMPT_CHARS),
        response_format=ResponseFormat.VERBOSE_JSON,
        temperature=_temperature(scalars.get("temperature")),
        granularities=granularities,
    )


def transcribe_query(request: TranscriptionRequest) -> tuple[tuple[str, str], ...]:
    """The query, not yet percent-encoded, that makes a pod's `/v1/transcribe` do *request*.

    The inverse of `parse_transcribe_query`; fields at their defaults are left out.
    """
    query = [("model", request.model)]
    if request.task != "transcribe":
        query.append(("task", request.task))
    if request.language is not None:
        query.append(("language", request.language))
    if request.prompt is not None:
        query.append(("prompt", request.prompt))
    if request.temperature is not None:
        query.append(("temperature", repr(request.temperature)))
    if request.granularities.words:
        query.append((_GRANULARITIES[0], "word"))
        if request.granularities.segments:
            query.append((_GRANULARITIES[0], "segment"))
    return tuple(query)


def _sorted_out(fields: Iterable[tuple[str, str]]) -> tuple[dict[str, str], Granularities]:
    """Scalars that are known and not empty, each once, and the granularities."""
    scalars: dict[str, str] = {}
    seen: set[str] = set()
    chosen: set[str] = set()
    for name, value in fields:
        if name in _GRANULARITIES:
            if value:
                chosen.add(value)
        elif name in _SCALARS:
            if name in seen:
                raise InvalidParameter(name, "given more than once")
            seen.add(name)
            if value:
                scalars[name] = value
    if unknown := chosen - {"word", "segment"}:
        raise InvalidParameter(_GRANULARITIES[0], f"{_shown(min(unknown))} is neither 'word' nor 'segment'")
    if not chosen:
        return scalars, DEFAULT_GRANULARITIES
    return scalars, Granularities(segments="segment" in chosen, words="word" in chosen)


def _model(value: str | None) -> str:
    model = _bounded("model", value, MAX_MODEL_CHARS)
    if model is None:
        raise InvalidParameter("model", "missing; name the model to use")
    return model


def _language(value: str | None) -> str | None:
    value = _bounded("language", value, MAX_LANGUAGE_CHARS)
    return None if value is None else parse_language(value)


def _response_format(value: str | None) -> ResponseFormat:
    if value is None:
        return ResponseFormat.JSON
    try:
        return ResponseFormat(value)
    except ValueError as error:
        accepted = ", ".join(form.value for form in ResponseFormat)
        raise InvalidParameter("response_format", f"{_shown(value)} is none of {accepted}") from error


def _task(value: str | None) -> Task:
    match value:
        case None | "transcribe":
            return "transcribe"
        case "translate":
            return "translate"
        case _:
            raise InvalidParameter("task", f"{_shown(value)} is neither 'transcribe' nor 'translate'")


def _temperature(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        temperature = float(value)
    except ValueError as error:
        raise InvalidParameter("temperature", f"{_shown(value)} is no number") from error
    if not math.isfinite(temperature) or not 0.0 <= temperature <= 1.0:
        raise InvalidParameter("temperature", f"{_shown(value)} is outside 0 to 1")
    return temperature


def _boolean(param: str, value: str | None) -> bool:
    if value is None or value.lower() in _FALSE:
        return False
    if value.lower() in _TRUE:
        return True
    raise InvalidParameter(param, f"{_shown(value)} is neither 'true' nor 'false'")


def _bounded(param: str, value: str | None, limit: int) -> str | None:
    if value is not None and len(value) > limit:
        raise InvalidParameter(param, f"longer than {limit} characters")
    return value


def _shown(value: str) -> str:
    """*value* as an error message may repeat it: quoted, and short."""
    return repr(value if len(value) <= 80 else value[:80] + "...")
