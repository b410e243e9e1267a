"""Redis killed, emptied, hung or absent from the start: what readers show meanwhile, and how they heal."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from everwarm_core.registry.connection import connect
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import PodRecord
from everwarm_core.registry.view import GRACE_S
from everwarm_core.registry.writer import RegistryWriter, run_heartbeats
from tests.fixtures.logs import Told
from tests.fixtures.records import WAIT_S, ids, pod_record, running, seen, until
from tests.fixtures.valkey import OwnedValkey


class TestClock:
    """Monotonic seconds that only the test moves."""

    __test__ = False  # no class of tests

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
async def redis(own_valkey: OwnedValkey) -> AsyncIterator[Redis]:
    client = connect(own_valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
def writer(redis: Redis) -> RegistryWriter:
    return RegistryWriter(redis, "local")


@pytest.fixture(params=[None, ("base.en",)], ids=["all", "followed"])
def reader(own_valkey: OwnedValkey, clock: TestClock, request: pytest.FixtureRequest) -> RegistryReader:
    return RegistryReader(own_valkey.url, "local", follow=request.param, clock=clock)


async def test_reader_keeps_its_snapshot_frozen_for_as_long_as_redis_is_gone(
    own_valkey: OwnedValkey, writer: RegistryWriter, reader: RegistryReader, clock: TestClock
) -> None:
    await writer.heartbeat(pod_record())
    async with running(reader.run()):
        before = await seen(reader, lambda s: bool(s.leases))
        own_valkey.kill()
        frozen = await seen(reader, lambda s: s.frozen)
        assert not reader.connected
        clock.now += 3600
        assert reader.snapshot is frozen
    assert ids(frozen) == ids(before)
    assert all(frozen.is_held(lease, now=clock.now) for lease in frozen.leases)
    assert reader.age_s >= 3600


async def test_reader_notices_a_broken_connection_without_waiting_for_the_next_refresh(
    own_valkey: OwnedValkey, redis: Redis, reader: RegistryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everwarm_core.registry.reader.refresh_pause_s", lambda _: 3600.0)
    async with running(reader.run()):
        await seen(reader, lambda _: True)
        await until_listening(redis)
        own_valkey.kill()
        await seen(reader, lambda s: s.frozen)


async def test_reader_notices_a_redis_that_hangs_and_recovers_with_it(
    own_valkey: OwnedValkey, writer: RegistryWriter, reader: RegistryReader
) -> None:
    await writer.heartbeat(pod_record())
    async with running(reader.run()):
        await seen(reader, lambda s: bool(s.leases))
        own_valkey.hang()
        await seen(reader, lambda s: s.frozen)
        own_valkey.resume()
        assert ids(await seen(reader, lambda s: not s.frozen)) == {"pod-a"}


async def test_pods_are_carried_when_redis_is_back_empty_and_dropped_when_they_stay_silent(
    own_valkey: OwnedValkey, writer: RegistryWriter, reader: RegistryReader, clock: TestClock
) -> None:
    await writer.heartbeat(pod_record())
    async with running(reader.run()):
        await seen(reader, lambda s: bool(s.leases))
        own_valkey.kill()
        await seen(reader, lambda s: s.frozen)
        own_valkey.start()
        snapshot = await seen(reader, lambda s: not s.frozen)
        assert [lease.carried for lease in snapshot.leases] == [True]
        assert snapshot.by_key["base.en", "en"]
        clock.now += GRACE_S
        assert (await seen(reader, lambda s: not s.leases)).leases == ()


async def test_pods_are_carried_when_redis_is_emptied_under_a_connected_reader(
    redis: Redis, writer: RegistryWriter, reader: RegistryReader
) -> None:
    await writer.heartbeat(pod_record())
    await writer.heartbeat(pod_record("pod-b"))
    async with running(reader.run()):
        await seen(reader, lambda s: len(s.leases) == 2)
        await redis.flushall()
        await writer.heartbeat(pod_record("pod-b"))
        snapshot = await seen(reader, lambda s: any(lease.carried for lease in s.leases))
        assert ids(snapshot) == {"pod-a", "pod-b"}
        await writer.heartbeat(pod_record())
        await seen(reader, lambda s: len(s.leases) == 2 and not any(lease.carried for lease in s.leases))


async def test_carried_pod_goes_at_once_when_it_says_that_it_leaves(
    own_valkey: OwnedValkey, writer: RegistryWriter, reader: RegistryReader
) -> None:
    await writer.heartbeat(pod_record())
    await writer.heartbeat(pod_record("pod-b"))
    async with running(reader.run()):
        await seen(reader, lambda s: len(s.leases) == 2)
        own_valkey.kill()
        await seen(reader, lambda s: s.frozen)
        own_valkey.start()
        await seen(reader, lambda s: all(lease.carried for lease in s.leases))
        await writer.heartbeat(pod_record())
        await writer.deregister(pod_record())
        assert ids(await seen(reader, lambda s: len(s.leases) < 2)) == {"pod-b"}


async def test_writer_and_reader_heal_within_two_heartbeats_when_redis_was_killed_and_is_back_empty(
    own_valkey: OwnedValkey, writer: RegistryWriter
) -> None:
    beats = 0

    def current() -> PodRecord:
        nonlocal beats
        beats += 1
        return pod_record()

    reader = RegistryReader(own_valkey.url, "local", follow=["base.en"])
    async with running(reader.run(), run_heartbeats(writer, current, asyncio.Event())):
        before = await seen(reader, lambda s: bool(s.by_name))
        own_valkey.kill()
        await seen(reader, lambda s: s.frozen)
        own_valkey.start()
        beats = 0
        after = await seen(reader, lambda s: not s.frozen and any(not lease.carried for lease in s.leases))
    assert after.epoch != before.epoch
    assert beats <= 2  # and not seconds, of which a busy machine may lose some


async def test_reader_waits_for_a_redis_that_is_not_there_yet(
    own_valkey: OwnedValkey, writer: RegistryWriter, reader: RegistryReader, told: Told
) -> None:
    own_valkey.kill()
    async with running(reader.run()):
        await until(lambda: bool(told()))
        assert reader.snapshot is None
        assert not reader.connected
        own_valkey.start()
        await writer.heartbeat(pod_record())
        await seen(reader, lambda s: bool(s.leases))
    assert told() == ["registry.awaited", "registry.reached"]


async def test_outage_is_told_once_when_it_begins_and_once_when_it_ends(
    own_valkey: OwnedValkey, writer: RegistryWriter, reader: RegistryReader, told: Told
) -> None:
    await writer.heartbeat(pod_record())
    async with running(reader.run()):
        await seen(reader, lambda s: bool(s.leases))
        own_valkey.kill()
        await seen(reader, lambda s: s.frozen)
        own_valkey.start()
        await seen(reader, lambda s: not s.frozen)
    assert told() == ["registry.lost", "registry.recovered", "registry.emptied"]


async def test_stream_brings_news_again_when_it_started_over(
    redis: Redis, writer: RegistryWriter, reader: RegistryReader
) -> None:
    """After a flush the new stream's ids may be anything; here they are lower than those read before."""
    await redis.xadd("everwarm:{local}:changes", {"pod": "x"}, id="9999999999999-0")
    await redis.set("everwarm:{local}:epoch", "first")
    async with running(reader.run()):
        await seen(reader, lambda _: True)
        await redis.flushall()
        await writer.heartbeat(pod_record())
        await seen(reader, lambda s: bool(s.leases))
        await until(lambda: (reader._cursor or "9")[0] < "9")


async def until_listening(redis: Redis) -> None:
    """Wait until some reader blocks on the stream; nothing announces that."""
    async with asyncio.timeout(WAIT_S):
        while not any(client["cmd"] == "xread" for client in await redis.client_list()):  # noqa: ASYNC110 - nothing does
            await asyncio.sleep(0.01)
