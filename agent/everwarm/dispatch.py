"""Sends one utterance to a pod and brings its answer back; what fails on the way is tried on another pod.

Both `Client` and the gateway use it. The body stays replayable until an answer has begun, so a pod that refuses,
dies, hangs or answers nonsense costs a retry, not the utterance:

- full or draining: said before the body is read; the next pod at once, and when all were asked, a short wait in line for
  a place to come free, until the caller's deadline. Then the pods' own 503 is the caller's answer. Whoever comes later
  stands behind those who wait.
- dead, cut off, hung, 5xx: another pod, within the retry budget, at most `MAX_FAILURES` times for one utterance, for
  it may be the utterance that kills them. A pod that cannot even be connected to was not killed by it, and does not
  count. A pod has hung when it takes a multiple of the time expected, or when the registry has lost it while its
  answer is awaited.
- unusually slow: another pod is asked beside it, on an idle slot only and within the same budget; whoever answers first
  is believed. A hung pod then costs a second and not eight. Nothing new is sent to the slow one meanwhile, and when its
  heartbeats are missing too, it has hung.
- a kept-alive connection that turns out dead says nothing about the pod; the same pod is asked again.
- any other 4xx is the caller's answer.

Whole answers are read to the end before they count, so a pod may die in the middle of one. Event streams are handed
over as they come and cannot be repeated once their first byte is out.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from itertools import count
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDictProxy
from opentelemetry.trace import Span
from yarl import URL

from everwarm.credentials import SecretFile
from everwarm.deadline import Deadline
from everwarm.routing.budget import RetryBudget
from everwarm.routing.line import Turn
from everwarm.routing.router import Route, Router, Wish
from everwarm_core import telemetry
from everwarm_core.errors import (
    CapacityError,
    DeadlineExceeded,
    EverwarmError,
    InternalError,
    ModelNotFound,
    ModelNotWarm,
    PodDraining,
    PodFailed,
    PodUnreachable,
    Unauthorized,
    http_error,
)
from everwarm_core.http.headers import (
    DEADLINE_HEADER,
    IDLE_HEADER,
    INFLIGHT_HEADER,
    POD_HEADER,
    SLOTS_HEADER,
)
from everwarm_core.openai_errors import error_from_response
from everwarm_core.telemetry import Attribute, SpanName

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

MAX_FAILURES: Final = 3  # for one utterance
SAME_POD_AFTER_S: Final = 1.0  # when every pod has failed, the first may be asked again after this
HANG_FLOOR_S: Final = 8.0  # generous: a wrongly given-up decode is work done twice
HANG_UNKNOWN_S: Final = 20.0  # nothing measured yet on that pod
HANG_FACTOR: Final = 6.0  # times the expected seconds
DEADLINE_SHARE: Final = 0.6  # of what remains, so that time is left for another pod
HEDGE_FLOOR_S: Final = 1.0  # a garbage collection, a burst or a cold cache take less
HEDGE_FACTOR: Final = 3.0  # times the expected seconds; one in a hundred decodes takes that long
RECORDING_S: Final = 30.0
"""Longer audio is a recording: it gets its own length on top of the deadline, and only that and the registry cut it off, for
its time is hard to foresee."""
FULL_PAUSE_S: Final = (0.1, 0.3)  # jittered wait when every pod is full; a place coming free ends it sooner
"""Doubled by each that stands before it in line: many waiting utterances must not become many questions."""
DIRECT_PAUSE_S: Final = 0.2  # where the other side does not say when to come again
PIECE_BYTES: Final = 262_144

_NO_CONNECTION: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_DECODE: Final = re.compile(r"(?:^|,)\s*decode\s*(?:;[^,]*)?;\s*dur=([0-9.]+)")


class Body(Protocol):
    """A request body that can be sent more than once."""

    @property
    def size(self) -> int | None:
        """Bytes in all; None while that is unknown."""

    @property
    def error(self) -> EverwarmError | None:
        """Why the body itself will never be complete; None while nothing is wrong with it."""

    def open(self) -> bytes | memoryview | AsyncIterator[bytes]:
        """The body from its first byte."""

    def when_complete(self, tell: Callable[[], None]) -> None:
        """Call *tell* once every byte is here; at once when they are."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body that is in memory already."""

    data: bytes | memoryview

    @property
    def size(self) -> int:
        """See Body."""
        return len(self.data)

    @property
    def error(self) -> None:
        """See Body; nothing can be wrong."""
        return

    def open(self) -> bytes | memoryview:
        """See Body."""
        return self.data

    def when_complete(self, tell: Callable[[], None]) -> None:
        """See Body."""
        tell()


@dataclass(frozen=True, slots=True)
class Call:
    """One POST as any pod may get it; *path* begins with a slash and carries the query, percent-encoded."""

    path: str
    headers: Mapping[str, str]
    body: Body
    wish: Wish


@dataclass(frozen=True, slots=True)
class Answer:
    """What a pod answered: 2xx, or a 4xx that is the caller's own fault.

    body: the whole answer, or None for an event stream, which `stream` then yields as it comes.
    """

    status: int
    headers: CIMultiDictProxy[str]
    pod: str
    attempts: int
    body: bytes | None
    stream: AsyncIterator[bytes] | None = None


class Verdict(Enum):
    """What an answer means for the attempt."""

    ANSWER = auto()
    REFUSED = auto()
    """Full: ask another, this one again later."""
    CLOSED = auto()
    """Not a pod for this utterance any more: ask another."""
    FAILED = auto()


def judge(status: int, error: EverwarmError | None) -> Verdict:
    """What an answer with *status*, read back as *error* unless it is 2xx, means for the attempt."""
    match error:
        case None:
            return Verdict.ANSWER
        case PodDraining() | ModelNotWarm() | ModelNotFound():
            # A 404 from a pod the registry names: its address belongs to another pod by now.
            return Verdict.CLOSED
        case CapacityError():
            return Verdict.REFUSED
        case Unauthorized():
            # Our token, not the caller's: while it is rotated one pod may know it and another not yet.
            return Verdict.FAILED
    return Verdict.FAILED if status >= 500 else Verdict.ANSWER


def hang_bound_s(wish: Wish, expected_s: float, *, is_measured: bool, remaining_s: float) -> float:
    """Seconds after which an answer is no longer waited for, counted from the end of the body.

    expected_s: seconds foreseen, waiting included; remaining_s: what the caller has left.
    """
    if wish.audio_s > RECORDING_S:
        return remaining_s
    patience_s = max(HANG_FLOOR_S if is_measured else HANG_UNKNOWN_S, HANG_FACTOR * expected_s)
    return min(patience_s, max(DEADLINE_SHARE * remaining_s, 2 * expected_s), remaining_s)


def slow_after_s(wish: Wish, expected_s: float) -> float:
    """Seconds from the end of the body after which an answer is unusually late; never for a recording."""
    return math.inf if wish.audio_s > RECORDING_S else max(HEDGE_FLOOR_S, HEDGE_FACTOR * expected_s)


def hedge_after_s(wish: Wish, expected_s: float, *, is_measured: bool) -> float | None:
    """Seconds from the end of the body after which a second pod is asked too; None when none is.

    Without a measurement nobody knows what is slow, and of a recording twice the work would be too much.
    """
    after_s = slow_after_s(wish, expected_s)
    return after_s if is_measured and after_s < math.inf else None


class Patience:
    """How long one attempt on *pod* may still take; only ever shortened. A context manager around the attempt."""

    def __init__(self, pod: str, deadline: Deadline) -> None:
        self._pod = pod
        self._deadline = deadline
        self._timeout = asyncio.timeout(deadline.remaining_s())
        self._is_open = False
        self._why = ""

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._is_open = False
        try:
            await self._timeout.__aexit__(kind, error, where)
        except TimeoutError as out_of_time:
            if self._why:
                raise PodFailed(self._pod, self._why) from out_of_time
            raise DeadlineExceeded(
                deadline_s=self._deadline.limit_s, waiting_for=f"the answer of pod {self._pod!r}"
            ) from out_of_time

    def ends_in(self, seconds: float, why: str) -> None:
        """Give the pod up in *seconds*, unless that is later than what holds already."""
        when = asyncio.get_running_loop().time() + seconds
        holds = self._timeout.when()
        if self._is_open and not self._timeout.expired() and (holds is None or when < holds):
            self._timeout.reschedule(when)
            self._why = why


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


class Exchange(Protocol):
    """A way to have a call answered."""

    def exchange(self, call: Call, *, deadline: Deadline) -> AbstractAsyncContextManager[Answer]:
        """The answer to *call*; a stream is open inside the context only. Raises what no retry could mend."""

    async def glance(self, call: Call, *, deadline: Deadline) -> Answer | None:
        """The answer to *call* of whoever has an idle slot now; None when nobody has, or when anything goes wrong: the
        caller can do without.
        """


class Held(AbstractAsyncContextManager[Answer]):
    """The answer that *answer* brings, entered; what it left on the stack it was given is closed at the end."""

    def __init__(self, answer: Callable[[AsyncExitStack], Awaitable[Answer]]) -> None:
        self._answer = answer
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Answer:
        try:
            return await self._answer(self._stack)
        except BaseException:
            await self._stack.aclose()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, where)


class Dispatcher:
    """Sends calls to the pods that *router* chooses, again and elsewhere when it must."""

    def __init__(
        self, router: Router, http: PodHttp, *, budget: RetryBudget | None = None, rng: Random | None = None
    ) -> None:
        self._router = router
        self._http = http
        self._budget = budget or RetryBudget()
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._retries = telemetry.counter(telemetry.RETRIES)
        self._route_duration = telemetry.histogram(telemetry.ROUTE_DURATION)

    def exchange(self, call: Call, *, deadline: Deadline) -> "Held":
        """See Exchange. Raises ModelNotFound, CapacityError, PodFailed, InternalError or the body's own error."""
        self._budget.deposit()
        return Held(partial(self._answer, call, deadline))

    async def glance(self, call: Call, *, deadline: Deadline) -> Answer | None:
        """See Exchange. One try, outside the budget; how it went still says something about the pod."""
        route = self._router.choose(call.wish)
        if route is None:
            return None
        with route:
            try:
                async with AsyncExitStack() as stack:
                    answer = await self._ask(route, _idle_only(call), deadline, stack, 1)
            except EverwarmError:
                return None
        return answer if answer.status < 400 else None

    async def _answer(self, call: Call, deadline: Deadline, held: AsyncExitStack) -> Answer:
        with self._router.line.turn(call.wish.model, call.wish.language) as turn:
            return await self._answer_in_turn(turn, call, deadline, held)

    async def _answer_in_turn(
        self, turn: Turn, call: Call, deadline: Deadline, held: AsyncExitStack
    ) -> Answer:
        tried = _Tried()
        for attempt in count(1):
            with telemetry.span(SpanName.ROUTE) as span:
                async with AsyncExitStack() as stack:
                    started = time.perf_counter()
                    route = stack.enter_context(await self._next(turn, call.wish, deadline, tried))
                    self._route_duration.record(time.perf_counter() - started)
                    _describe(span, route, attempt)
                    try:
                        answer = await self._hedged(route, call, deadline, stack, attempt, tried)
                    except (CapacityError, PodFailed, InternalError, Unauthorized, ModelNotFound) as error:
                        reason = http_error(error).code
                        span.set_attribute(Attribute.REFUSAL, reason)
                        refusal = tried.last if tried.last_was_refusal else None
                        tried.note(route, error)
                        if deadline.has_passed and refusal:
                            raise refusal from error  # a 503 says more than that the last try was cut short
                        if deadline.has_passed or tried.is_enough:
                            raise
                        self._retries.add(1, {"reason": reason})
                    else:
                        if answer.stream is not None:
                            held.push_async_exit(stack.pop_all())
                        return answer
        raise AssertionError("count() does not end")

    async def _next(self, turn: Turn, wish: Wish, deadline: Deadline, tried: "_Tried") -> Route:
        """The next pod to ask; holds until there is one or *deadline* has passed."""
        if tried.last is None:
            if turn.ahead:
                await turn.rest(min(self._pause_s(turn), deadline.remaining_s() / 2))
            return await self._router.route(
                wish.model, wish.language, audio_s=wish.audio_s, deadline=deadline
            )
        wait_s = self._budget.take()
        if wait_s and (tried.last_was_refusal or wait_s >= deadline.remaining_s()):
            self._budget.give_back()
            if not tried.last_was_refusal:
                raise tried.last
            await self._pause(turn, deadline, tried)
        elif wait_s:
            await asyncio.sleep(wait_s)
        while (route := self._router.choose(wish, exclude=tried.excluded)) is None:
            await self._pause(turn, deadline, tried)
        return route

    async def _pause(self, turn: Turn, deadline: Deadline, tried: "_Tried") -> None:
        """Every pod was asked: wait for a change, then let them be asked again."""
        await turn.rest(min(self._pause_s(turn), deadline.remaining_s()))
        if deadline.has_passed:
            assert tried.last is not None
            raise tried.last
        tried.forgive()

    def _pause_s(self, turn: Turn) -> float:
        shortest_s, longest_s = FULL_PAUSE_S
        return self._rng.uniform(shortest_s, longest_s) * 2.0**turn.ahead

    async def _hedged(
        self,
        route: Route,
        call: Call,
        deadline: Deadline,
        stack: AsyncExitStack,
        attempt: int,
        tried: "_Tried",
    ) -> Answer:
        """As `_ask`, with another pod asked beside *route* when that is unusually slow; the first answer counts."""
        after_s = hedge_after_s(call.wish, route.expected_s, is_measured=route.is_measured)
        if after_s is None:
            return await self._ask(route, call, deadline, stack, attempt)
        failure: EverwarmError | None = None
        async with AsyncExitStack() as others, asyncio.TaskGroup() as group:
            ask_other = partial(self._ask_beside, route, call, deadline, tried.excluded, attempt + 1)
            hedge = _Hedge(group, ask_other, after_s=after_s, held=others)
            try:
                answer = await self._ask(route, call, deadline, stack, attempt, on_sent=hedge.arm)
            except EverwarmError as error:
                failure = error  # an answer of the other pod may still come
                hedge.disarm()
            else:
                hedge.cancel()
                return answer
        assert failure is not None
        if hedge.answer is None:
            raise failure
        stack.push_async_callback(hedge.kept.aclose)
        return hedge.answer

    async def _ask_beside(
        self,
        slow: Route,
        call: Call,
        deadline: Deadline,
        excluded: set[str],
        attempt: int,
        stack: AsyncExitStack,
    ) -> Answer | None:
        """While *slow* is: the answer of a pod not in *excluded* that has an idle slot; None when there is none, or no
        budget, or it fails.
        """
        slow.overdue()
        if self._budget.take():
            self._budget.give_back()
            return None
        route = self._router.choose(call.wish, exclude={*excluded, slow.pod.boot})
        if route is None:
            self._budget.give_back()
            return None
        self._retries.add(1, {"reason": "slow"})
        with telemetry.span(SpanName.ROUTE) as span, route:
            _describe(span, route, attempt)
            try:
                return await self._ask(route, _idle_only(call), deadline, stack, attempt)
            except EverwarmError as error:
                span.set_attribute(Attribute.REFUSAL, http_error(error).code)
                return None

    async def _ask(
        self,
        route: Route,
        call: Call,
        deadline: Deadline,
        stack: AsyncExitStack,
        attempt: int,
        *,
        on_sent: "Callable[[Patience], None] | None" = None,
    ) -> Answer:
        """One attempt on *route*, which is told how it went; raises the error that *judge* does not let pass.

        on_sent: called once the body is out, with what still lets it take its time.
        """
        pod = route.pod
        started = time.perf_counter()
        patience = Patience(pod.id, deadline)
        slow_at = math.inf  # by the clock of `started`

        def body_is_complete() -> None:
            nonlocal slow_at
            slow_at = time.perf_counter() + slow_after_s(call.wish, route.expected_s)
            bound_s = hang_bound_s(
                call.wish, route.expected_s, is_measured=route.is_measured, remaining_s=deadline.remaining_s()
            )
            if bound_s < deadline.remaining_s():
                patience.ends_in(bound_s, f"no answer within {bound_s:.1f} s")
            if on_sent is not None:
                on_sent(patience)

        def pod_is_lost() -> None:
            patience.ends_in(0.0, "it left the registry before it answered")

        def pod_is_silent() -> None:
            if slow_at <= time.perf_counter() and self._router.has_other(route):
                patience.ends_in(0.0, "its answer is late and its heartbeats are missing")

        try:
            async with patience:
                with self._router.watching(pod, pod_is_lost, pod_is_silent):
                    call.body.when_complete(body_is_complete)
                    answer = await self._http.post(
                        pod.url, call, pod=pod.id, deadline=deadline, stack=stack, attempts=attempt
                    )
        except PodFailed:
            route.failed()
            raise
        if answer.stream is not None:
            stream = self._followed(route, answer.stream, deadline, started)
            stack.push_async_callback(stream.aclose)
            return replace(answer, stream=stream)
        error = (
            None
            if answer.status < 400
            else error_from_response(answer.status, answer.body or b"", answer.headers)
        )
        inflight, slots = _number(answer.headers, INFLIGHT_HEADER), _number(answer.headers, SLOTS_HEADER)
        match judge(answer.status, error):
            case Verdict.ANSWER:
                if error is None:
                    took_s = time.perf_counter() - started
                    route.succeeded(
                        service_s=_decode_s(answer.headers, took_s), inflight=inflight, slots=slots
                    )
                return answer
            case Verdict.REFUSED:
                route.refused(inflight=inflight, slots=slots)
            case Verdict.CLOSED:
                route.closed()
            case Verdict.FAILED:
                route.failed()
        assert error is not None
        raise error

    async def _followed(
        self, route: Route, stream: AsyncIterator[bytes], deadline: Deadline, started: float
    ) -> AsyncGenerator[bytes, None]:
        """*stream*, whose end tells *route* how it went; raises PodFailed or DeadlineExceeded when it breaks off."""
        try:
            while True:
                # One bound a piece: the time in which the reader takes a piece is not the pod's.
                patience = Patience(route.pod.id, deadline)
                give_up = partial(patience.ends_in, 0.0, "it left the registry in the middle of its answer")
                async with patience:
                    with self._router.watching(route.pod, give_up):
                        piece = await anext(stream, None)
                if piece is None:
                    break
                yield piece
        except PodFailed:
            route.failed()
            raise
        except (OSError, aiohttp.ClientError) as error:
            route.failed()
            raise PodFailed(route.pod.id, f"its answer broke off: {type(error).__name__}") from error
        route.succeeded(service_s=time.perf_counter() - started)


class DirectDispatcher:
    """Sends calls to one base URL, a gateway or a pod, which may itself be short of places for a while."""

    def __init__(self, base_url: str, http: PodHttp, *, rng: Random | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._rng = rng or Random()  # noqa: S311 - jitter

    def exchange(self, call: Call, *, deadline: Deadline) -> "Held":
        """See Exchange. A 503 is tried again after its Retry-After, while the deadline allows it."""
        return Held(partial(self._answer, call, deadline))

    async def glance(self, call: Call, *, deadline: Deadline) -> Answer | None:
        """See Exchange."""
        try:
            async with AsyncExitStack() as stack, Patience(self._base_url, deadline):
                answer = await self._http.post(
                    self._base_url, _idle_only(call), pod=self._base_url, deadline=deadline, stack=stack
                )
        except EverwarmError:
            return None
        return answer if answer.status < 400 else None

    async def _answer(self, call: Call, deadline: Deadline, stack: AsyncExitStack) -> Answer:
        failures = 0
        for attempt in count(1):
            try:
                async with Patience(self._base_url, deadline):
                    answer = await self._http.post(
                        self._base_url,
                        call,
                        pod=self._base_url,
                        deadline=deadline,
                        stack=stack,
                        attempts=attempt,
                    )
                if answer.status < 400:
                    return answer
                raise error_from_response(answer.status, answer.body or b"", answer.headers)
            except (CapacityError, PodFailed) as error:
                failures += isinstance(error, PodFailed)
                pause_s = (error.retry_after_s or DIRECT_PAUSE_S) * self._rng.uniform(1.0, 1.25)
                if failures >= MAX_FAILURES or pause_s >= deadline.remaining_s():
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("count() does not end")


class _Hedge:
    """A second attempt that begins by itself some time after the first one's body was sent.

    group: whose task it is; ask: makes it; held: what a streamed answer of it leaves open until it is taken over.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        ask: Callable[[AsyncExitStack], Awaitable[Answer | None]],
        *,
        after_s: float,
        held: AsyncExitStack,
    ) -> None:
        self.answer: Answer | None = None
        self.kept = AsyncExitStack()
        self._group, self._ask, self._after_s, self._held = group, ask, after_s, held
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def arm(self, first: Patience) -> None:
        """The first attempt's body is out; *first* is how long it may take."""
        begin = partial(self._begin, first)
        self._timer = asyncio.get_running_loop().call_later(self._after_s, begin)

    def disarm(self) -> None:
        """Begin no more; what has begun goes on."""
        if self._timer is not None:
            self._timer.cancel()

    def cancel(self) -> None:
        """The first attempt was answered."""
        self.disarm()
        if self._task is not None:
            self._task.cancel()

    def _begin(self, first: Patience) -> None:
        self._task = self._group.create_task(self._run(first), name="hedge")

    async def _run(self, first: Patience) -> None:
        answer = await self._ask(self._held)
        if answer is not None:
            self.answer, self.kept = answer, self._held.pop_all()
            first.ends_in(0.0, "another pod was faster")


@dataclass(slots=True)
class _Tried:
    """What was tried for one utterance so far."""

    last: EverwarmError | None = None
    refused: set[str] = field(default_factory=set)
    failed: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    defects: int = 0

    @property
    def excluded(self) -> set[str]:
        """`boot`s not to be asked now."""
        return self.refused | self.failed.keys()

    @property
    def last_was_refusal(self) -> bool:
        """Whether the last pod asked was alive and had no place."""
        return isinstance(self.last, CapacityError)

    @property
    def is_enough(self) -> bool:
        """Whether the utterance itself may be what makes pods fail."""
        return self.failures >= MAX_FAILURES or self.defects > 1

    def note(self, route: Route, error: EverwarmError) -> None:
        """*error* was the outcome on *route*."""
        self.last = error
        if isinstance(error, CapacityError):
            self.refused.add(route.pod.boot)
        else:
            self.failed[route.pod.boot] = time.monotonic()
            self.failures += not isinstance(error, PodUnreachable)
            self.defects += isinstance(error, InternalError)

    def forgive(self) -> None:
        """Let the pods that were full be asked again, and those that failed a while ago."""
        self.refused.clear()
        now = time.monotonic()
        self.failed = {boot: at for boot, at in self.failed.items() if now - at < SAME_POD_AFTER_S}


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


def _idle_only(call: Call) -> Call:
    return replace(call, headers={**call.headers, IDLE_HEADER: "1"})


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


def _decode_s(headers: Mapping[str, str], took_s: float) -> float:
    """Seconds on a slot, as `server-timing` tells; else all that the attempt took."""
    found = _DECODE.search(headers.get("server-timing", ""))
    return float(found.group(1)) / 1000 if found else took_s


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _describe(span: Span, route: Route, attempt: int) -> None:
    span.set_attributes(
        {
            Attribute.POD: route.pod.id,
            Attribute.MODEL: route.wish.model,
            Attribute.ROUTE_REASON: route.reason,
            Attribute.ROUTE_CANDIDATES: route.candidates,
            Attribute.ROUTE_ATTEMPT: attempt,
        }
    )
