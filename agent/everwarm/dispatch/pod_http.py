"""One POST to a pod or a gateway, over pooled connections."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import aiohttp
from yarl import URL

from everwarm.credentials import SecretFile
from everwarm.deadline import Deadline
from everwarm.dispatch.exchange import Answer, Body, Call
from everwarm_core import telemetry
from everwarm_core.errors import PodFailed, PodUnreachable
from everwarm_core.http.headers import DEADLINE_HEADER, POD_HEADER

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

CONNECT_TIMEOUT_S: Final = 1.0  # pods are in the same cluster; a node that is gone does not even refuse
KEEPALIVE_S: Final = 20.0  # pods close after 75 s, so the agent is always the first
EXPECT_FROM_BYTES: Final = (
    262_144  # 8 s of PCM; below that the round trip costs more than a body sent in vain
)
MAX_ANSWER_BYTES: Final = 1 << 26  # a day of speech with word times is about 30 MB
MAX_ERROR_BYTES: Final = 65_536
PIECE_BYTES: Final = 262_144

_NO_CONNECTION: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class PodHttp:
    """Pooled connections to pods, or to one gateway, and a single POST over them.

    token: file with the internal token; api_key: shown instead of it, to a gateway. Opened by `start`.
    """

    def __init__(self, *, token: SecretFile | None = None, api_key: str | None = None) -> None:
        self._token = token
        self._api_key = api_key
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool; nothing is connected yet."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Pool(),
                # Only connecting is bounded here; an attempt has its own bound.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )

    async def aclose(self) -> None:
        """Close the pool and whatever is still under way on it."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(
        self,
        base_url: str,
        call: Call,
        *,
        pod: str,
        deadline: Deadline,
        stack: AsyncExitStack,
        attempts: int = 1,
    ) -> Answer:
        """POST *call* to *base_url*; returns whatever status comes, its body read unless it is an event stream.

        A stream stays open until *stack* is left. Raises PodFailed (named *pod*) when no answer comes whole, and the
        body's own error when it broke off. Waits without end: the caller holds a `Patience` around it.
        """
        headers = self._headers(call, deadline)
        with telemetry.client_span("POST", base_url + call.path.partition("?")[0]) as span:
            telemetry.put_trace(span, headers)
            try:
                answer = await self._post(URL(base_url + call.path, encoded=True), call, headers, stack)
            except (TimeoutError, OSError, aiohttp.ClientError) as error:
                if call.body.error is not None:
                    raise call.body.error from error
                span.set_attribute("error.type", type(error).__name__)
                failed = PodUnreachable if isinstance(error, _NO_CONNECTION) else PodFailed
                raise failed(pod, f"{type(error).__name__}: {error}".rstrip(": ")) from error
            telemetry.answered(span, answer.status)
        return replace(answer, pod=answer.headers.get(POD_HEADER, pod), attempts=attempts)

    async def _post(self, url: URL, call: Call, headers: dict[str, str], stack: AsyncExitStack) -> Answer:
        assert self._session is not None, "start() comes first"
        connection = _Lent()
        _lent.set(connection)
        size = call.body.size
        is_dear = size is None or size >= EXPECT_FROM_BYTES
        while True:
            try:
                response = await self._session.post(
                    url,
                    data=_payload(call.body),
                    headers=headers,
                    expect100=is_dear,
                    allow_redirects=False,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # A pod may close a kept-alive connection just as we write to it. A fresh one tells the truth.
                if connection.was_reused and call.body.error is None:
                    connection.was_reused = False
                    continue
                raise
            break
        with ExitStack() as cleanup:
            cleanup.callback(response.close)  # cancellation in here must not leave the body on the wire
            if response.status < 400 and response.content_type == "text/event-stream":
                stack.push(cleanup.pop_all())
                return Answer(response.status, response.headers, "", 1, None, response.content.iter_any())
            limit = MAX_ANSWER_BYTES if response.status < 400 else MAX_ERROR_BYTES
            body = await _read(response.content, limit)
            if not is_dear:
                # The body is out, so the connection can be used again; else closing it stops the upload.
                cleanup.pop_all()
                response.release()
        return Answer(response.status, response.headers, "", 1, body)

    def _headers(self, call: Call, deadline: Deadline) -> dict[str, str]:
        headers = dict(call.headers)
        headers["accept-encoding"] = "identity"
        headers[DEADLINE_HEADER] = str(max(1, round(deadline.remaining_s() * 1000)))
        if call.body.size is not None:
            headers["content-length"] = str(call.body.size)
        secret = self._api_key or (self._token.first() if self._token else None)
        if secret:
            headers["authorization"] = f"Bearer {secret}"
        return headers


@dataclass(slots=True)
class _Lent:
    """What is known of the connection that a request was given."""

    was_reused: bool = False


_lent: ContextVar[_Lent] = ContextVar("_lent")


class _Pool(aiohttp.TCPConnector):
    """Tells the request in `_lent` whether its connection was used before; tracing would, for 0.15 ms a request."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEPALIVE_S)
        self._used: WeakSet[object] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> "Connection":
        """See BaseConnector."""
        connection = await super().connect(req, traces, timeout)
        _lent.get().was_reused = connection.protocol in self._used
        self._used.add(connection.protocol)
        return connection


def _payload(body: Body) -> bytes | memoryview | AsyncIterator[bytes | memoryview]:
    """*body* for aiohttp, which writes bytes in one go: large ones in pieces, so that other tasks get their turn."""
    whole = body.open()
    if isinstance(whole, bytes | memoryview) and len(whole) > PIECE_BYTES:
        return _pieces(memoryview(whole))
    return whole


async def _pieces(data: memoryview) -> AsyncIterator[memoryview]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


async def _read(content: aiohttp.StreamReader, limit: int) -> bytes:
    """All of *content*; raises ClientPayloadError beyond *limit* bytes, as when it breaks off."""
    pieces, size = [], 0
    async for piece in content.iter_any():
        size += len(piece)
        if size > limit:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)
