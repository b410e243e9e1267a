"""One utterance on its way: one attempt after another, and where a pod is slow one beside it, until an answer stands."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

from opentelemetry.metrics import Counter, Histogram
from opentelemetry.trace import Span

from everwarm.deadline import Deadline
from everwarm.dispatch.attempt import Attempt
from everwarm.dispatch.exchange import Answer, Call
from everwarm.dispatch.hedge import Hedge
from everwarm.dispatch.judging import hedge_after_s
from everwarm.dispatch.pod_http import PodHttp
from everwarm.dispatch.tried import Tried
from everwarm.routing.budget import RetryBudget
from everwarm.routing.line import Turn
from everwarm.routing.router import Route, Router
from everwarm_core import telemetry
from everwarm_core.errors import (
    CapacityError,
    EverwarmError,
    InternalError,
    ModelNotFound,
    PodFailed,
    Unauthorized,
    http_error,
)
from everwarm_core.telemetry import Attribute, SpanName

FULL_PAUSE_S: Final = (0.1, 0.3)  # jittered wait when every pod is full; a place coming free ends it sooner
"""Doubled by each that stands before it in line: many waiting utterances must not become many questions."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all deliveries of a dispatcher share."""

    router: Router
    http: PodHttp
    budget: RetryBudget
    rng: Random
    retries: Counter = field(default_factory=lambda: telemetry.counter(telemetry.RETRIES))
    route_duration: Histogram = field(default_factory=lambda: telemetry.histogram(telemetry.ROUTE_DURATION))


class Delivery:
    """*call* from its first attempt to its answer; *turn* is its place among the utterances that wait."""

    def __init__(self, means: Means, call: Call, deadline: Deadline, turn: Turn) -> None:
        self._means, self._call, self._deadline, self._turn = means, call, deadline, turn
        self._tried = Tried()

    async def answer(self, held: AsyncExitStack) -> Answer:
        """The answer that stands; a stream is open until *held* is left. Raises what no further attempt could mend."""
        tried = self._tried
        for number in count(1):
            with telemetry.span(SpanName.ROUTE) as span:
                async with AsyncExitStack() as stack:
                    started = time.perf_counter()
                    route = stack.enter_context(await self._next())
                    self._means.route_duration.record(time.perf_counter() - started)
                    _describe(span, route, number)
                    try:
                        answer = await self._hedged(route, number, stack)
                    except (CapacityError, PodFailed, InternalError, Unauthorized, ModelNotFound) as error:
                        reason = http_error(error).code
                        span.set_attribute(Attribute.REFUSAL, reason)
                        refusal = tried.last if tried.last_was_refusal else None
                        tried.note(route, error)
                        if self._deadline.has_passed and refusal:
                            raise refusal from error  # a 503 says more than that the last try was cut short
                        if self._deadline.has_passed or tried.is_enough:
                            raise
                        self._means.retries.add(1, {"reason": reason})
                    else:
                        if answer.stream is not None:
                            held.push_async_exit(stack.pop_all())
                        return answer
        raise AssertionError("count() does not end")

    async def _next(self) -> Route:
        """The next pod to ask; holds until there is one or the deadline has passed."""
        wish, deadline, tried, budget = self._call.wish, self._deadline, self._tried, self._means.budget
        if tried.last is None:
            if self._turn.ahead:
                await self._turn.rest(min(self._pause_s(), deadline.remaining_s() / 2))
            return await self._means.router.route(
                wish.model, wish.language, audio_s=wish.audio_s, deadline=deadline
            )
        wait_s = budget.take()
        if wait_s and (tried.last_was_refusal or wait_s >= deadline.remaining_s()):
            budget.give_back()
            if not tried.last_was_refusal:
                raise tried.last
            await self._pause()
        elif wait_s:
            await asyncio.sleep(wait_s)
        while (route := self._means.router.choose(wish, exclude=tried.excluded)) is None:
            await self._pause()
        return route

    async def _pause(self) -> None:
        """Every pod was asked: wait for a change, then let them be asked again."""
        await self._turn.rest(min(self._pause_s(), self._deadline.remaining_s()))
        if self._deadline.has_passed:
            assert self._tried.last is not None
            raise self._tried.last
        self._tried.forgive()

    def _pause_s(self) -> float:
        shortest_s, longest_s = FULL_PAUSE_S
        return self._means.rng.uniform(shortest_s, longest_s) * 2.0**self._turn.ahead

    async def _hedged(self, route: Route, number: int, stack: AsyncExitStack) -> Answer:
        """An attempt on *route*, with another pod asked beside it when that is unusually slow; the first answer counts."""
        first = self._attempt(route, self._call, number)
        after_s = hedge_after_s(self._call.wish, route.expected_s, is_measured=route.is_measured)
        if after_s is None:
            return await first.answer(stack)

        async def ask_other(held: AsyncExitStack) -> Answer | None:
            return await self._ask_beside(route, number + 1, held)

        failure: EverwarmError | None = None
        async with AsyncExitStack() as others, asyncio.TaskGroup() as group:
            hedge = Hedge(group, ask_other, after_s=after_s, held=others)
            try:
                answer = await first.answer(stack, on_sent=hedge.arm)
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

    async def _ask_beside(self, slow: Route, number: int, stack: AsyncExitStack) -> Answer | None:
        """While *slow* is: the answer of a pod not tried yet that has an idle slot; None when there is none, or no
        budget, or it fails.
        """
        slow.overdue()
        budget = self._means.budget
        if budget.take():
            budget.give_back()
            return None
        exclude = {*self._tried.excluded, slow.pod.boot}
        route = self._means.router.choose(self._call.wish, exclude=exclude)
        if route is None:
            budget.give_back()
            return None
        self._means.retries.add(1, {"reason": "slow"})
        with telemetry.span(SpanName.ROUTE) as span, route:
            _describe(span, route, number)
            try:
                return await self._attempt(route, self._call.idle_only(), number).answer(stack)
            except EverwarmError as error:
                span.set_attribute(Attribute.REFUSAL, http_error(error).code)
                return None

    def _attempt(self, route: Route, call: Call, number: int) -> Attempt:
        return Attempt(self._means.router, self._means.http, route, call, self._deadline, number=number)


def _describe(span: Span, route: Route, number: int) -> None:
    span.set_attributes(
        {
            Attribute.POD: route.pod.id,
            Attribute.MODEL: route.wish.model,
            Attribute.ROUTE_REASON: route.reason,
            Attribute.ROUTE_CANDIDATES: route.candidates,
            Attribute.ROUTE_ATTEMPT: number,
        }
    )
