"""What is done to every request of the gateway, whatever route it takes: an id, an orderly end of its connection, and
the limits of its caller's key on the answer, be it a transcript or an error.

While the gateway drains each answer is the last of its connection: a client that keeps connections would else come back
over this one, to be refused until the process ends, and not reach another gateway behind the same address.
"""

from collections.abc import Callable
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from everwarm.gateway.limits import Limited
from everwarm_core.http.connection import WatchedConnection
from everwarm_core.http.headers import REQUEST_ID_HEADER, sane_request_id

_SCOPE_KEY: Final = "everwarm.request_id"
_LIMITED: Final = "everwarm.limited"


def request_id_of(scope: Scope) -> str:
    """The id that the edge gave the request in *scope*."""
    request_id = scope[_SCOPE_KEY]
    assert isinstance(request_id, str)
    return request_id


def tell_limits(scope: Scope, limited: Limited) -> None:
    """Let the answer to the request in *scope* carry the limits of *limited*, as they are when it begins."""
    scope[_LIMITED] = limited


class Edge:
    """The ASGI middleware around *app*. is_draining: whether the gateway shuts down."""

    def __init__(self, app: ASGIApp, is_draining: Callable[[], bool]) -> None:
        self._app = app
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = scope[_SCOPE_KEY] = sane_request_id(headers.get(REQUEST_ID_HEADER, ""))

        def answer_headers(_status: int) -> dict[str, str]:
            limited: Limited | None = scope.get(_LIMITED)
            told = {REQUEST_ID_HEADER: request_id, **(limited.headers() if limited else {})}
            return {**told, "connection": "close"} if self._is_draining() else told

        connection = WatchedConnection(headers, receive, send, answer_headers=answer_headers)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, connection.receive, connection.send)
