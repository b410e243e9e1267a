"""What a reader sees of a real registry, and how soon."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.registry.connection import connect
from everwarm_core.registry.reader import MAX_FOLLOWED, RegistryReader
from everwarm_core.registry.records import ENTRY_TTL_S, PodState
from everwarm_core.registry.writer import RegistryWriter
from tests.fixtures.records import WAIT_S, ids, pod_record, running, seen, until
from tests.fixtures.valkey import OwnedValkey

TINY = pod_record("pod-b", model="tiny", names=("tiny",), languages=("auto",))


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def writer(redis: Redis) -> RegistryWriter:
    return RegistryWriter(redis, "local")


@pytest.fixture
async def reader(redis_url: str) -> AsyncIterator[RegistryReader]:
    """One that reads everything; the test runs it."""
    async with RegistryReader(redis_url, "local") as reader:
        yield reader


# --- What it reads -------------------------------------------------------------------------------------------------


async def test_snapshot_holds_every_pod_as_it_was_written(
    writer: RegistryWriter, reader: RegistryReader
) -> None:
    pods = {
        pod_record(inflight=2, languages=("en", "auto")),
        TINY,
        pod_record("pod-c", state=PodState.FAILED),
    }
    for pod in pods:
        await writer.heartbeat(pod)
    async with running(reader.run()):
        snapshot = await seen(reader, lambda s: len(s.leases) == len(pods))
    assert {lease.pod for lease in snapshot.leases} == pods
    assert not snapshot.frozen


async def test_lease_never_seems_longer_than_it_is(writer: RegistryWriter, redis_url: str) -> None:
    async with RegistryReader(redis_url, "local", clock=lambda: 50.0) as reader:
        await writer.heartbeat(pod_record())
        (lease,) = (await reader.read_all()).leases
    assert 50 < lease.expires_at <= 50 + ENTRY_TTL_S


async def test_snapshot_is_empty_and_not_none_when_no_pod_ever_wrote(reader: RegistryReader) -> None:
    async with running(reader.run()):
        snapshot = await seen(reader, lambda _: True)
    assert snapshot.leases == ()


async def test_reader_follows_only_the_names_it_was_given(writer: RegistryWriter, redis_url: str) -> None:
    await writer.heartbeat(pod_record())
    await writer.heartbeat(TINY)
    reader = RegistryReader(redis_url, "local", follow=["tiny"])
    async with running(reader.run()):
        snapshot = await seen(reader, lambda s: bool(s.leases))
    assert ids(snapshot) == {"pod-b"}
    assert snapshot.followed == frozenset({"tiny"})


@pytest.mark.parametrize("name", ["base.en", "whisper-1"])
async def test_reader_finds_a_pod_by_any_of_its_names(
    writer: RegistryWriter, redis_url: str, name: str
) -> None:
    await writer.heartbeat(pod_record())
    reader = RegistryReader(redis_url, "local", follow=[name])
    async with running(reader.run()):
        await seen(reader, lambda s: bool(s.by_key.get((name, "en"))))


async def test_followed_name_shows_pods_that_are_not_warm_yet(writer: RegistryWriter, redis_url: str) -> None:
    """So that "not warm yet" can be told from "does not exist"."""
    await writer.heartbeat(pod_record(state=PodState.LOADING, languages=()))
    reader = RegistryReader(redis_url, "local", follow=["base.en"])
    async with running(reader.run()):
        snapshot = await seen(reader, lambda s: bool(s.leases))
    assert "base.en" in snapshot.names
    assert "base.en" not in snapshot.by_name


async def test_name_is_covered_once_it_is_followed(writer: RegistryWriter, redis_url: str) -> None:
    await writer.heartbeat(TINY)
    reader = RegistryReader(redis_url, "local", follow=())
    async with running(reader.run()):
        assert not (await seen(reader, lambda _: True)).covers("tiny")
        async with asyncio.timeout(WAIT_S):
            snapshot = await reader.covering("tiny")
    assert ids(snapshot) == {"pod-b"}


async def test_reader_forgets_the_name_asked_for_longest_ago_when_it_follows_too_many(redis_url: str) -> None:
    async with RegistryReader(redis_url, "local", follow=["old", "kept"]) as reader:
        for number in range(MAX_FOLLOWED - 1):
            reader.follow(f"name-{number}")
            reader.follow("kept")
        async with running(reader.run()):
            snapshot = await seen(reader, lambda _: True)
    assert snapshot.followed is not None
    assert len(snapshot.followed) == MAX_FOLLOWED
    assert not snapshot.covers("old")
    assert snapshot.covers("kept")


async def test_reader_of_everything_covers_every_name(reader: RegistryReader) -> None:
    reader.follow("tiny")
    async with running(reader.run()):
        assert (await seen(reader, lambda _: True)).followed is None


async def test_read_all_shows_every_pod_whatever_is_followed(writer: RegistryWriter, redis_url: str) -> None:
    await writer.heartbeat(pod_record())
    await writer.heartbeat(TINY)
    async with RegistryReader(redis_url, "local", follow=["tiny"]) as reader:
        assert ids(await reader.read_all()) == {"pod-a", "pod-b"}
        assert reader.snapshot is None


async def test_read_all_says_that_the_registry_is_unavailable_when_nothing_listens(
    own_valkey: OwnedValkey,
) -> None:
    own_valkey.kill()
    async with RegistryReader(own_valkey.url, "local") as reader:
        with pytest.raises(RegistryUnavailable):
            await reader.read_all()


async def test_reader_ignores_records_of_a_schema_it_does_not_know(
    redis: Redis, writer: RegistryWriter, reader: RegistryReader
) -> None:
    await writer.heartbeat(pod_record())
    await writer.heartbeat(TINY)
    await redis.hset("everwarm:{local}:pod:pod-b", "schema", "99")
    assert ids(await reader.read_all()) == {"pod-a"}


async def test_reader_survives_bytes_that_are_no_text(
    redis: Redis, writer: RegistryWriter, reader: RegistryReader
) -> None:
    await writer.heartbeat(pod_record())
    await redis.hset("everwarm:{local}:pod:pod-a", "node", b"\xff\xfe")
    assert ids(await reader.read_all()) == {"pod-a"}


async def test_restarted_process_is_read_anew_under_the_id_of_its_predecessor(
    writer: RegistryWriter, reader: RegistryReader
) -> None:
    await writer.heartbeat(pod_record())
    successor = pod_record(boot="second", url="http://127.0.0.1:9999", slots=7)
    async with running(reader.run()):
        await seen(reader, lambda s: bool(s.leases))
        await writer.heartbeat(successor)
        await seen(reader, lambda s: [lease.pod for lease in s.leases] == [successor])


async def test_first_read_holds_every_pod_when_there_are_more_than_one_exchange_fetches(
    writer: RegistryWriter, reader: RegistryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everwarm_core.registry.reader.RECORDS_AT_ONCE", 2)
    for number in range(5):
        await writer.heartbeat(pod_record(f"pod-{number}"))
    assert len((await reader.read_all()).leases) == 5


# --- How soon ------------------------------------------------------------------------------------------------------


async def test_change_is_seen_without_waiting_for_the_next_refresh(
    writer: RegistryWriter, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With refreshes an hour apart, only the stream can have brought the news."""
    monkeypatch.setattr("everwarm_core.registry.reader.refresh_pause_s", lambda _: 3600.0)
    await writer.heartbeat(pod_record())
    reader = RegistryReader(redis_url, "local", follow=["base.en"])
    async with running(reader.run()):
        await seen(reader, lambda s: bool(s.by_name))
        for state in (PodState.DRAINING, PodState.WARM, PodState.DRAINING):
            await writer.heartbeat(pod_record(state=state))
            await seen(reader, lambda s, state=state: {x.pod.state for x in s.leases} == {state})  # type: ignore[misc]
        await writer.deregister(pod_record())
        await seen(reader, lambda s: not s.leases)


async def test_reader_reads_once_more_when_it_begins_to_listen_to_the_stream(
    reader: RegistryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changed between its first read and that moment is in neither."""
    monkeypatch.setattr("everwarm_core.registry.reader.refresh_pause_s", lambda _: 3600.0)
    async with running(reader.run()):
        first = await seen(reader, lambda _: True)
        await seen(reader, lambda s: s is not first)


async def test_refreshes_bring_what_the_stream_does_not(
    redis: Redis, writer: RegistryWriter, reader: RegistryReader
) -> None:
    await writer.heartbeat(pod_record())
    async with running(reader.run()):
        await seen(reader, lambda s: bool(s.leases))
        await writer.heartbeat(pod_record(inflight=3))
        await seen(reader, lambda s: [lease.pod.inflight for lease in s.leases] == [3])


async def test_change_of_another_name_wakes_no_reader_that_does_not_follow_it(redis_url: str) -> None:
    async with RegistryReader(redis_url, "local", follow=["tiny"]) as reader:
        assert reader._concerns({"names": "base,tiny"})
        assert not reader._concerns({"names": "base,tiny.en"})
        assert not reader._concerns({})


async def test_changed_returns_at_once_when_there_is_a_newer_snapshot_already(
    writer: RegistryWriter, reader: RegistryReader
) -> None:
    async with running(reader.run()):
        first = await reader.changed(None)
        second = await reader.changed(first)
        assert second is not first
        assert await reader.changed(first) is reader.snapshot


async def test_changed_wakes_everyone_who_waits(reader: RegistryReader) -> None:
    async with running(reader.run()), asyncio.TaskGroup() as group:
        waiting = [group.create_task(reader.changed(None)) for _ in range(5)]
    assert len({id(task.result()) for task in waiting}) == 1


# --- What it says of itself ----------------------------------------------------------------------------------------


async def test_reader_has_no_snapshot_no_connection_and_infinite_age_before_it_runs(
    reader: RegistryReader,
) -> None:
    assert reader.snapshot is None
    assert not reader.connected
    assert reader.age_s == math.inf


async def test_age_counts_from_the_last_read_on_the_readers_clock(redis_url: str) -> None:
    now = 10.0
    async with RegistryReader(redis_url, "local", clock=lambda: now) as reader:
        async with running(reader.run()):
            await seen(reader, lambda _: True)
            assert reader.connected
        now = 13.5
        assert reader.age_s == pytest.approx(3.5)


# --- Demand --------------------------------------------------------------------------------------------------------


async def test_wanted_name_is_noted_for_a_while(redis: Redis, reader: RegistryReader) -> None:
    await reader.want("large-v3")
    assert await redis.get("everwarm:{local}:wanted:large-v3") == "1"
    assert 0 < await redis.pttl("everwarm:{local}:wanted:large-v3") <= 30_000


async def test_wanted_name_is_noted_once_a_second_however_often_it_is_asked_for(
    redis: Redis, redis_url: str
) -> None:
    now = 0.0
    async with RegistryReader(redis_url, "local", clock=lambda: now) as reader:
        for _ in range(5):
            await reader.want("tiny")
        assert await redis.get("everwarm:{local}:wanted:tiny") == "1"
        now = 1.0
        await reader.want("tiny")
    assert await redis.get("everwarm:{local}:wanted:tiny") == "2"


async def test_wanted_names_are_bounded_when_callers_make_them_up(redis: Redis, redis_url: str) -> None:
    async with RegistryReader(redis_url, "local", clock=lambda: 0.0) as reader:
        for number in range(150):
            await reader.want(f"made-up-{number}")
    assert len(await redis.keys("everwarm:{local}:wanted:*")) == 100


async def test_wanting_raises_nothing_when_redis_is_out_of_reach(own_valkey: OwnedValkey) -> None:
    own_valkey.kill()
    async with RegistryReader(own_valkey.url, "local") as reader:
        await reader.want("tiny")
    assert not reader.connected


# --- Its end -------------------------------------------------------------------------------------------------------


async def test_run_closes_its_connections_when_it_is_cancelled(
    redis_url: str, reader: RegistryReader
) -> None:
    with SyncRedis.from_url(redis_url) as redis:

        def connected() -> set[str]:
            return {client["id"] for client in redis.client_list()}

        before = connected()  # some of which the server may not have seen leaving yet
        async with running(reader.run()):
            await seen(reader, lambda _: True)
        await until(lambda: connected() <= before)


async def test_run_ends_when_it_is_cancelled_in_whatever_moment(
    writer: RegistryWriter, redis_url: str
) -> None:
    """Each turn of the event loop is another point between sending, waiting and reading."""
    await writer.heartbeat(pod_record())
    for turns in range(60):
        reader = RegistryReader(redis_url, "local")
        async with asyncio.timeout(WAIT_S):
            async with running(reader.run()):
                for _ in range(turns):
                    await asyncio.sleep(0)
