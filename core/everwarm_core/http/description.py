"""What /openapi.json says of the audio routes, in the words of OpenAI's audio API: keyword arguments for FastAPI.

Handlers take nothing but the request, for FastAPI would otherwise parse the body before anybody could refuse it; what
it would have derived from parameters is written down here, once for pods and gateway. The gateway may answer 429 and
502 too.
"""

from typing import Any, Final

from everwarm_core.http.headers import DEADLINE_HEADER
from everwarm_core.openai_errors import ErrorBody
from everwarm_core.transcript import ResponseFormat, VerboseJson

_ERROR_MEANINGS: Final = {
    400: "The request, or its audio, cannot be used; `param` and `code` say why",
    401: "The bearer token is missing or wrong",
    404: "No such model",
    408: "The body came too slowly",
    426: "This path speaks WebSocket",
    413: "Too many bytes, or too many seconds of audio",
    429: "This API key has what it may have for now: try again after `retry-after` seconds",
    502: "Several pods failed on this request",
    503: "Full, not warm yet, or shutting down: try again after `retry-after` seconds, or elsewhere",
    504: "The deadline of the request ran out first",
}

COMMON_FIELDS: Final[dict[str, Any]] = {
    "file": {
        "type": "string",
        "format": "binary",
        "description": "flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm",
    },
    "model": {"type": "string", "description": "One of the names at /v1/models"},
    "language": {"type": "string", "description": "ISO 639-1 code of the speech, or auto"},
    "prompt": {"type": "string", "description": "Text the transcript may follow on from"},
    "response_format": {"type": "string", "enum": [f.value for f in ResponseFormat], "default": "json"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 1},
}

TRANSCRIPTION_FIELDS: Final[dict[str, Any]] = {
    **COMMON_FIELDS,
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["word", "segment"]},
        "description": "word needs response_format verbose_json",
    },
    "stream": {"type": "boolean", "default": False, "description": "Server-sent events; json or text only"},
}

_STATUSES: Final = (400, 401, 404, 408, 413, 503, 504)

_DEADLINE: Final = {
    "name": DEADLINE_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "number", "minimum": 0},
    "description": "Answer 504 rather than begin later than this many milliseconds from now",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer *statuses*."""
    return {status: {"model": ErrorBody, "description": _ERROR_MEANINGS[status]} for status in statuses}


def describe_form(summary: str, fields: dict[str, Any], *further: int) -> dict[str, Any]:
    """A route that takes a multipart form of *fields* and answers in OpenAI's formats; further: error statuses."""
    content: dict[str, Any] = {
        "application/json": {},
        "text/plain": {},
        "application/x-subrip": {},
        "text/vtt": {},
        "text/event-stream": {},
    }
    form = {"type": "object", "required": ["file", "model"], "properties": fields}
    return {
        "summary": summary,
        "responses": {
            200: {"description": "The transcript, in the format asked for", "content": content},
            **errors(*_STATUSES, *further),
        },
        "openapi_extra": {
            "parameters": [_DEADLINE],
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        },
    }


def describe_pcm(*further: int) -> dict[str, Any]:
    """The route that takes raw samples; further: error statuses."""

    def query(name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
        return {"name": name, "in": "query", "required": required, "schema": schema}

    return {
        "summary": "Transcribe raw samples: the fast path of agents",
        "response_model": VerboseJson,
        "responses": errors(*_STATUSES, *further),
        "openapi_extra": {
            "parameters": [
                query("model", {"type": "string"}, required=True),
                query("language", {"type": "string"}),
                query("prompt", {"type": "string"}),
                query("temperature", {"type": "number", "minimum": 0, "maximum": 1}),
                query("task", {"type": "string", "enum": ["transcribe", "translate"]}),
                query(
                    "timestamp_granularities[]",
                    {"type": "array", "items": {"type": "string", "enum": ["word", "segment"]}},
                ),
                _DEADLINE,
            ],
            "requestBody": {
                "required": True,
                "description": "s16le, one channel",
                "content": {"audio/pcm;rate=16000": {"schema": {"type": "string", "format": "binary"}}},
            },
        },
    }


def describe_realtime() -> dict[str, Any]:
    """What plain HTTP gets at the path of the realtime sessions, which OpenAPI cannot describe."""
    return {
        "summary": "Realtime transcription sessions, over WebSocket, as OpenAI's",
        "status_code": 426,
        "responses": errors(426),
    }
