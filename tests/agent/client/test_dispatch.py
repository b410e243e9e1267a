"""One utterance, several pods that misbehave: the caller gets its transcript as long as one of them can give it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
import pytest
from aiohttp import web

import everwarm
from everwarm.dispatch import delivery
from everwarm.dispatch.judging import HANG_FLOOR_S, HEDGE_FLOOR_S, hang_bound_s, hedge_after_s
from everwarm.dispatch.pod_http import EXPECT_FROM_BYTES
from everwarm.dispatch.tried import MAX_FAILURES
from everwarm.errors import (
    AudioTooLong,
    DeadlineExceeded,
    ModelNotFound,
    PodFailed,
    PodFull,
    Unauthorized,
)
from everwarm.routing.router import Wish
from everwarm_core.errors import NoIdleSlot
from everwarm_core.http.headers import IDLE_HEADER
from tests.fixtures.records import WAIT_S, pod_record
from tests.fixtures.valkey import OwnedValkey
from tests.support.faulty_pods import (
    Behaviour,
    FaultyPod,
    announce,
    answer,
    die,
    die_in_the_answer,
    drain,
    faulty_pod,
    hang,
    record_of,
    refuse,
    status,
    tell,
    withdraw,
)
from tests.support.pods import free_port
from tests.support.waiting import until


@asynccontextmanager
async def pods(
    redis_url: str, *scripts: list[Behaviour], **changes: object
) -> AsyncIterator[list[FaultyPod]]:
    """Announced pods `pod-0`, `pod-1`, ... Those given the same list share it: whoever is asked next does what is next."""
    async with AsyncExitStack() as stack:
        started = []
        for number, script in enumerate(scripts):
            pod = await stack.enter_async_context(faulty_pod(f"pod-{number}"))
            pod.script = script
            started.append(pod)
        await announce(redis_url, [record_of(pod, **changes) for pod in started])
        yield started


async def said(client: everwarm.Client, *, deadline_s: float = WAIT_S, seconds: float = 1.0) -> str:
    """The text of a transcript of silence, which is the name of the pod that made it."""
    audio = np.zeros(round(seconds * 16_000), dtype=np.int16)
    transcript = await client.transcribe(audio, model="base.en", language="en", deadline_s=deadline_s)
    return transcript.text


@pytest.mark.parametrize(
    "fault",
    [refuse(), drain(), die, die_in_the_answer, status(500), status(502), status(503), status(504)],
    ids=["full", "draining", "dies", "dies in the answer", "500", "502", "503", "504"],
)
async def test_an_utterance_is_answered_by_another_pod_when_one_fails(
    redis_url: str, fault: Behaviour
) -> None:
    script = [fault]
    async with pods(redis_url, script, script) as both, everwarm.Client(redis_url) as client:
        assert await said(client) in ("pod-0", "pod-1")
        assert [pod.asked for pod in both] == [1, 1]


async def test_an_utterance_is_answered_by_another_pod_when_one_refuses_connections(redis_url: str) -> None:
    async with pods(redis_url, []) as [alive]:
        dead = pod_record("pod-dead", url=f"http://127.0.0.1:{free_port()}")
        await announce(redis_url, [dead])
        async with everwarm.Client(redis_url) as client:
            assert {await said(client) for _ in range(8)} == {alive.name}


async def test_an_utterance_is_answered_by_another_pod_when_one_takes_no_connections(redis_url: str) -> None:
    """A node that is gone neither accepts nor refuses."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.create_connection(deaf.getsockname()) for _ in range(1)]
        async with pods(redis_url, []) as [alive]:
            gone = pod_record("pod-gone", url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
            await announce(redis_url, [gone])
            async with everwarm.Client(redis_url) as client:
                began = time.monotonic()
                assert {await said(client) for _ in range(4)} == {alive.name}
                assert time.monotonic() - began < WAIT_S
        for filler in fillers:
            filler.close()


async def test_an_utterance_is_answered_by_another_pod_when_the_registry_loses_the_one_that_hangs(
    redis_url: str,
) -> None:
    script: list[Behaviour] = [hang]
    async with pods(redis_url, script, script) as both, everwarm.Client(redis_url) as client:
        async with asyncio.TaskGroup() as group:
            utterance = group.create_task(said(client))
            await until(lambda: any(pod.received for pod in both))
            stopped = next(pod for pod in both if pod.received)
            await withdraw(redis_url, record_of(stopped))
        assert utterance.result() != stopped.name


async def test_an_utterance_is_answered_by_another_pod_when_the_heartbeats_of_the_one_that_hangs_are_missing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who has less than 27.5 s left has missed heartbeats then, and no lease runs out while this process is paused.
    monkeypatch.setattr("everwarm_core.registry.records.ENTRY_TTL_S", 30.0)

    async def nobody_beside(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
        return await (tell(NoIdleSlot()) if IDLE_HEADER in request.headers else answer)(pod, request)

    script: list[Behaviour] = []
    async with pods(redis_url, script, script, slots=1) as both, everwarm.Client(redis_url) as client:
        while not all(pod.asked for pod in both):  # so that both are measured
            async with asyncio.TaskGroup() as group:
                for _ in both:
                    group.create_task(said(client))
        script.extend([hang, hang, *[nobody_beside] * 100])
        async with asyncio.TaskGroup() as group:
            began = time.monotonic()
            utterances = [group.create_task(said(client)) for _ in both]
            await until(lambda: all(pod.held for pod in both))
            stopped, going_on = both
            await announce(redis_url, [record_of(stopped, slots=1)], ttl_s=25.0)
            await until(lambda: stopped.held == 0)
            assert time.monotonic() - began < HANG_FLOOR_S
            going_on.released.set()
        assert {utterance.result() for utterance in utterances} == {going_on.name}


async def test_an_utterance_waits_for_a_place_while_every_pod_is_full(redis_url: str) -> None:
    async with pods(redis_url, [refuse()] * 3, [refuse()] * 3) as both, everwarm.Client(redis_url) as client:
        assert await said(client) in ("pod-0", "pod-1")
        assert sum(pod.asked for pod in both) > 3


async def test_the_pods_own_refusal_is_the_answer_when_the_deadline_is_over(redis_url: str) -> None:
    async with pods(redis_url, [answer, *[refuse()] * 100]), everwarm.Client(redis_url) as client:
        await said(client)  # the pod is known by now, so that a short deadline is long enough to be refused
        with pytest.raises(PodFull) as told:
            await said(client, deadline_s=1.0)
        assert told.value.retry_after_s == 1.0


async def test_an_utterance_takes_the_place_that_another_one_leaves(redis_url: str) -> None:
    """A pod of one place: the second utterance goes in when the first is answered, not when some pause is over."""

    async def only_when_free(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
        return await (refuse() if pod.held > 1 else hang)(pod, request)

    script: list[Behaviour] = [only_when_free] * 200
    async with pods(redis_url, script, slots=1, queue=0) as [pod], everwarm.Client(redis_url) as client:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(said(client))
            await until(lambda: pod.received)
            second = group.create_task(said(client))
            await until(lambda: pod.asked > 1)
            pod.released.set()
        assert (first.result(), second.result()) == ("pod-0", "pod-0")


async def test_an_utterance_that_comes_later_does_not_take_the_place_of_one_that_waits(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod of one place, which another agent leaves: whoever was refused gets it, not who comes in that moment."""
    monkeypatch.setattr(delivery, "FULL_PAUSE_S", (0.2, 0.2))  # no chance in the order of those who wait
    answered: list[str] = []

    async def say(client: everwarm.Client, who: str) -> None:
        await said(client)
        answered.append(who)

    async def only_when_free(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
        return await (refuse() if pod.held > 1 else hang)(pod, request)

    script: list[Behaviour] = [only_when_free] * 200
    async with (
        pods(redis_url, script, slots=1, queue=0) as [pod],
        everwarm.Client(redis_url) as other,
        everwarm.Client(redis_url) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(say(other, "in the place"))
        await until(lambda: pod.received)
        group.create_task(say(client, "refused"))
        await until(lambda: pod.asked > 1)
        pod.released.set()
        await until(lambda: answered)
        group.create_task(say(client, "later"))
    assert answered == ["in the place", "refused", "later"]


async def test_utterances_at_the_same_time_take_one_idle_slot_each(redis_url: str) -> None:
    async with (
        pods(redis_url, [hang], [hang], [hang], slots=1) as three,
        everwarm.Client(redis_url) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in three:
            group.create_task(said(client))
        await until(lambda: sum(pod.held for pod in three) == 3)
        assert [pod.held for pod in three] == [1, 1, 1]
        for pod in three:
            pod.released.set()


async def test_an_utterance_that_kills_every_pod_is_given_up_after_three(redis_url: str) -> None:
    scripts: list[list[Behaviour]] = [[die], [die], [die], [die]]
    async with pods(redis_url, *scripts) as four, everwarm.Client(redis_url) as client:
        with pytest.raises(PodFailed):
            await said(client)
        assert sum(pod.asked for pod in four) == MAX_FAILURES


async def test_an_utterance_outlives_more_dead_pods_than_it_may_have_killed(redis_url: str) -> None:
    dead = [pod_record(f"dead-{n}", url=f"http://127.0.0.1:{free_port()}") for n in range(MAX_FAILURES + 1)]
    await announce(redis_url, dead)
    async with everwarm.Client(redis_url) as client, asyncio.TaskGroup() as group:
        waiting = group.create_task(said(client))
        await until(lambda: _failed(client) == {record.id for record in dead})
        async with faulty_pod("alive") as pod:
            await announce(redis_url, [*dead, record_of(pod)])
            assert await waiting == "alive"


def _failed(client: everwarm.Client) -> set[str]:
    assert client.router is not None
    loads = client.router.loads
    return {pod for pod in loads if loads._by_id[pod].failures}


async def test_the_only_pod_is_asked_again_after_it_failed(redis_url: str) -> None:
    async with pods(redis_url, [die]) as [pod], everwarm.Client(redis_url) as client:
        assert await said(client) == pod.name
        assert pod.asked == 2


async def test_the_callers_own_mistake_is_not_tried_elsewhere(redis_url: str) -> None:
    script = [tell(AudioTooLong(30.0))]
    async with pods(redis_url, script, script) as both, everwarm.Client(redis_url) as client:
        with pytest.raises(AudioTooLong):
            await said(client)
        assert sum(pod.asked for pod in both) == 1


async def test_a_pod_that_does_not_know_the_token_yet_is_no_verdict_on_the_caller(redis_url: str) -> None:
    script = [tell(Unauthorized())]
    async with pods(redis_url, script, script) as both, everwarm.Client(redis_url) as client:
        assert await said(client)
        assert [pod.asked for pod in both] == [1, 1]


async def test_a_pod_at_a_reused_address_is_no_verdict_on_the_model(redis_url: str) -> None:
    script = [tell(ModelNotFound("base.en", known=("tiny.en",)))]
    async with pods(redis_url, script, script) as both, everwarm.Client(redis_url) as client:
        assert await said(client)
        assert [pod.asked for pod in both] == [1, 1]


async def test_a_connection_that_died_while_idle_is_no_failure_of_the_pod(redis_url: str) -> None:
    async with pods(redis_url, []) as [pod], everwarm.Client(redis_url) as client:
        await said(client)
        pod.then(die)
        assert await said(client) == pod.name
        assert pod.asked == 3
        assert client.router is not None
        assert client.router.loads.of(record_of(pod)).failures == 0  # type: ignore[union-attr]  # it was used


async def test_a_large_body_is_not_sent_to_a_pod_that_refuses(redis_url: str) -> None:
    script = [refuse()]
    async with pods(redis_url, script, script) as both, everwarm.Client(redis_url) as client:
        await said(client, seconds=EXPECT_FROM_BYTES / 32_000 + 1)
        refused = next(pod for pod in both if not pod.received)
        answered = next(pod for pod in both if pod.received)
        assert refused.asked == 1
        assert answered.received[0].headers["expect"] == "100-continue"


async def test_pods_are_told_how_much_time_is_left(redis_url: str) -> None:
    async with pods(redis_url, []) as [pod], everwarm.Client(redis_url) as client:
        await said(client, deadline_s=70.0)
        headers = pod.received[0].headers
        assert 50_000 < int(headers["x-everwarm-deadline-ms"]) <= 70_000
        assert headers["x-request-id"].startswith("req_")


async def test_the_deadline_ends_an_utterance_whose_pod_says_nothing(redis_url: str) -> None:
    async with pods(redis_url, [hang] * 9), everwarm.Client(redis_url) as client:
        began = time.monotonic()
        with pytest.raises((DeadlineExceeded, PodFailed)):
            await said(client, deadline_s=1.0)
        assert time.monotonic() - began < WAIT_S / 2  # HANG_UNKNOWN_S, and the pod itself, would take longer


async def test_a_cancelled_utterance_gives_its_place_up_at_once(redis_url: str) -> None:
    async with pods(redis_url, [hang]) as [pod], everwarm.Client(redis_url) as client:
        async with asyncio.TaskGroup() as group:
            utterance = group.create_task(said(client))
            await until(lambda: pod.received)
            utterance.cancel()
        await until(lambda: pod.held == 0)
        assert client.router is not None
        assert client.router.loads.inflight(record_of(pod)) == 0


async def test_utterances_go_on_while_redis_is_gone(own_valkey: OwnedValkey) -> None:
    async with pods(own_valkey.url, []) as [pod], everwarm.Client(own_valkey.url) as client:
        await said(client)
        own_valkey.kill()
        assert {await said(client) for _ in range(5)} == {pod.name}


async def test_an_utterance_that_is_sent_before_redis_answers_waits_for_it(own_valkey: OwnedValkey) -> None:
    own_valkey.kill()
    async with everwarm.Client(own_valkey.url) as client, asyncio.TaskGroup() as group:
        utterance = group.create_task(said(client))
        await asyncio.sleep(0)
        own_valkey.start()
        async with pods(own_valkey.url, []) as [pod]:
            assert await utterance == pod.name


async def test_a_pod_that_is_unusually_slow_costs_a_second_and_not_the_time_until_it_counts_as_hung(
    redis_url: str,
) -> None:
    stuck: list[FaultyPod] = []

    async def hang_here(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
        stuck.append(pod)
        return await hang(pod, request)

    script: list[Behaviour] = []
    async with pods(redis_url, script, script) as both, everwarm.Client(redis_url) as client:
        while not all(pod.asked for pod in both):  # so that both are measured
            async with asyncio.TaskGroup() as group:
                for _ in both:
                    group.create_task(said(client))
        script.append(hang_here)
        began = time.monotonic()
        answered = await said(client)
        assert HEDGE_FLOOR_S <= time.monotonic() - began < HANG_FLOOR_S
        (hung,) = stuck
        assert answered != hung.name
        assert client.router is not None
        load = client.router.loads.of(record_of(hung))
        assert load is not None
        assert (load.failures, load.own) == (1, 0)


async def test_nobody_is_asked_beside_a_slow_pod_where_no_slot_is_idle(redis_url: str) -> None:
    async with pods(redis_url, [], slots=1) as [pod], everwarm.Client(redis_url) as client:
        await said(client)
        pod.then(hang)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(said(client))
            await until(lambda: pod.held == 1)
            await asyncio.sleep(HEDGE_FLOOR_S * 1.2)  # nothing may happen, and that takes time to see
            pod.released.set()
        assert waiting.result() == pod.name
        assert pod.asked == 2


def test_slow_is_a_multiple_of_what_was_measured_and_never_less_than_a_second() -> None:
    wish = Wish("base.en", audio_s=3.0)
    assert hedge_after_s(wish, 0.1, is_measured=True) == HEDGE_FLOOR_S
    assert hedge_after_s(wish, 2.0, is_measured=True) == 6.0
    assert hedge_after_s(wish, 2.0, is_measured=False) is None
    assert hedge_after_s(Wish("base.en", audio_s=600.0), 2.0, is_measured=True) is None


def test_a_pod_has_hung_when_it_takes_a_multiple_of_the_time_foreseen() -> None:
    wish = Wish("base.en", audio_s=4.0)
    bound = hang_bound_s(wish, 0.5, is_measured=True, remaining_s=30.0)
    assert 3.0 <= bound <= 10.0
    assert hang_bound_s(wish, 4.0, is_measured=True, remaining_s=300.0) > 20.0


def test_time_is_left_for_another_pod_however_short_the_deadline() -> None:
    bound = hang_bound_s(Wish("base.en"), 0.2, is_measured=True, remaining_s=5.0)
    assert bound <= 3.0


def test_a_recording_is_bounded_by_its_deadline_alone() -> None:
    assert hang_bound_s(Wish("base.en", audio_s=600.0), 1.0, is_measured=True, remaining_s=900.0) == 900.0
