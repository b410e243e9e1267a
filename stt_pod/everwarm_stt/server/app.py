"""The pod's routes, and their description at /openapi.json.

Handlers take nothing but the request: FastAPI would otherwise parse the body before anybody could refuse it. What it
would have derived from parameters comes from `everwarm_core.http.description`.
"""

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute

from everwarm_core.errors import MethodNotAllowed, RouteNotFound, UpgradeRequired
from everwarm_core.http.description import (
    COMMON_FIELDS,
    TRANSCRIPTION_FIELDS,
    describe_form,
    describe_pcm,
    describe_realtime,
    errors,
)
from everwarm_core.realtime.sessions import Sessions
from everwarm_core.telemetry import Telemetry
from everwarm_stt.pod import VERSION, Pod
from everwarm_stt.server.edge import Edge, error_response
from everwarm_stt.server.exchange import Transcriber
from everwarm_stt.server.instruments import Instruments
from everwarm_stt.server.realtime import Slots, realtime_endpoint
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
    pod: Pod,
    *,
    instruments: Instruments,
    telemetry: Telemetry,
    tokens: Callable[[], Tokens | None],
    sessions: Sessions,
) -> FastAPI:
    """The ASGI application of *pod*; tokens is asked at each request, None means that no token is wanted.

    sessions: those of `/v1/realtime`.
    """
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

    @app.post(
        "/v1/audio/transcriptions",
        response_class=Response,
        **describe_form("Transcribe an audio file", TRANSCRIPTION_FIELDS),
    )
    async def transcriptions(request: Request) -> Response:  # noqa: ARG001  # read by the exchange
        return transcriber.form("transcribe")

    @app.post(
        "/v1/audio/translations",
        response_class=Response,
        **describe_form("Translate speech into English", COMMON_FIELDS),
    )
    async def translations(request: Request) -> Response:  # noqa: ARG001
        return transcriber.form("translate")

    @app.post("/v1/transcribe", **describe_pcm())
    async def transcribe(request: Request) -> Response:  # noqa: ARG001
        return transcriber.pcm()

    app.router.routes.append(
        WebSocketRoute("/v1/realtime", realtime_endpoint(Slots(pod, instruments), sessions, tokens))
    )

    @app.get("/v1/realtime", response_class=Response, **describe_realtime())
    async def realtime() -> Response:
        return error_response(UpgradeRequired())

    @app.get("/v1/models", responses=errors(401))
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
        pod.asked_at = time.monotonic()
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


def _describe_model() -> dict[str, Any]:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {"responses": errors(401, 404), "openapi_extra": {"parameters": [name]}}
