"""What is done to every request of the gateway, whatever route it takes: an id, and an orderly end of its connection."""

from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from everwarm_core.http.connection import WatchedConnection
from everwarm_core.http.headers import REQUEST_ID_HEADER, sane_request_id

_SCOPE_KEY: Final = "everwarm.request_id"


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
        request_id = scope[_SCOPE_KEY] = sane_request_id(headers.get(REQUEST_ID_HEADER, ""))
        connection = WatchedConnection(
            headers, receive, send, answer_headers=lambda _status: {REQUEST_ID_HEADER: request_id}
        )
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, connection.receive, connection.send)
