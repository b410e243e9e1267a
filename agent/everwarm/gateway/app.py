"""The gateway's HTTP surface: the same paths a pod has, answered by relays and by the registry snapshot."""

import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Final

import structlog
from fastapi import FastAPI, Request
from opentelemetry.metrics import CallbackOptions, Observation
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import WebSocketRoute
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from everwarm.gateway.cors import Cors
from everwarm.gateway.edge import Edge, tell_limits
from everwarm.gateway.models import Model, model_named, models_in
from everwarm.gateway.realtime import realtime_endpoint
from everwarm.gateway.relay import Door, Relay
from everwarm.routing.router import Router
from everwarm_core import telemetry
from everwarm_core.errors import (
    EverwarmError,
    InternalError,
    MethodNotAllowed,
    RouteNotFound,
    UpgradeRequired,
    http_error,
)
from everwarm_core.http.description import (
    COMMON_FIELDS,
    TRANSCRIPTION_FIELDS,
    describe_form,
    describe_pcm,
    describe_realtime,
    errors,
)
from everwarm_core.openai_errors import error_body, error_headers
from everwarm_core.telemetry import Attribute

VERSION: Final = version("everwarm")
MetricsPage = Callable[[], tuple[bytes, str]]

log = structlog.get_logger(__name__)


class ModelList(TypedDict):
    """All names that can be asked for."""

    object: str
    data: list[Model]


class Readiness(TypedDict):
    """Why the gateway is ready, or is not; a frozen registry is used on, its pods judged by their answers."""

    state: str
    registry_frozen: bool


def create_app(door: Door, router: Router, *, metrics_page: MetricsPage | None = None) -> FastAPI:
    """The application over an open *router*; metrics_page: the Prometheus page, when a program has set metrics up."""
    app = FastAPI(
        title="Everwarm gateway",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's own spans would double ours, and record query strings, which hold what callers put into `prompt`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    if origins := door.settings.gateway_cors_origins:
        app.add_middleware(Cors, origins=origins)
    # Around it, so that preflights have an id too.
    app.add_middleware(Edge, is_draining=lambda: door.admission.is_draining)
    _add_audio(app, door)
    _add_realtime(app, door)
    _add_models(app, door, router)
    _add_probes(app, door, router, metrics_page)
    app.add_exception_handler(EverwarmError, _tell_ours)
    app.add_exception_handler(HTTPException, _tell_no_route)
    app.add_exception_handler(Exception, _tell_defect)
    _observe(door, router)
    return app


def _add_audio(app: FastAPI, door: Door) -> None:
    @app.post(
        "/v1/audio/transcriptions",
        response_class=Response,
        **describe_form("Transcribe an audio file", TRANSCRIPTION_FIELDS, 429, 502),
    )
    async def transcriptions(request: Request) -> Response:  # noqa: ARG001 - the relay reads it
        return Relay(door, route="/v1/audio/transcriptions", task="transcribe")

    @app.post(
        "/v1/audio/translations",
        response_class=Response,
        **describe_form("Translate speech into English", COMMON_FIELDS, 429, 502),
    )
    async def translations(request: Request) -> Response:  # noqa: ARG001
        return Relay(door, route="/v1/audio/translations", task="translate")

    @app.post("/v1/transcribe", **describe_pcm(429, 502))
    async def transcribe(request: Request) -> Response:  # noqa: ARG001
        return Relay(door, route="/v1/transcribe", task=None)


def _add_realtime(app: FastAPI, door: Door) -> None:
    app.router.routes.append(WebSocketRoute("/v1/realtime", realtime_endpoint(door)))

    @app.get("/v1/realtime", response_class=Response, **describe_realtime())
    async def realtime() -> Response:
        return _tell(UpgradeRequired())


def _add_models(app: FastAPI, door: Door, router: Router) -> None:
    @app.get("/v1/models", responses=errors(401, 503))
    async def models(request: Request) -> ModelList:
        tell_limits(request.scope, door.caller(request.headers.get("authorization", "")))
        return ModelList(object="list", data=models_in(await router.read_all()))

    @app.get("/v1/models/{name:path}", responses=errors(401, 404, 503))
    async def model(name: str, request: Request) -> Model:
        tell_limits(request.scope, door.caller(request.headers.get("authorization", "")))
        return model_named(name, await router.read_all())


def _add_probes(app: FastAPI, door: Door, router: Router, metrics_page: MetricsPage | None) -> None:
    @app.get("/livez", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def livez() -> Response:
        return Response("alive\n", media_type="text/plain")

    @app.get("/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        snapshot = router.snapshot
        if door.admission.is_draining:
            state = "draining"
        else:
            state = "waiting for the registry" if snapshot is None else "ready"
        response.status_code = 200 if state == "ready" else 503
        return Readiness(state=state, registry_frozen=snapshot is not None and snapshot.frozen)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        page, content_type = metrics_page() if metrics_page else (b"", "text/plain")
        return Response(page, headers={"content-type": content_type})


def _tell(error: EverwarmError) -> Response:
    return JSONResponse(error_body(error), status_code=http_error(error).status, headers=error_headers(error))


async def _tell_ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, EverwarmError)
    return _tell(error)


async def _tell_no_route(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: paths and methods nobody handles."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        response = _tell(MethodNotAllowed(request.method, path))
        response.headers.update(error.headers or {})  # `allow`
        return response
    return _tell(RouteNotFound(path))


async def _tell_defect(request: Request, error: Exception) -> Response:
    """The edge: whatever it is, the caller gets an answer; the server logs the trace."""
    log.error("request.failed", path=request.url.path[:200], exc_info=error)
    return _tell(InternalError("an internal error; the gateway's log tells more"))


def _observe(door: Door, router: Router) -> None:
    """Gauges of the sessions and of the snapshot in use. One process has one gateway, so they are never taken back."""

    def age(_: CallbackOptions) -> Iterable[Observation]:
        if (snapshot := router.snapshot) is not None:
            yield Observation(time.monotonic() - snapshot.taken_at)

    def warm(_: CallbackOptions) -> Iterable[Observation]:
        if (snapshot := router.snapshot) is not None:
            for (name, language), leases in snapshot.by_key.items():
                yield Observation(len(leases), {Attribute.MODEL: name, Attribute.LANGUAGE: language})

    def sessions(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(len(door.sessions))

    telemetry.gauge(telemetry.REALTIME_SESSIONS, sessions)
    telemetry.gauge(telemetry.REGISTRY_AGE, age)
    telemetry.gauge(telemetry.WARM_PODS, warm)
