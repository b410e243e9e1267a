"""The first and last to touch a request: identity, token, trace, metrics, and every failure as an OpenAI error.

An ASGI middleware between Starlette's own outermost one and the routes, so that nothing below needs to catch or to
count anything: handlers raise errors of `everwarm_core.errors`, and whatever else they raise is a defect, logged with
its trace and answered 500. It also decides what becomes of a body that an early answer leaves unread. Closing a
connection with bytes in flight resets it, and many clients then never see the answer; so a small body is swallowed by
the server and the connection lives on, a large one is read and thrown away for a moment after the answer is out, and
a client that waits for `100 Continue` is spared the upload.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everwarm_core import telemetry
from everwarm_core.errors import CapacityError, EverwarmError, InternalError, http_error
from everwarm_core.openai_errors import POD_HEADER, error_headers, error_json
from everwarm_core.telemetry import Attribute
from everwarm_stt.pod import Pod
from everwarm_stt.server.body import ClientLeft
from everwarm_stt.server.instruments import Instruments
from everwarm_stt.server.tokens import Tokens

REQUEST_ID_HEADER: Final = "x-request-id"
INFLIGHT_HEADER: Final = "x-everwarm-inflight"
SLOTS_HEADER: Final = "x-everwarm-slots"

CLIENT_LEFT_STATUS: Final = 499  # nginx's code; nobody reads it but our own metrics
LINGER_S: Final = 5.0  # enough for 25 MiB at 40 Mbit/s; a guess
SWALLOWED_BYTES: Final = 1 << 20  # 30 s of PCM; more is cheaper to refuse by closing

_ACCOUNT: Final = "everwarm.account"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
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
    status: int = 0
    is_body_begun: bool = False
    is_body_read: bool = False
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
        account = Account(_request_id(headers), time.perf_counter(), is_rehearsal=is_rehearsal(scope))
        scope[_ACCOUNT] = account
        connection = _Connection(self.pod, account, headers, receive, send)
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
                telemetry.answered(span, account.status)
                self._count(method, route, account)

    async def _serve(self, scope: Scope, connection: "_Connection") -> None:
        try:
            if (tokens := self.tokens()) is not None and scope["path"].startswith("/v1/"):
                tokens.check(Headers(scope=scope).get("authorization"))
            await self.app(scope, connection.receive, connection.send)
        except ClientLeft:
            connection.account.status = CLIENT_LEFT_STATUS
            log.info("request.abandoned", path=scope["path"])
        except EverwarmError as error:
            self._note(error)
            await self._tell(error, scope, connection)
        except Exception:  # the edge: whatever it is, the caller gets an answer and the log its trace
            log.exception("request.failed", path=scope["path"])
            request_id = connection.account.request_id
            defect = InternalError(f"an internal error; the log tells more under request id {request_id!r}")
            await self._tell(defect, scope, connection)

    async def _tell(self, error: EverwarmError, scope: Scope, connection: "_Connection") -> None:
        if connection.account.status:  # too late for another status line: only the end of the answer can tell
            raise ConnectionAbortedError("the answer had begun") from error
        await error_response(error)(scope, connection.receive, connection.send)

    def _note(self, error: EverwarmError) -> None:
        code = http_error(error).code
        if isinstance(error, CapacityError):
            self.instruments.refusals.add(
                1, {Attribute.MODEL: self.pod.settings.model, Attribute.REFUSAL: code}
            )
        log.info("request.refused", code=code, param=error.param)

    def _count(self, method: str, route: str, account: Account) -> None:
        if account.is_rehearsal:
            return
        self.instruments.request.record(
            time.perf_counter() - account.began,
            {"http.request.method": method, "http.route": route, "http.response.status_code": account.status},
        )


class _Connection:
    """One request's `receive` and `send`, watched: what of the body was read, and how the answer begins and ends."""

    def __init__(self, pod: Pod, account: Account, headers: Headers, receive: Receive, send: Send) -> None:
        self.account = account
        self._pod = pod
        self._headers = headers
        self._receive = receive
        self._send = send
        self._is_closing = False

    async def receive(self) -> Message:
        self.account.is_body_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.account.is_body_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.account.status = message["status"]
            self._is_closing = self._leaves_too_much_unread()
            self._add_headers(MutableHeaders(raw=message.setdefault("headers", [])))
            await self._send(message)
        elif self._is_closing and not message.get("more_body", False) and not self._waits_for_100():
            # `content-length` is out, so the client has its whole answer; the last empty chunk closes.
            await self._send({**message, "more_body": True})
            await self._discard_body()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        admission = self._pod.admission
        headers[REQUEST_ID_HEADER] = self.account.request_id
        headers[POD_HEADER] = self._pod.settings.pod_id
        headers[INFLIGHT_HEADER] = str(admission.inflight)
        headers[SLOTS_HEADER] = str(admission.capacity.slots)
        headers["server-timing"] = self.account.server_timing()
        if self._is_closing or admission.is_draining:
            headers["connection"] = "close"

    def _leaves_too_much_unread(self) -> bool:
        """Whether the connection is better closed than kept until the rest of the body has come."""
        if self.account.is_body_read:
            return False
        length = self._headers.get("content-length", "0")
        if "transfer-encoding" in self._headers or not length.isdecimal():
            return True
        if int(length) == 0:
            return False
        # A body given up in the middle was too large or too slow: no patience for its rest.
        return self.account.is_body_begun or self._waits_for_100() or int(length) > SWALLOWED_BYTES

    def _waits_for_100(self) -> bool:
        """Whether the client has not begun its body yet; reading on would ask for it."""
        return not self.account.is_body_begun and self._headers.get("expect", "").lower() == "100-continue"

    async def _discard_body(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while not self.account.is_body_read:
                    await self.receive()
        except TimeoutError:
            return


def mark_rehearsal(scope: Scope) -> None:
    """Make *scope* one of the pod's own: served before the pod is warm, and counted nowhere."""
    scope["everwarm.rehearsal"] = True


def is_rehearsal(scope: Scope) -> bool:
    """Whether the pod itself asks; no client can set this."""
    return scope.get("everwarm.rehearsal") is True


def _request_id(headers: Headers) -> str:
    """The caller's id when it is harmless in logs and headers, else a new one."""
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _SANE_ID.fullmatch(given) else uuid4().hex


def _route(path: str) -> str:
    if path in _ROUTES:
        return path
    return "/v1/models/{id}" if path.startswith("/v1/models/") else "(unknown)"


log = structlog.stdlib.get_logger(__name__)
