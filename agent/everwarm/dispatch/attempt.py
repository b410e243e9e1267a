"""One attempt: a call on the pod of one route, given up when it takes too long, with what it taught told to the route.

An attempt that ends early costs its utterance nothing but time, for the body can be sent again. It ends early when the
answer takes a multiple of the time expected, when the registry loses the pod meanwhile, or when the answer is late and
the pod's heartbeats are missing too.
"""

import math
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Final

import aiohttp

from everwarm.deadline import Deadline
from everwarm.dispatch.exchange import Answer, Call
from everwarm.dispatch.judging import Verdict, hang_bound_s, judge, slow_after_s
from everwarm.dispatch.patience import Patience
from everwarm.dispatch.pod_http import PodHttp
from everwarm.routing.router import Route, Router
from everwarm_core.errors import EverwarmError, PodFailed
from everwarm_core.http.headers import INFLIGHT_HEADER, SLOTS_HEADER
from everwarm_core.openai_errors import error_from_response

_DECODE: Final = re.compile(r"(?:^|,)\s*decode\s*(?:;[^,]*)?;\s*dur=([0-9.]+)")


class Attempt:
    """*call* on the pod of *route*, once. number: how many attempts its utterance has had, this one included."""

    def __init__(
        self, router: Router, http: PodHttp, route: Route, call: Call, deadline: Deadline, *, number: int = 1
    ) -> None:
        self._router, self._http = router, http
        self._route, self._call, self._deadline, self._number = route, call, deadline, number
        self._patience = Patience(route.pod.id, deadline)
        self._started = time.perf_counter()
        self._slow_at = math.inf  # by the clock of `_started`
        self._on_sent: Callable[[Patience], None] | None = None

    async def answer(
        self, stack: AsyncExitStack, *, on_sent: Callable[[Patience], None] | None = None
    ) -> Answer:
        """What the pod answers; raises the error that `judge` does not let pass. A stream is open until *stack* is left.

        on_sent: called once the body is out, with what still lets the pod take its time.
        """
        self._on_sent = on_sent
        pod = self._route.pod
        try:
            async with self._patience:
                with self._router.watching(pod, self._pod_is_lost, self._pod_is_silent):
                    self._call.body.when_complete(self._body_is_complete)
                    answer = await self._http.post(
                        pod.url,
                        self._call,
                        pod=pod.id,
                        deadline=self._deadline,
                        stack=stack,
                        attempts=self._number,
                    )
        except PodFailed:
            self._route.failed()
            raise
        if answer.stream is not None:
            stream = self._followed(answer.stream)
            stack.push_async_callback(stream.aclose)
            return replace(answer, stream=stream)
        error = (
            error_from_response(answer.status, answer.body or b"", answer.headers)
            if answer.status >= 400
            else None
        )
        verdict = judge(answer.status, error)
        self._tell_route(verdict, error, answer)
        if error is not None and verdict is not Verdict.ANSWER:
            raise error
        return answer

    def _body_is_complete(self) -> None:
        """The pod's own time begins: from now on an answer can be late."""
        route, wish, left_s = self._route, self._call.wish, self._deadline.remaining_s()
        self._slow_at = time.perf_counter() + slow_after_s(wish, route.expected_s)
        bound_s = hang_bound_s(wish, route.expected_s, is_measured=route.is_measured, remaining_s=left_s)
        if bound_s < left_s:
            self._patience.ends_in(bound_s, f"no answer within {bound_s:.1f} s")
        if self._on_sent is not None:
            self._on_sent(self._patience)

    def _pod_is_lost(self) -> None:
        self._patience.ends_in(0.0, "it left the registry before it answered")

    def _pod_is_silent(self) -> None:
        if self._slow_at <= time.perf_counter() and self._router.has_other(self._route):
            self._patience.ends_in(0.0, "its answer is late and its heartbeats are missing")

    def _tell_route(self, verdict: Verdict, error: EverwarmError | None, answer: Answer) -> None:
        inflight, slots = _number(answer.headers, INFLIGHT_HEADER), _number(answer.headers, SLOTS_HEADER)
        match verdict:
            case Verdict.ANSWER if error is None:
                service_s = _decode_s(answer.headers, time.perf_counter() - self._started)
                self._route.succeeded(service_s=service_s, inflight=inflight, slots=slots)
            case Verdict.REFUSED:
                self._route.refused(inflight=inflight, slots=slots)
            case Verdict.CLOSED:
                self._route.closed()
            case Verdict.FAILED:
                self._route.failed()

    async def _followed(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """*stream*, whose end tells the route how it went; raises PodFailed or DeadlineExceeded when it breaks off."""
        pod = self._route.pod
        try:
            while True:
                # One bound a piece: the time in which the reader takes a piece is not the pod's.
                patience = Patience(pod.id, self._deadline)
                give_up = partial(patience.ends_in, 0.0, "it left the registry in the middle of its answer")
                async with patience:
                    with self._router.watching(pod, give_up):
                        piece = await anext(stream, None)
                if piece is None:
                    break
                yield piece
        except PodFailed:
            self._route.failed()
            raise
        except (OSError, aiohttp.ClientError) as error:
            self._route.failed()
            raise PodFailed(pod.id, f"its answer broke off: {type(error).__name__}") from error
        self._route.succeeded(service_s=time.perf_counter() - self._started)


def _decode_s(headers: Mapping[str, str], took_s: float) -> float:
    """Seconds on a slot, as `server-timing` tells; else all that the attempt took."""
    found = _DECODE.search(headers.get("server-timing", ""))
    return float(found.group(1)) / 1000 if found else took_s


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else None
