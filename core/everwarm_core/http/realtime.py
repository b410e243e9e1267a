"""`GET /v1/realtime` as an ASGI application, the same for pods and the gateway: who may come in, and the session after it.

Refusals are answers to the handshake, over HTTP and in OpenAI's shape. What differs is who transcribes, and for whom:
`welcome` says so, or raises the refusal.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from everwarm_core.errors import EverwarmError
from everwarm_core.http.websocket import AsgiSocket, Handshake, Message
from everwarm_core.realtime.listener import Transcriber, Wish
from everwarm_core.realtime.session import SocketClosed
from everwarm_core.realtime.sessions import Sessions


@dataclass(frozen=True, slots=True)
class RealtimeEndpoint:
    """The application. welcome: the transcriber for a client; raises EverwarmError for who may not come in."""

    sessions: Sessions
    welcome: Callable[[Handshake], Transcriber]

    async def __call__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one connection to its end."""
        handshake, socket = Handshake.of(scope), AsgiSocket(receive, send)
        try:
            try:
                transcriber = self.welcome(handshake)
                self.sessions.ensure_room()
                if handshake.model is not None:
                    transcriber.check(Wish(handshake.model))
            except EverwarmError as error:
                await socket.refuse(error)
                return
            await socket.accept(subprotocol=handshake.subprotocol)
            await self.sessions.serve(socket, transcriber, model=handshake.model)
        except SocketClosed:
            return
