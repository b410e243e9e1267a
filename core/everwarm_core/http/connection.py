"""One request's `receive` and `send`, watched: what was read of the body, and how the answer begins and ends.

An answer that comes before the body was read must neither reset the connection, or many clients never see it, nor
wait for megabytes that nobody wants. So a small rest is left to the server to swallow and the connection lives on; a
large one is read and thrown away for a moment after the answer is out, and then the connection is closed; a client
that waits for `100 Continue` is spared the upload.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]  # as ASGI has it
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LINGER_S: Final = 5.0  # enough for 25 MiB at 40 Mbit/s; a guess
SWALLOWED_BYTES: Final = 1 << 20  # 30 s of PCM; more is cheaper to refuse by closing


class WatchedConnection:
    """Stands between a server and an ASGI application for one request.

    headers: the request's, by lower-case name; answer_headers: called with the status when the answer begins, returns
    headers that replace those of the same name.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        receive: Receive,
        send: Send,
        *,
        answer_headers: Callable[[int], Mapping[str, str]],
    ) -> None:
        self.status = 0
        """Of the answer; 0 until it has begun."""
        self._headers = headers
        self._receive = receive
        self._send = send
        self._answer_headers = answer_headers
        self._is_body_begun = False
        self._is_body_read = False
        self._is_closing = False

    async def receive(self) -> Message:
        """ASGI's receive."""
        self._is_body_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_body_read = True
        return message

    async def send(self, message: Message) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._is_closing = self._leaves_too_much_unread()
            given = dict(self._answer_headers(self.status))
            if self._is_closing:
                given["connection"] = "close"
            kept = [
                pair for pair in message.get("headers", ()) if pair[0].decode("latin-1").lower() not in given
            ]
            added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
            await self._send({**message, "headers": [*kept, *added]})
        elif self._is_closing and not message.get("more_body", False) and not self._waits_for_100():
            # `content-length` is out, so the client has its whole answer; the empty last piece closes.
            await self._send({**message, "more_body": True})
            await self._discard_body()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    def _leaves_too_much_unread(self) -> bool:
        """Whether the connection is better closed than kept until the rest of the body has come."""
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
