"""uvicorn's httptools protocol with two bounds it lacks, how large a request's head may be and how long it may take,
and with a note of when each request began.

Without them a stranger who never finishes a header line costs memory and a connection for as long as he likes. Bodies
are bounded where they are read. Members that serve ask for uvicorn and httptools themselves.
"""

import asyncio
import time
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BEGAN: Final = "everwarm.began"
"""Key in the scope's `state`: `time.perf_counter()` of the request's first byte."""

HEAD_BYTES: Final = 65_536  # h11's default; a prompt in a query is the longest honest head
HEAD_TIMEOUT_S: Final = 20.0  # a guess, generous to the slowest honest client


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 400 to heads that are too large, and closes connections whose head does not come."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first bytes of a head, on a new connection or on one kept alive."""
        super().on_message_begin()
        self.scope["state"][BEGAN] = time.perf_counter()
        self._head_bytes = 0
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what arrived while the head was incomplete counts against it."""
        super().data_received(data)
        if self._head_timer is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._stop_timer()
                self.send_400_response("Request head too large.")

    def _await_head(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
