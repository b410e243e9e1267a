"""WebSockets under uvicorn: its protocol with the bound it lacks, and one connection as ASGI shows it.

A client that stops reading keeps the server's last bytes in the socket's buffer for as long as it likes; uvicorn closes
such a connection politely and so never. Here it is aborted after a while. One that sends too much is closed by uvicorn at
once, which hides the close code; here the rest is read away first. Messages are bounded by `MAX_MESSAGE_BYTES` (close
code 1009), and are not compressed: that costs some 70 KB a connection for base64 that hardly shrinks. Members that serve
ask for uvicorn and websockets themselves.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from everwarm_core.errors import EverwarmError, InvalidEvent, http_error
from everwarm_core.openai_errors import error_body, error_headers
from everwarm_core.realtime.events import MAX_EVENT_CHARS
from everwarm_core.realtime.session import SocketClosed
from everwarm_core.requests import MAX_MODEL_CHARS

LINGER_S: Final = 5.0
MAX_QUERY_FIELDS: Final = 64
MAX_MESSAGE_BYTES: Final = MAX_EVENT_CHARS
PING_S: Final = 20.0
"""Between two pings, and the time in which each must be answered."""

UVICORN: Final[Mapping[str, Any]] = {
    "ws_max_size": MAX_MESSAGE_BYTES,
    "ws_per_message_deflate": False,
    "ws_ping_interval": PING_S,
    "ws_ping_timeout": PING_S,
}
"""What `uvicorn.Config` is told besides the protocol."""

Message = MutableMapping[str, Any]  # as ASGI has it


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """Does not wait for ever until a client has read the end."""

    async def send(self, message: Any) -> None:
        """As uvicorn's, which takes a handshake that was answered over HTTP for one that was forgotten, and logs an error."""
        await super().send(message)
        self.handshake_complete |= self.close_sent

    def handle_parser_exception(self) -> None:
        """A message was malformed or too large: the client is told why, and what it is still sending is read away.

        A socket closed over unread bytes is reset, and then the client would never see the close code.
        """
        if self.close_sent:
            return
        assert self.conn.close_sent is not None
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """The application is done with the connection."""
        super().on_task_complete(task)
        self.loop.call_later(LINGER_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """A ping was not answered."""
        super().keepalive_timeout()
        self.loop.call_later(LINGER_S, self.transport.abort)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client of `/v1/realtime` says when it connects.

    model: of the query, None when none is named there; authorization: the header, or None; subprotocol: `realtime` where
    the client offers it, as browsers must.
    """

    model: str | None
    authorization: str | None
    subprotocol: str | None

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> "Handshake":
        """Read from an ASGI *scope*; what is malformed counts as absent."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=MAX_QUERY_FIELDS)
        except ValueError:
            query = {}
        (model, *_) = query.get("model", [""])
        return cls(
            model=model[:MAX_MODEL_CHARS] or None,
            authorization=headers.get(b"authorization"),
            subprotocol="realtime" if "realtime" in scope.get("subprotocols", ()) else None,
        )


class AsgiSocket:
    """A WebSocket connection by its *receive* and *send*: refused or accepted once, then used as a `Socket`."""

    def __init__(
        self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self._receive = receive
        self._send = send
        self._is_closed = False

    async def refuse(self, error: EverwarmError) -> None:
        """Answer the handshake with *error* over HTTP."""
        await self._receive()
        told = {**error_headers(error), "content-type": "application/json"}
        start = {
            "type": "websocket.http.response.start",
            "status": http_error(error).status,
            "headers": _raw(told),
        }
        body = {"type": "websocket.http.response.body", "body": json.dumps(error_body(error)).encode()}
        for message in (start, body):
            await self._out(message)

    async def accept(self, *, subprotocol: str | None = None) -> None:
        """Answer the handshake."""
        await self._receive()
        await self._out({"type": "websocket.accept", "subprotocol": subprotocol})

    async def receive(self) -> str:
        """See Socket."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._is_closed = True
            raise SocketClosed
        text = message.get("text")
        if not isinstance(text, str):
            raise InvalidEvent("the message is binary; events are JSON text")
        return text

    async def send(self, text: str) -> None:
        """See Socket."""
        await self._out({"type": "websocket.send", "text": text})

    async def close(self, code: int, reason: str) -> None:
        """See Socket."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except (OSError, RuntimeError):
            return

    async def _out(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # uvicorn's ways to say that the client is gone
            self._is_closed = True
            raise SocketClosed from error


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
