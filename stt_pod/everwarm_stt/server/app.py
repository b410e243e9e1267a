"""The pod's routes, and their description at /openapi.json.

Handlers take nothing but the request: FastAPI would otherwise parse the body before anybody could refuse it. What it
would have derived from parameters is written down here instead (`openapi_extra`), in the words of OpenAI's audio API.
"""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from everwarm_core.errors import MethodNotAllowed, RouteNotFound
from everwarm_core.openai_errors import ErrorBody
from everwarm_core.telemetry import Telemetry
from everwarm_core.transcript import ResponseFormat, VerboseJson
from everwarm_stt.pod import VERSION, Pod
from everwarm_stt.server.edge import Edge, error_response
from everwarm_stt.server.exchange import Transcriber
from everwarm_stt.server.instruments import Instruments
from everwarm_stt.server.tokens import Tokens


class ModelEntry(BaseModel):
    """One name this pod serves, as OpenAI lists models."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "everwarm"


class ModelList(BaseModel):
    """All names this pod serves."""

    object: str = "list"
    data: tuple[ModelEntry, ...]


class Readiness(BaseModel):
    """Why the pod is ready, or is not."""

    state: str
    model: str
    languages: tuple[str, ...]
    """Proven warm so far."""


def make_app(
    pod: Pod, *, instruments: Instruments, telemetry: Telemetry, tokens: Callable[[], Tokens | None]
) -> FastAPI:
    """The ASGI application of *pod*; tokens is asked at each request, None means that no token is wanted."""
    app = FastAPI(
        title="Everwarm pod",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's own would record each request a second time, under other names.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_middleware(Edge, pod=pod, instruments=instruments, tokens=tokens)
    app.add_exception_handler(HTTPException, _no_such_route)
    transcriber = Transcriber(pod, instruments)

    @app.post("/v1/audio/transcriptions", **_describe_form("Transcribe an audio file", _TRANSCRIPTION_FIELDS))
    async def transcriptions(request: Request) -> Response:  # noqa: ARG001  # read by the exchange
        return transcriber.form("transcribe")

    @app.post("/v1/audio/translations", **_describe_form("Translate speech into English", _COMMON_FIELDS))
    async def translations(request: Request) -> Response:  # noqa: ARG001
        return transcriber.form("translate")

    @app.post("/v1/transcribe", **_describe_pcm())
    async def transcribe(request: Request) -> Response:  # noqa: ARG001
        return transcriber.pcm()

    @app.get("/v1/models", responses=_errors(401))
    async def models() -> ModelList:
        return ModelList(data=tuple(_entry(pod, name) for name in pod.settings.names))

    @app.get("/v1/models/{model:path}", **_describe_model())  # noqa: FAST003  # a parameter would document 422
    async def model(request: Request) -> ModelEntry:
        name = request.path_params["model"]
        pod.check_name(name)
        return _entry(pod, name)

    @app.get("/livez", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def livez() -> Response:
        return Response("alive\n", media_type="text/plain")  # that the loop answers is the proof

    @app.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    async def readyz() -> Response:
        state = "draining" if pod.admission.is_draining else pod.state.value
        readiness = Readiness(state=state, model=pod.settings.model, languages=pod.languages)
        return JSONResponse(readiness.model_dump(), status_code=200 if pod.is_ready else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        page, content_type = telemetry.metrics_page()
        return Response(page, headers={"content-type": content_type})

    return app


def _entry(pod: Pod, name: str) -> ModelEntry:
    return ModelEntry(id=name, created=int(pod.started))


async def _no_such_route(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: paths and methods nobody handles."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        response = error_response(MethodNotAllowed(request.method, path))
        response.headers.update(error.headers or {})  # `allow`
        return response
    return error_response(RouteNotFound(path))


# --- Description ------------------------------------------------------------------------------------------------

_ERROR_MEANINGS: Final = {
    400: "The request, or its audio, cannot be used; `param` and `code` say why",
    401: "The bearer token is missing or wrong",
    404: "No such model",
    408: "The body came too slowly",
    413: "Too many bytes, or too many seconds of audio",
    503: "Full, not warm yet, or shutting down: try again after `retry-after` seconds, or elsewhere",
    504: "The deadline of the request ran out before its decode began",
}

_COMMON_FIELDS: Final[dict[str, Any]] = {
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

_TRANSCRIPTION_FIELDS: Final[dict[str, Any]] = {
    **_COMMON_FIELDS,
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["word", "segment"]},
        "description": "word needs response_format verbose_json",
    },
    "stream": {"type": "boolean", "default": False, "description": "Server-sent events; json or text only"},
}

_DEADLINE: Final = {
    "name": "x-everwarm-deadline-ms",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "minimum": 0},
    "description": "Answer 504 rather than begin later than this many milliseconds from now",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody, "description": _ERROR_MEANINGS[status]} for status in statuses}


def _describe_form(summary: str, fields: dict[str, Any]) -> dict[str, Any]:
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
        "response_class": Response,
        "responses": {
            200: {"description": "The transcript, in the format asked for", "content": content},
            **_errors(400, 401, 404, 408, 413, 503, 504),
        },
        "openapi_extra": {
            "parameters": [_DEADLINE],
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        },
    }


def _describe_pcm() -> dict[str, Any]:
    def query(name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
        return {"name": name, "in": "query", "required": required, "schema": schema}

    return {
        "summary": "Transcribe raw samples: the fast path of agents",
        "response_model": VerboseJson,
        "responses": _errors(400, 401, 404, 408, 413, 503, 504),
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


def _describe_model() -> dict[str, Any]:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {"responses": _errors(401, 404), "openapi_extra": {"parameters": [name]}}
