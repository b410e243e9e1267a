"""The task that beats: every second, at once on a change, through outages, until it is cancelled."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.registry.connection import connect
from everwarm_core.registry.records import HEARTBEAT_S, PodRecord, PodState
from everwarm_core.registry.writer import Beat, RegistryWriter, run_heartbeats
from tests.fixtures.logs import Told
from tests.fixtures.records import WAIT_S, pod_record, running
from tests.fixtures.valkey import OwnedValkey


class WatchedWriter(RegistryWriter):
    """A real writer that also keeps what became of each beat, and when each began."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, "local")
        self.beats: list[Beat | RegistryUnavailable] = []
        self.begun_at: list[float] = []
        self._news = asyncio.Condition()

    async def heartbeat(self, record: PodRecord) -> Beat:
        """Beat, and note it."""
        self.begun_at.append(time.monotonic())
        outcome: Beat | RegistryUnavailable
        try:
            outcome = await super().heartbeat(record)
        except RegistryUnavailable as error:
            outcome = error
        self.beats.append(outcome)
        async with self._news:
            self._news.notify_all()
        if isinstance(outcome, RegistryUnavailable):
            raise outcome
        return outcome

    async def until(self, condition: Callable[[list[Beat | RegistryUnavailable]], object]) -> None:
        """Wait until the beats so far meet *condition*."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: condition(self.beats))


@pytest.fixture
async def writer(own_valkey: OwnedValkey) -> AsyncIterator[WatchedWriter]:
    client = connect(own_valkey.url)
    yield WatchedWriter(client)
    await client.aclose()


async def test_heartbeats_come_once_a_second_when_nothing_changes(writer: WatchedWriter) -> None:
    async with running(run_heartbeats(writer, pod_record, asyncio.Event())):
        await writer.until(lambda beats: len(beats) == 3)
    first, _, third = writer.begun_at  # not when Redis had them: the first one connects
    assert third - first > 1.9 * HEARTBEAT_S


async def test_heartbeat_comes_at_once_when_the_record_changed(writer: WatchedWriter) -> None:
    pod, changed = pod_record(state=PodState.WARMING), asyncio.Event()
    async with running(run_heartbeats(writer, lambda: pod, changed, interval_s=3600)):
        await writer.until(len)
        pod = replace(pod, state=PodState.WARM)
        changed.set()
        await writer.until(lambda beats: len(beats) == 2)
    assert not changed.is_set()


async def test_a_beat_waits_for_the_word_before_it_and_tells_what_is_so_then(writer: WatchedWriter) -> None:
    """A beat that began before a pod was warm would take its warmth back."""
    asked = asyncio.Event()

    def current() -> PodRecord:
        asked.set()
        return pod_record()

    async with running(run_heartbeats(writer, current, asyncio.Event(), interval_s=0.01)):
        async with writer.order:
            asked.clear()
            await asyncio.sleep(0.2)  # many beats are due
            assert not asked.is_set()
        async with asyncio.timeout(WAIT_S):
            await asked.wait()


async def test_heartbeats_stop_when_cancelled_and_leave_the_entry_to_their_caller(
    writer: WatchedWriter, own_valkey: OwnedValkey
) -> None:
    async with running(run_heartbeats(writer, pod_record, asyncio.Event())):
        await writer.until(len)
    client = connect(own_valkey.url)
    assert await client.exists("everwarm:{local}:pod:pod-a")
    await client.aclose()


async def test_pod_is_registered_again_within_two_heartbeats_when_redis_was_killed_and_is_back_empty(
    writer: WatchedWriter, own_valkey: OwnedValkey
) -> None:
    async with running(run_heartbeats(writer, pod_record, asyncio.Event())):
        await writer.until(len)
        own_valkey.kill()
        await writer.until(lambda beats: isinstance(beats[-1], RegistryUnavailable))
        own_valkey.start()
        failed = len(writer.beats)
        await writer.until(lambda beats: isinstance(beats[-1], Beat))
    assert len(writer.beats) - failed <= 2
    first, last = writer.beats[0], writer.beats[-1]
    assert isinstance(first, Beat)
    assert isinstance(last, Beat)
    assert last.epoch != first.epoch
    assert last.announced


async def test_outage_is_told_once_when_it_begins_and_once_when_it_ends(
    writer: WatchedWriter, own_valkey: OwnedValkey, told: Told
) -> None:
    async with running(run_heartbeats(writer, pod_record, asyncio.Event(), interval_s=0.05)):
        await writer.until(len)
        own_valkey.kill()
        await writer.until(lambda beats: sum(isinstance(b, RegistryUnavailable) for b in beats) >= 5)
        own_valkey.start()
        await writer.until(lambda beats: isinstance(beats[-1], Beat))
    assert told() == ["registry.lost", "registry.recovered", "registry.emptied"]


async def test_absence_from_the_start_is_told_as_awaited_and_reached(
    writer: WatchedWriter, own_valkey: OwnedValkey, told: Told
) -> None:
    own_valkey.kill()
    async with running(run_heartbeats(writer, pod_record, asyncio.Event(), interval_s=0.05)):
        await writer.until(lambda beats: len(beats) >= 3)
        own_valkey.start()
        await writer.until(lambda beats: isinstance(beats[-1], Beat))
    assert told() == ["registry.awaited", "registry.reached"]


async def test_defect_in_the_record_is_not_mistaken_for_an_outage(writer: WatchedWriter) -> None:
    def broken() -> PodRecord:
        raise LookupError("no record")

    with pytest.raises(LookupError):
        await run_heartbeats(writer, broken, asyncio.Event())
