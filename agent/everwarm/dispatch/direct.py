"""Sends calls to one address, a gateway or a pod: nothing to choose, so what fails is tried there again."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from random import Random
from typing import Final

from everwarm.deadline import Deadline
from everwarm.dispatch.exchange import Answer, Call, Held
from everwarm.dispatch.patience import Patience
from everwarm.dispatch.pod_http import PodHttp
from everwarm.dispatch.tried import MAX_FAILURES
from everwarm_core.errors import CapacityError, EverwarmError, PodFailed
from everwarm_core.openai_errors import error_from_response

DIRECT_PAUSE_S: Final = 0.2  # where the other side does not say when to come again


class DirectDispatcher:
    """Sends calls to one base URL, a gateway or a pod, which may itself be short of places for a while."""

    def __init__(self, base_url: str, http: PodHttp, *, rng: Random | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._rng = rng or Random()  # noqa: S311 - jitter

    def exchange(self, call: Call, *, deadline: Deadline) -> Held:
        """See Exchange. A 503 is tried again after its Retry-After, while the deadline allows it."""
        return Held(partial(self._answer, call, deadline))

    async def glance(self, call: Call, *, deadline: Deadline) -> Answer | None:
        """See Exchange."""
        try:
            async with AsyncExitStack() as stack, Patience(self._base_url, deadline):
                answer = await self._http.post(
                    self._base_url, call.idle_only(), pod=self._base_url, deadline=deadline, stack=stack
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
