"""Any sequence of heartbeats, lapses, departures and losses: what readers see equals a plain Python model.

Against a real Valkey, through the real writer and reader; the model is a dict.
"""

import asyncio
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from everwarm_core.registry.connection import connect
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import PodRecord, PodState, Snapshot
from everwarm_core.registry.view import View, after_reading
from everwarm_core.registry.writer import RegistryWriter
from tests.fixtures.records import FEW_IDS, few_records

KEY: Final = "everwarm:{model}:"
NAMES: Final = ("base.en", "tiny", "whisper-1")
LANGUAGES: Final = ("en", "de", "auto")


class RegistryMachine(RuleBasedStateMachine):
    """Rules act on Redis and on `held`, what a registry should then hold: pod id to record."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.held: dict[str, PodRecord] = {}
        self.told: list[tuple[str, str]] = []
        self.redis: Redis = connect(self.url)
        self.writer = RegistryWriter(self.redis, "model", ttl_s=600)
        self.brief_writer = RegistryWriter(self.redis, "model", ttl_s=0.001)
        self.all_reader = RegistryReader(self.url, "model")
        self.tiny_reader = RegistryReader(self.url, "model", follow=["tiny"])
        self.runner.run(self._empty())

    def teardown(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    @rule(pod=few_records())
    def beat(self, pod: PodRecord) -> None:
        self._tell_if_changed(pod)
        self.runner.run(self.writer.heartbeat(pod))
        self.held[pod.id] = pod

    @rule(pod=few_records())
    def beat_for_the_last_time(self, pod: PodRecord) -> None:
        """A pod that dies without a word: its lease lapses on Redis' clock."""
        self._tell_if_changed(pod)
        self.runner.run(self._beat_and_lapse(pod))
        self.held.pop(pod.id, None)

    @rule(pod_id=FEW_IDS)
    def leave(self, pod_id: str) -> None:
        if pod := self.held.pop(pod_id, None):
            self.told.append((pod_id, "gone"))
            assert self.runner.run(self.writer.deregister(pod))

    @rule(pod_id=FEW_IDS, boot=st.just("earlier"))
    def leave_late(self, pod_id: str, boot: str) -> None:
        """The word of a process whose successor has registered already."""
        if pod := self.held.get(pod_id):
            earlier = PodRecord.from_hash(pod_id, {**pod.to_hash(), "boot": boot})
            assert earlier is not None
            assert not self.runner.run(self.writer.deregister(earlier))

    @rule()
    def lose_everything(self) -> None:
        self.runner.run(self._empty())
        self.held.clear()
        self.told.clear()

    @invariant()
    def reader_of_everything_sees_the_model(self) -> None:
        assert _pods(self.runner.run(self._read(self.all_reader))) == self.held

    @invariant()
    def reader_of_one_name_sees_its_part_of_the_model(self) -> None:
        expected = {pod_id: pod for pod_id, pod in self.held.items() if "tiny" in pod.names}
        assert _pods(self.runner.run(self._read(self.tiny_reader))) == expected

    @invariant()
    def warm_sets_hold_exactly_who_is_warm(self) -> None:
        expected = {
            (name, language): {
                pod.id
                for pod in self.held.values()
                if pod.state is PodState.WARM and name in pod.names and language in pod.languages
            }
            for name in NAMES
            for language in LANGUAGES
        }
        assert self.runner.run(self._warm()) == expected

    @invariant()
    def changes_tell_every_change_and_nothing_else(self) -> None:
        entries = self.runner.run(self._changes())
        assert entries == self.told

    def _tell_if_changed(self, pod: PodRecord) -> None:
        before = self.held.get(pod.id)
        if before is None or (before.state, before.names, before.languages) != (
            pod.state,
            pod.names,
            pod.languages,
        ):
            self.told.append((pod.id, pod.state.value))

    async def _beat_and_lapse(self, pod: PodRecord) -> None:
        beat = await self.brief_writer.heartbeat(pod)
        while await self._now_ms() <= beat.now_ms + 1:
            pass

    async def _read(self, reader: RegistryReader) -> Snapshot:
        """One refresh, as `run` makes it."""
        reading = await reader._read(reader._names(), known=reader._known)
        reader._known = reading.hashes
        snapshot = after_reading(View(), reading).snapshot
        assert snapshot is not None
        return snapshot

    async def _warm(self) -> dict[tuple[str, str], set[str]]:
        now = await self._now_ms()
        return {
            (name, language): {
                str(pod)
                for pod in await self.redis.zrangebyscore(f"{KEY}warm:{name}:{language}", now, "+inf")
            }
            for name in NAMES
            for language in LANGUAGES
        }

    async def _changes(self) -> list[tuple[str, str]]:
        entries = await self.redis.xrange(f"{KEY}changes")
        return [(str(fields["pod"]), str(fields["state"])) for _, fields in entries or () if fields]

    async def _now_ms(self) -> int:
        seconds, micros = await self.redis.time()
        return seconds * 1000 + micros // 1000

    async def _empty(self) -> None:
        await self.redis.flushall()

    async def _close(self) -> None:
        await self.redis.aclose()
        await self.all_reader.aclose()
        await self.tiny_reader.aclose()


def _pods(snapshot: Snapshot) -> dict[str, PodRecord]:
    return {lease.pod.id: lease.pod for lease in snapshot.leases}


@pytest.mark.timeout(60)
def test_registry_equals_its_model_after_any_sequence_of_events(redis_url: str) -> None:
    machine = type("Machine", (RegistryMachine,), {"url": redis_url})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=15, deadline=None)
    )
