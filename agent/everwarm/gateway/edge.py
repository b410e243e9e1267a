"""What is done to every request of the gateway, whatever route it takes: an id, and an orderly end.

An answer that comes before the body was read must neither reset the connection, or many clients never see it, nor
wait for megabytes nobody wants. So a small rest is left to the server to swallow and the connection lives on; a large
one is read and thrown away for a moment after the answer is out, and then the connection is closed.
"""

import asyncio
import re
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everwarm.dispatch import REQUEST_ID_HEADER

LINGER_S: Final = 5.0  # enough for 25 MiB at 40 Mbit/s; a guess
SWALLOWED_BYTES: Final = 1 << 20  # 30 s of PCM; more is cheaper to refuse by closing

_SCOPE_KEY: Final = "everwarm.request_id"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The id that the edge gave the request in *scope*."""
    request_id = scope[_SCOPE_KEY]
    assert isinstance(request_id, str)
    return request_id


class Edge:
    """The ASGI middleware around *app*."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        scope[_SCOPE_KEY] = given if _SANE_ID.fullmatch(given) else f"req_{uuid4().hex}"
        connection = _Connection(headers, scope[_SCOPE_KEY], receive, send)
        with structlog.contextvars.bound_contextvars(request_id=scope[_SCOPE_KEY]):
            await self._app(scope, connection.receive, connection.send)


class _Connection:
    """One request's `receive` and `send`, watched."""

    def __init__(self, headers: Headers, request_id: str, receive: Receive, send: Send) -> None:
        self._headers = headers
        self._request_id = request_id
        self._receive = receive
        self._send = send
        self._is_body_begun = False
        self._is_body_read = False
        self._is_closing = False

    async def receive(self) -> Message:
        self._is_body_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_body_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers[REQUEST_ID_HEADER] = self._request_id
            self._is_closing = self._leaves_too_much_unread()
            if self._is_closing:
                headers["connection"] = "close"
            await self._send(message)
        elif self._is_closing and not message.get("more_body", False) and not self._waits_for_100():
            # `content-length` is out, so the client has its whole answer; the empty last piece closes.
            await self._send({**message, "more_body": True})
            await self._discard_body()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    def _leaves_too_much_unread(self) -> bool:
        if self._is_body_read:
            return False
        length = self._headers.get("content-length", "0")
        if "transfer-encoding" in self._headers or not length.isdecimal():
            return True
        if int(length) == 0:
            return False
        # A body given up in the middle was too large or too slow: no patience for its rest.
        return self._is_body_begun or self._waits_for_100() or int(length) > SWALLOWED_BYTES

    def _waits_for_100(self) -> bool:
        """Whether the client has not begun its body yet; reading on would ask for it."""
        return not self._is_body_begun and self._headers.get("expect", "").lower() == "100-continue"

    async def _discard_body(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while not self._is_body_read:
                    await self.receive()
        except TimeoutError:
            return
