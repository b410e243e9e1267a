"""The router over a real registry: what it finds, how long it holds, what it calls unknown."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from redis.asyncio import Redis

from everwarm.deadline import Deadline
from everwarm.routing.pick import Reason
from everwarm.routing.router import WARM_UP_PRIOR_S, Route, Router, warm_up_s
from everwarm.settings import AgentSettings
from everwarm.sources import pod_source
from everwarm_core.errors import ModelNotFound, ModelNotWarm, RegistryUnavailable
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import Lease, PodState, Snapshot
from tests.fixtures.records import FEW_NAMES, WAIT_S, pod_record, snapshots
from tests.fixtures.valkey import OwnedValkey
from tests.support.faulty_pods import announce, withdraw
from tests.support.waiting import until


@asynccontextmanager
async def routing(redis_url: str, *, fallback_urls: tuple[str, ...] = ()) -> AsyncIterator[Router]:
    async with Router(pod_source(AgentSettings(redis_url=redis_url, fallback_urls=fallback_urls))) as router:
        yield router


def soon() -> Deadline:
    return Deadline.after(WAIT_S)


def is_told_of(router: Router, name: str) -> bool:
    """Whether the snapshot in use would show pods of *name*."""
    return router.snapshot is not None and router.snapshot.covers(name)


async def has_read(router: Router) -> None:
    """Return once the registry was read, so that a short deadline cannot be over before."""
    await router.changed(None)
    await router.read_all()


async def test_router_finds_a_pod_that_is_warm_for_the_language(redis_url: str) -> None:
    german, english = pod_record("pod-de", languages=("de",)), pod_record("pod-en", languages=("en",))
    await announce(redis_url, [german, english])
    async with routing(redis_url) as router:
        for language, pod_id in (("de", "pod-de"), ("en", "pod-en")):
            route = await router.route("whisper-1", language, deadline=soon())
            assert (route.pod.id, route.reason) == (pod_id, Reason.ONLY_CANDIDATE)


@pytest.mark.parametrize("settle", [Route.refused, Route.closed], ids=["full", "draining"])
async def test_a_refusal_wakes_nobody_who_waits_for_a_place(
    redis_url: str, settle: Callable[[Route], None]
) -> None:
    """Else those who wait ask a full pod in a circle, each woken by the refusal of the one before."""
    await announce(redis_url, [pod_record(slots=2, queue=0)])
    async with routing(redis_url) as router, asyncio.TaskGroup() as group:
        answered, refused = [await router.route("base.en", "en", deadline=soon()) for _ in range(2)]
        # A snapshot with new pods, or with places left, wakes whoever waits: the pod is full, and has been seen.
        await until(lambda: is_told_of(router, "base.en"))
        with router.line.turn("base.en", "en") as turn:
            rest = group.create_task(turn.rest(10 * WAIT_S))
            await until(lambda: turn.rests)
            settle(refused)
            assert turn.rests
            answered.succeeded(service_s=0.1)
            await until(rest.done)


async def test_router_takes_a_pod_of_the_name_for_a_language_nobody_has_proven(redis_url: str) -> None:
    await announce(redis_url, [pod_record(model="base", names=("base",), languages=("en",))])
    async with routing(redis_url) as router:
        route = await router.route("base", "fr", deadline=soon())
        assert route.reason is Reason.OTHER_LANGUAGE


async def test_router_reads_detection_on_english_weights_as_english(redis_url: str) -> None:
    await announce(redis_url, [pod_record(languages=("en",))])
    async with routing(redis_url) as router:
        route = await router.route("base.en", "auto", deadline=soon())
        assert route.reason is Reason.ONLY_CANDIDATE


async def test_router_asks_another_pod_when_one_is_excluded(redis_url: str) -> None:
    first, second = pod_record("pod-a"), pod_record("pod-b")
    await announce(redis_url, [first, second])
    async with routing(redis_url) as router:
        route = await router.route("base.en", "en", deadline=soon(), exclude={first.boot})
        assert route.pod.id == "pod-b"


async def test_router_holds_until_a_pod_becomes_warm(redis_url: str) -> None:
    loading = pod_record(state=PodState.LOADING, languages=())
    await announce(redis_url, [loading])
    async with routing(redis_url) as router, asyncio.TaskGroup() as group:
        held = group.create_task(router.route("base.en", "en", deadline=soon()))
        async with Redis.from_url(redis_url) as redis:
            await until(lambda: redis.exists("everwarm:{local}:wanted:base.en"))
        assert not held.done()
        await announce(redis_url, [pod_record()])
        assert (await held).pod.id == "pod-a"


async def test_router_says_not_warm_when_the_deadline_is_over_and_when_to_come_again(redis_url: str) -> None:
    await announce(redis_url, [pod_record(state=PodState.WARMING, load_s=12.0, warm_s=3.0)])
    async with routing(redis_url) as router:
        await has_read(router)
        with pytest.raises(ModelNotWarm) as told:
            await router.route("base.en", "en", deadline=Deadline.after(0.3))
        assert told.value.retry_after_s == 15.0


async def test_router_calls_a_name_unknown_at_once_when_the_registry_holds_others(redis_url: str) -> None:
    await announce(redis_url, [pod_record()])
    async with routing(redis_url) as router:
        with pytest.raises(ModelNotFound, match=r"base\.en, whisper-1"):
            await router.route("large", "en", deadline=Deadline.after(60))


async def test_router_holds_for_a_name_whose_last_pod_has_left(redis_url: str) -> None:
    """Scaled to zero or restarting is not unknown: an agent's next utterance must not be told 404."""
    pod = pod_record("pod-a", load_s=3.0, warm_s=4.0)
    other = pod_record("pod-b", names=("tiny.en",), model="tiny.en")
    await announce(redis_url, [pod, other])
    async with routing(redis_url) as router:
        (await router.route("base.en", "en", deadline=soon())).abandoned()
        await withdraw(redis_url, pod)
        await until(lambda: is_told_of(router, "base.en") and "base.en" not in router.snapshot.names)  # type: ignore[union-attr]  # told
        with pytest.raises(ModelNotWarm) as told:
            await router.route("base.en", "en", deadline=Deadline.after(0.2))
        assert told.value.retry_after_s == 7.0  # what its last pod took
        async with Redis.from_url(redis_url) as redis:
            assert await redis.exists("everwarm:{local}:wanted:base.en")


async def test_router_takes_the_newest_measure_of_a_name_over_what_it_remembers(redis_url: str) -> None:
    first, second = pod_record("pod-a", load_s=3.0, warm_s=4.0), pod_record("pod-b", load_s=8.0, warm_s=1.0)
    await announce(redis_url, [first])
    async with routing(redis_url) as router:
        (await router.route("base.en", "en", deadline=soon())).abandoned()
        await withdraw(redis_url, first)
        await announce(redis_url, [replace(second, state=PodState.DRAINING)])
        await until(lambda: router.snapshot is not None and router.snapshot.by_id.keys() == {"pod-b"})
        with pytest.raises(ModelNotWarm) as told:
            await router.route("base.en", "en", deadline=Deadline.after(0.2))
        assert told.value.retry_after_s == 9.0


async def test_router_guesses_while_no_pod_of_the_name_has_measured_anything(redis_url: str) -> None:
    await announce(redis_url, [pod_record(state=PodState.LOADING, load_s=0.0, warm_s=0.0)])
    async with routing(redis_url) as router:
        await has_read(router)
        with pytest.raises(ModelNotWarm) as told:
            await router.route("base.en", "en", deadline=Deadline.after(0.2))
        assert told.value.retry_after_s == WARM_UP_PRIOR_S


@given(snapshot=snapshots(), name=FEW_NAMES)
def test_warm_up_is_between_the_shortest_and_the_longest_that_pods_of_the_name_took(
    snapshot: Snapshot, name: str
) -> None:
    took = [p.load_s + p.warm_s for p in (x.pod for x in snapshot.leases) if name in p.names and p.warm_s]
    found = warm_up_s(snapshot, name)
    assert (found is None) == (not took)
    assert found is None or min(took) <= found <= max(took)


def test_warm_up_of_a_pod_that_is_still_loading_does_not_count() -> None:
    pods = [
        pod_record("pod-a", load_s=20.0, warm_s=0.0, state=PodState.WARMING),
        pod_record("pod-b", load_s=2.0, warm_s=1.0),
    ]
    snapshot = Snapshot(taken_at=0.0, epoch="one", leases=tuple(Lease(pod, 5.0) for pod in pods))
    assert warm_up_s(snapshot, "base.en") == 3.0


async def test_router_says_that_the_registry_is_unreachable_when_it_never_was(
    own_valkey: OwnedValkey,
) -> None:
    own_valkey.kill()
    async with routing(own_valkey.url) as router:
        with pytest.raises(RegistryUnavailable):
            await router.route("base.en", "en", deadline=Deadline.after(0.3))


async def test_router_goes_on_with_its_last_snapshot_when_redis_is_lost(own_valkey: OwnedValkey) -> None:
    skipped_s = 0.0

    def clock() -> float:
        return time.monotonic() + skipped_s

    await announce(own_valkey.url, [pod_record()], ttl_s=60.0)
    source = RegistryReader(own_valkey.url, "local", follow=(), clock=clock)
    async with Router(source, clock=clock) as router:
        (await router.route("base.en", "en", deadline=soon())).abandoned()
        await until(lambda: is_told_of(router, "base.en"))
        own_valkey.kill()
        await until(lambda: router.snapshot is not None and router.snapshot.frozen)
        skipped_s = 120.0  # the lease has run out long ago
        route = await router.route("base.en", "en", deadline=soon())
        assert route.pod.id == "pod-a"


async def test_router_tells_who_waits_for_a_pod_that_left_the_registry(redis_url: str) -> None:
    pod = pod_record()
    await announce(redis_url, [pod, pod_record("pod-b")])
    async with routing(redis_url) as router:
        (await router.route("base.en", "en", deadline=soon())).abandoned()
        lost = asyncio.Event()
        with router.watching(pod, lost.set):
            await withdraw(redis_url, pod)
            async with asyncio.timeout(WAIT_S):
                await lost.wait()


async def test_router_lets_a_draining_pod_finish(redis_url: str) -> None:
    pod = pod_record()
    await announce(redis_url, [pod])
    async with routing(redis_url) as router:
        (await router.route("base.en", "en", deadline=soon())).abandoned()
        lost = asyncio.Event()
        with router.watching(pod, lost.set):
            await announce(redis_url, [pod_record(state=PodState.DRAINING, languages=())])
            snapshot = router.snapshot
            async with asyncio.timeout(WAIT_S):
                while snapshot is None or snapshot.by_name:
                    snapshot = await router.changed(snapshot)
                await router.changed(snapshot)
            assert not lost.is_set()


async def test_router_sends_nothing_new_to_a_pod_that_owes_an_answer_for_long(redis_url: str) -> None:
    await announce(redis_url, [pod_record("pod-a", slots=8), pod_record("pod-b", slots=8)])
    async with routing(redis_url) as router:
        owing = await router.route("base.en", "en", deadline=soon())
        owing.overdue()
        others = [await router.route("base.en", "en", deadline=soon()) for _ in range(20)]
        assert owing.pod.id not in {route.pod.id for route in others}
        owing.succeeded(service_s=0.1)
        routes = [await router.route("base.en", "en", deadline=soon()) for _ in range(20)]
        assert owing.pod.id in {route.pod.id for route in routes}


async def test_router_tells_who_waits_for_a_pod_that_it_is_silent_and_whether_there_is_another(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who has less than 27.5 s left has missed heartbeats then, and no lease runs out while this process is paused.
    monkeypatch.setattr("everwarm_core.registry.records.ENTRY_TTL_S", 30.0)
    silent, talking = pod_record("pod-a"), pod_record("pod-b")
    await announce(redis_url, [silent], ttl_s=25.0)
    lost, told = asyncio.Event(), asyncio.Event()
    async with routing(redis_url) as router:
        route = await router.route("base.en", "en", deadline=soon())
        assert not router.has_other(route)
        with router.watching(route.pod, lost.set, told.set):
            await announce(redis_url, [talking])
            await until(lambda: router.snapshot is not None and len(router.snapshot.leases) == 2)
            async with asyncio.timeout(WAIT_S):
                await told.wait()
            assert not lost.is_set()
            assert router.has_other(route)
            assert (await router.route("base.en", "en", deadline=soon())).pod.id == "pod-b"


async def test_router_counts_a_route_until_its_outcome_is_told(redis_url: str) -> None:
    await announce(redis_url, [pod_record(slots=2)])
    async with routing(redis_url) as router:
        with await router.route("base.en", "en", deadline=soon()) as route:
            assert router.loads.inflight(route.pod) == 1
        assert router.loads.inflight(route.pod) == 0


async def test_router_keeps_no_count_of_a_caller_that_was_cancelled_while_held(redis_url: str) -> None:
    await announce(redis_url, [pod_record(state=PodState.LOADING)])
    async with routing(redis_url) as router:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await router.route("base.en", "en", deadline=soon())
        await announce(redis_url, [pod_record()])
        route = await router.route("base.en", "en", deadline=soon())
        assert router.loads.inflight(route.pod) == 1
