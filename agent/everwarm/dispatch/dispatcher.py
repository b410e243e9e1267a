"""Sends calls to the pods that a router chooses: an exchange that the registry, or a list of pods, stands behind."""

from contextlib import AsyncExitStack
from functools import partial
from random import Random

from everwarm.deadline import Deadline
from everwarm.dispatch.attempt import Attempt
from everwarm.dispatch.delivery import Delivery, Means
from everwarm.dispatch.exchange import Answer, Call, Held
from everwarm.dispatch.pod_http import PodHttp
from everwarm.routing.budget import RetryBudget
from everwarm.routing.router import Router
from everwarm_core.errors import EverwarmError


class Dispatcher:
    """Sends calls to the pods that *router* chooses, again and elsewhere when it must."""

    def __init__(
        self, router: Router, http: PodHttp, *, budget: RetryBudget | None = None, rng: Random | None = None
    ) -> None:
        self._means = Means(router, http, budget or RetryBudget(), rng or Random())  # noqa: S311 - jitter

    def exchange(self, call: Call, *, deadline: Deadline) -> Held:
        """See Exchange. Raises ModelNotFound, CapacityError, PodFailed, InternalError or the body's own error."""
        self._means.budget.deposit()
        return Held(partial(self._answer, call, deadline))

    async def glance(self, call: Call, *, deadline: Deadline) -> Answer | None:
        """See Exchange. One try, outside the budget; how it went still says something about the pod."""
        router, http = self._means.router, self._means.http
        route = router.choose(call.wish)
        if route is None:
            return None
        with route:
            try:
                async with AsyncExitStack() as stack:
                    answer = await Attempt(router, http, route, call.idle_only(), deadline).answer(stack)
            except EverwarmError:
                return None
        return answer if answer.status < 400 else None

    async def _answer(self, call: Call, deadline: Deadline, held: AsyncExitStack) -> Answer:
        with self._means.router.line.turn(call.wish.model, call.wish.language) as turn:
            return await Delivery(self._means, call, deadline, turn).answer(held)
