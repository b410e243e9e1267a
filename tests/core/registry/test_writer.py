"""What a pod writes, as any other program sees it with plain Redis commands."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.registry.connection import connect
from everwarm_core.registry.records import PodState
from everwarm_core.registry.writer import CHANGES_LENGTH, RegistryWriter
from tests.fixtures.records import pod_record
from tests.fixtures.valkey import OwnedValkey

KEY = "everwarm:{local}:"
TTL_MS = 5000


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def writer(redis: Redis) -> RegistryWriter:
    return RegistryWriter(redis, "local")


async def now_ms(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return seconds * 1000 + micros // 1000


async def warm_for(redis: Redis, name: str, language: str) -> list[str]:
    """Who is warm, the way the contract says to ask."""
    return [
        str(p) for p in await redis.zrangebyscore(f"{KEY}warm:{name}:{language}", await now_ms(redis), "+inf")
    ]


async def changes(redis: Redis) -> list[dict[str, str]]:
    entries: Any = await redis.xrange(f"{KEY}changes")
    return [fields for _, fields in entries]


async def until_redis_time(redis: Redis, at_ms: int) -> None:
    while await now_ms(redis) <= at_ms:
        pass


# --- The keys of the contract --------------------------------------------------------------------------------------


async def test_warm_pod_is_found_under_every_name_and_language_it_serves(
    redis: Redis, writer: RegistryWriter
) -> None:
    await writer.heartbeat(pod_record(languages=("en", "auto")))
    for name in ("base.en", "whisper-1"):
        for language in ("en", "auto"):
            assert await warm_for(redis, name, language) == ["pod-a"]
    assert await warm_for(redis, "base.en", "de") == []


async def test_expiry_is_a_ttl_from_now_on_the_clock_of_redis(redis: Redis, writer: RegistryWriter) -> None:
    before = await now_ms(redis)
    beat = await writer.heartbeat(pod_record())
    after = await now_ms(redis)
    assert before <= beat.now_ms <= after
    for key in ("pods", "pods:base.en", "warm:base.en:en", "warm:whisper-1:en"):
        assert await redis.zscore(KEY + key, "pod-a") == beat.now_ms + TTL_MS


async def test_hash_holds_the_record_and_dies_with_the_lease(redis: Redis, writer: RegistryWriter) -> None:
    pod = pod_record(inflight=3)
    await writer.heartbeat(pod)
    assert await redis.hgetall(f"{KEY}pod:pod-a") == pod.to_hash()
    assert 0 < await redis.pttl(f"{KEY}pod:pod-a") <= TTL_MS


async def test_every_key_but_epoch_and_changes_dies_by_itself(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record())
    ttls = {str(key).removeprefix(KEY): await redis.pttl(key) for key in await redis.keys("*")}
    assert {key for key, ttl in ttls.items() if ttl == -1} == {"epoch", "changes"}
    assert all(ttl <= TTL_MS for ttl in ttls.values())


async def test_index_lists_pods_in_every_state(redis: Redis, writer: RegistryWriter) -> None:
    for state in PodState:
        await writer.heartbeat(pod_record(f"pod-{state.value}", state=state))
    expected = {f"pod-{state.value}" for state in PodState}
    assert set(await redis.zrange(f"{KEY}pods", 0, -1)) == expected
    assert set(await redis.zrange(f"{KEY}pods:base.en", 0, -1)) == expected


async def test_namespaces_do_not_see_each_other(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record())
    await RegistryWriter(redis, "other").heartbeat(pod_record("pod-b"))
    assert await redis.zrange(f"{KEY}pods", 0, -1) == ["pod-a"]


async def test_hash_has_no_fields_left_of_another_version(redis: Redis, writer: RegistryWriter) -> None:
    await redis.hset(f"{KEY}pod:pod-a", "from_the_past", "1")
    await writer.heartbeat(pod_record())
    assert await redis.hgetall(f"{KEY}pod:pod-a") == pod_record().to_hash()


# --- Warm, and no longer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [s for s in PodState if s is not PodState.WARM])
async def test_pod_is_not_found_when_it_is_not_warm(
    redis: Redis, writer: RegistryWriter, state: PodState
) -> None:
    await writer.heartbeat(pod_record(state=state))
    assert await warm_for(redis, "base.en", "en") == []


async def test_draining_takes_the_pod_away_at_once(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record(languages=("en", "auto")))
    await writer.heartbeat(pod_record(languages=("en", "auto"), state=PodState.DRAINING))
    assert await warm_for(redis, "base.en", "en") == []
    assert await warm_for(redis, "whisper-1", "auto") == []
    assert await redis.hget(f"{KEY}pod:pod-a", "state") == "draining"


async def test_restarted_process_takes_its_predecessors_keys_away_at_once(
    redis: Redis, writer: RegistryWriter
) -> None:
    """A container that restarts keeps its pod's id, but not what the dead process had proven."""
    await writer.heartbeat(pod_record(languages=("en", "de"), names=("base", "whisper-1")))
    await writer.heartbeat(pod_record(languages=(), names=("base",), boot="second", state=PodState.LOADING))
    assert await warm_for(redis, "base", "en") == []
    assert await warm_for(redis, "whisper-1", "de") == []
    assert await redis.zrange(f"{KEY}pods:whisper-1", 0, -1) == []
    assert await redis.zrange(f"{KEY}pods:base", 0, -1) == ["pod-a"]


async def test_pod_is_not_found_when_its_lease_ran_out_on_the_clock_of_redis(redis: Redis) -> None:
    beat = await RegistryWriter(redis, "local", ttl_s=0.001).heartbeat(pod_record())
    await until_redis_time(redis, beat.now_ms + 1)
    assert await warm_for(redis, "base.en", "en") == []
    assert await redis.hgetall(f"{KEY}pod:pod-a") == {}


async def test_heartbeat_sweeps_out_leases_that_ran_out(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record())
    for key in ("pods", "pods:base.en", "warm:base.en:en"):
        await redis.zadd(KEY + key, {"pod-dead": await now_ms(redis) - 1})
    await writer.heartbeat(pod_record())
    for key in ("pods", "pods:base.en", "warm:base.en:en"):
        assert await redis.zrange(KEY + key, 0, -1) == ["pod-a"]


async def test_short_lease_does_not_shorten_those_of_others(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record())
    beat = await RegistryWriter(redis, "local", ttl_s=0.001).heartbeat(pod_record("pod-b"))
    await until_redis_time(redis, beat.now_ms + 1)
    assert await warm_for(redis, "base.en", "en") == ["pod-a"]


# --- Epoch ---------------------------------------------------------------------------------------------------------


async def test_epoch_is_set_once_and_stays(redis: Redis, writer: RegistryWriter) -> None:
    first = await writer.heartbeat(pod_record())
    second = await RegistryWriter(redis, "local").heartbeat(pod_record("pod-b"))
    assert first.epoch == second.epoch == await redis.get(f"{KEY}epoch")
    assert len(first.epoch) >= 16


async def test_epoch_is_another_one_when_redis_lost_everything(redis: Redis, writer: RegistryWriter) -> None:
    first = await writer.heartbeat(pod_record())
    await redis.flushall()
    assert (await writer.heartbeat(pod_record())).epoch != first.epoch


async def test_one_heartbeat_restores_everything_when_redis_lost_everything(
    redis: Redis, writer: RegistryWriter
) -> None:
    await writer.heartbeat(pod_record())
    before = {str(key) for key in await redis.keys("*")}
    await redis.flushall()
    await redis.script_flush()
    beat = await writer.heartbeat(pod_record())
    assert beat.announced
    assert {str(key) for key in await redis.keys("*")} == before


# --- Changes -------------------------------------------------------------------------------------------------------


async def test_changes_tell_every_state_in_order_and_no_heartbeat(
    redis: Redis, writer: RegistryWriter
) -> None:
    life = [PodState.LOADING, PodState.WARMING, PodState.WARM, PodState.DRAINING]
    for state in life:
        for inflight in range(3):
            await writer.heartbeat(pod_record(state=state, inflight=inflight))
    await writer.deregister(pod_record(state=PodState.DRAINING))
    assert [entry["state"] for entry in await changes(redis)] == [*life, "gone"]


async def test_change_says_which_pod_which_names_and_which_process(
    redis: Redis, writer: RegistryWriter
) -> None:
    await writer.heartbeat(pod_record())
    assert await changes(redis) == [
        {
            "pod": "pod-a",
            "state": "warm",
            "model": "base.en",
            "names": "base.en,whisper-1",
            "languages": "en",
            "boot": "boot-a",
        }
    ]


@pytest.mark.parametrize(
    "change", [{"languages": ("en", "auto")}, {"boot": "second"}, {"names": ("base.en",)}], ids=str
)
async def test_changes_tell_more_languages_another_process_and_other_names(
    redis: Redis, writer: RegistryWriter, change: dict[str, object]
) -> None:
    await writer.heartbeat(pod_record())
    assert (await writer.heartbeat(replace(pod_record(), **change))).announced  # type: ignore[arg-type]  # by name
    assert not (await writer.heartbeat(replace(pod_record(), **change))).announced  # type: ignore[arg-type]  # by name
    assert len(await changes(redis)) == 2


async def test_changes_are_trimmed(redis: Redis, writer: RegistryWriter) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(CHANGES_LENGTH + 500):
            pipe.execute_command("XADD", f"{KEY}changes", "*", "pod", "x")
        await pipe.execute()
    await writer.heartbeat(pod_record())
    assert await redis.xlen(f"{KEY}changes") < CHANGES_LENGTH + 200  # trimmed by whole nodes of a hundred


# --- Leaving -------------------------------------------------------------------------------------------------------


async def test_deregistering_removes_everything_the_pod_wrote(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record())
    assert await writer.deregister(pod_record())
    assert {str(key).removeprefix(KEY) for key in await redis.keys("*")} == {"epoch", "changes"}


async def test_deregistering_leaves_other_pods_alone(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record())
    await writer.heartbeat(pod_record("pod-b"))
    await writer.deregister(pod_record())
    assert await warm_for(redis, "base.en", "en") == ["pod-b"]
    assert await redis.zrange(f"{KEY}pods", 0, -1) == ["pod-b"]


async def test_deregistering_is_no_news_when_the_pod_is_gone_already(
    redis: Redis, writer: RegistryWriter
) -> None:
    assert not await writer.deregister(pod_record())
    assert await changes(redis) == []


async def test_late_deregistration_leaves_the_successor_alone(redis: Redis, writer: RegistryWriter) -> None:
    await writer.heartbeat(pod_record(boot="second"))
    assert not await writer.deregister(pod_record(boot="first"))
    assert await warm_for(redis, "base.en", "en") == ["pod-a"]


# --- Failure -------------------------------------------------------------------------------------------------------


async def test_heartbeat_says_that_the_registry_is_unavailable_when_nothing_listens(
    own_valkey: OwnedValkey,
) -> None:
    own_valkey.kill()
    client = connect(own_valkey.url)
    with pytest.raises(RegistryUnavailable, match="Redis URL"):
        await RegistryWriter(client, "local").heartbeat(pod_record())
    await client.aclose()


async def test_heartbeat_gives_up_in_time_when_redis_hangs(own_valkey: OwnedValkey) -> None:
    client = connect(own_valkey.url)
    writer = RegistryWriter(client, "local")
    await writer.heartbeat(pod_record())
    own_valkey.hang()
    with pytest.raises(RegistryUnavailable):
        await writer.heartbeat(pod_record())
    own_valkey.resume()
    assert (await writer.heartbeat(pod_record())).epoch
    await client.aclose()


async def test_heartbeat_is_tried_once_when_the_connection_breaks() -> None:
    """The next heartbeat is the retry; retries inside one would make beats overlap."""
    attempts = 0

    async def hang_up(_: asyncio.StreamReader, peer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        peer.close()
        await peer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1") as server:
        client = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(RegistryUnavailable):
            await RegistryWriter(client, "local").heartbeat(pod_record())
        await client.aclose()
    assert attempts == 1


async def test_heartbeat_says_what_redis_said_when_it_refuses(redis: Redis, writer: RegistryWriter) -> None:
    await redis.set(f"{KEY}pods", "not a set")
    with pytest.raises(RegistryUnavailable, match="WRONGTYPE"):
        await writer.heartbeat(pod_record())
