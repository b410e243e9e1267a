"""The first and last to touch a request: identity, token, trace, metrics, and every failure as an OpenAI error.

An ASGI middleware between Starlette's own outermost one and the routes, so that nothing below needs to catch or to
count anything: handlers raise errors of `everwarm_core.errors`, and whatever else they raise is a defect, logged with
its trace and answered 500.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from everwarm_core import telemetry
from everwarm_core.errors import CapacityError, EverwarmError, InternalError, http_error
from everwarm_core.http.connection import WatchedConnection
from everwarm_core.http.headers import (
    INFLIGHT_HEADER,
    POD_HEADER,
    REQUEST_ID_HEADER,
    SLOTS_HEADER,
    sane_request_id,
)
from everwarm_core.http.protocol import BEGAN
from everwarm_core.openai_errors import error_headers, error_json
from everwarm_core.telemetry import Attribute
from everwarm_stt.pod import Pod
from everwarm_stt.server.body import ClientLeft
from everwarm_stt.server.instruments import Instruments
from everwarm_stt.server.tokens import Tokens

CLIENT_LEFT_STATUS: Final = 499  # nginx's code; nobody reads it but our own metrics

_ACCOUNT: Final = "everwarm.account"
_QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})  # asked every second, by nobody who traces
_ROUTES: Final = frozenset(
    {
        "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/transcribe", "/v1/models", "/openapi.json",
        *_QUIET,
    }
)  # fmt: skip
_METHODS: Final = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})


@dataclass(slots=True)
class Account:
    """What is known of one request while it is served; durations in seconds."""

    request_id: str
    began: float
    queue_s: float = 0.0
    decode_s: float = 0.0
    is_rehearsal: bool = False

    def server_timing(self) -> str:
        """The `server-timing` header: milliseconds of waiting, decoding, and all so far."""
        total_s = time.perf_counter() - self.began
        return (
            f"queue;dur={self.queue_s * 1000:.1f}, decode;dur={self.decode_s * 1000:.1f},"
            f" total;dur={total_s * 1000:.1f}"
        )


def account_of(scope: Scope) -> Account:
    """The account of the request in *scope*, opened by the edge."""
    account = scope[_ACCOUNT]
    assert isinstance(account, Account)
    return account


def error_response(error: EverwarmError) -> Response:
    """The answer that tells *error*."""
    return Response(
        error_json(error),
        status_code=http_error(error).status,
        headers=error_headers(error),
        media_type="application/json",
    )


@dataclass(frozen=True, slots=True)
class Edge:
    """The middleware; tokens is None where no token is asked for."""

    app: ASGIApp
    pod: Pod
    instruments: Instruments
    tokens: Callable[[], Tokens | None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; never raises for what a handler raised, unless its answer had begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        route = _route(scope["path"])
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        request_id = sane_request_id(headers.get(REQUEST_ID_HEADER, ""))
        began = (
            scope.get("state", {}).get(BEGAN) or time.perf_counter()
        )  # a rehearsal comes through no protocol
        account = Account(request_id, began, is_rehearsal=is_rehearsal(scope))
        scope[_ACCOUNT] = account
        answer_headers = partial(self._answer_headers, account)
        connection = WatchedConnection(headers, receive, send, answer_headers=answer_headers)
        if route in _QUIET:
            await self._serve(scope, connection)
            return
        with (
            structlog.contextvars.bound_contextvars(request_id=account.request_id),
            telemetry.server_span(method, route, headers) as span,
        ):
            span.set_attributes(
                {Attribute.REQUEST_ID: account.request_id, Attribute.POD: self.pod.settings.pod_id}
            )
            try:
                await self._serve(scope, connection)
            finally:
                telemetry.answered(span, connection.status)
                self._count(method, route, account, connection.status)

    async def _serve(self, scope: Scope, connection: WatchedConnection) -> None:
        try:
            if (tokens := self.tokens()) is not None and scope["path"].startswith("/v1/"):
                tokens.check(Headers(scope=scope).get("authorization"))
            await self.app(scope, connection.receive, connection.send)
        except ClientLeft:
            connection.status = CLIENT_LEFT_STATUS
            log.info("request.abandoned", path=scope["path"])
        except EverwarmError as error:
            self._note(error)
            await self._tell(error, scope, connection)
        except Exception:  # the edge: whatever it is, the caller gets an answer and the log its trace
            log.exception("request.failed", path=scope["path"])
            request_id = account_of(scope).request_id
            defect = InternalError(f"an internal error; the log tells more under request id {request_id!r}")
            await self._tell(defect, scope, connection)

    async def _tell(self, error: EverwarmError, scope: Scope, connection: WatchedConnection) -> None:
        if connection.status:  # too late for another status line: only the end of the answer can tell
            raise ConnectionAbortedError("the answer had begun") from error
        await error_response(error)(scope, connection.receive, connection.send)

    def _answer_headers(self, account: Account, _status: int) -> dict[str, str]:
        admission = self.pod.admission
        headers = {
            REQUEST_ID_HEADER: account.request_id,
            POD_HEADER: self.pod.settings.pod_id,
            INFLIGHT_HEADER: str(admission.inflight),
            SLOTS_HEADER: str(admission.capacity.slots),
            "server-timing": account.server_timing(),
        }
        return {**headers, "connection": "close"} if admission.is_draining else headers

    def _note(self, error: EverwarmError) -> None:
        code = http_error(error).code
        if isinstance(error, CapacityError):
            self.instruments.refusals.add(
                1, {Attribute.MODEL: self.pod.settings.model, Attribute.REFUSAL: code}
            )
        log.info("request.refused", code=code, param=error.param)

    def _count(self, method: str, route: str, account: Account, status: int) -> None:
        if account.is_rehearsal:
            return
        self.instruments.request.record(
            time.perf_counter() - account.began,
            {"http.request.method": method, "http.route": route, "http.response.status_code": status},
        )


def mark_rehearsal(scope: Scope) -> None:
    """Make *scope* one of the pod's own: served before the pod is warm, and counted nowhere."""
    scope["everwarm.rehearsal"] = True


def is_rehearsal(scope: Scope) -> bool:
    """Whether the pod itself asks; no client can set this."""
    return scope.get("everwarm.rehearsal") is True


def _route(path: str) -> str:
    if path in _ROUTES:
        return path
    return "/v1/models/{id}" if path.startswith("/v1/models/") else "(unknown)"


log = structlog.stdlib.get_logger(__name__)
