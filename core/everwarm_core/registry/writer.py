"""What a pod tells the registry: one Lua call per heartbeat, and one when it leaves.

Leases expire on the Redis server's clock, so a pod whose clock is wrong, or that hangs, cannot look warm for long;
deregistering only makes it sooner. Each beat writes all there is to say, so a Redis that lost everything is whole
again one heartbeat after it is back, and the writer need not know that anything happened. State changes, and only
those, go to the `changes` stream. A pod that dies without a word leaves no entry there: its lease lapses.

Called by the pod's heartbeat task and by its turns, nobody else. They take turns in `order`, since each has a connection of
its own: a beat on its way could come after the word of a newer state, and take it back.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, NoReturn, Protocol

from redis.asyncio import Redis

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.logs import library_logger
from everwarm_core.registry.connection import OutageLog, pipeline, reaching_redis
from everwarm_core.registry.names import KeyNames
from everwarm_core.registry.records import ENTRY_TTL_S, HEARTBEAT_S, PodRecord, PodState, parse_list

CHANGES_LENGTH: Final = (
    1000  # a rollout of hundreds of pods; readers never need more than what is newer than they
)

log = library_logger(__name__)


@dataclass(frozen=True, slots=True)
class Beat:
    """What Redis answered to one heartbeat.

    now_ms: its clock, Unix milliseconds; epoch: another one than last time means that it came back empty; announced:
    whether this beat went to the `changes` stream.
    """

    now_ms: int
    epoch: str
    announced: bool


class Signal(Protocol):
    """The part of asyncio.Event that the heartbeat needs."""

    async def wait(self) -> object:
        """Return once the signal is set."""

    def clear(self) -> None:
        """Take the signal back."""


class RegistryWriter:
    """Writes pods' records to *namespace* of *redis*, a client from `connection.connect`, which stays the caller's.

    ttl_s: seconds after which an entry lapses without a heartbeat; the same for every pod of a namespace. order: held by
    who writes, from taking the record until Redis has it.
    """

    def __init__(self, redis: Redis, namespace: str, *, ttl_s: float = ENTRY_TTL_S) -> None:
        self.order: Final = asyncio.Lock()
        self._redis = redis
        self._keys = KeyNames(namespace)
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._beat = redis.register_script(_script("heartbeat.lua"))
        self._leave = redis.register_script(_script("deregister.lua"))

    async def heartbeat(self, record: PodRecord) -> Beat:
        """Write *record* and renew its lease, in one call.

        When the entry held names or languages that *record* no longer has (a restarted process under the id of its
        predecessor), a second call takes the pod out of those sets. Raises RegistryUnavailable.
        """
        names = self._keys
        members = [names.pods_of(name) for name in record.names]
        warm = _warm_keys(names, record.names, record.languages)
        is_warm = record.state is PodState.WARM
        members += warm if is_warm else []
        others = [] if is_warm else warm
        fields = [text for item in record.to_hash().items() for text in item]
        async with reaching_redis():
            now_ms, epoch, announced, old_names, old_languages = await self._beat(
                keys=[names.pods, names.pod(record.id), names.epoch, names.changes, *members, *others],
                args=[record.id, self._ttl_ms, secrets.token_hex(8), CHANGES_LENGTH, len(members), *fields],
            )
            served = parse_list(old_names)
            before = {*map(names.pods_of, served), *_warm_keys(names, served, parse_list(old_languages))}
            await self._take_out(record.id, before.difference(members, others))
        return Beat(int(now_ms), str(epoch), bool(announced))

    async def deregister(self, record: PodRecord) -> bool:
        """Remove all that *record*'s process wrote; False when it is gone already, or a newer process has the id.

        Raises RegistryUnavailable; the entry then lapses by itself.
        """
        names = self._keys
        sets = [names.pods, *map(names.pods_of, record.names)]
        sets += _warm_keys(names, record.names, record.languages)
        keys = [names.pod(record.id), names.changes, *sets]
        fields = record.to_hash()
        args = (record.id, record.boot, CHANGES_LENGTH, fields["model"], fields["names"], fields["languages"])
        async with reaching_redis():
            return bool(await self._leave(keys=keys, args=args))

    async def _take_out(self, pod_id: str, keys: Collection[str]) -> None:
        if not keys:
            return
        async with pipeline(self._redis, is_atomic=True) as pipe:
            for key in keys:
                pipe.zrem(key, pod_id)
            await pipe.execute()


async def run_heartbeats(
    writer: RegistryWriter,
    current: Callable[[], PodRecord],
    changed: Signal,
    *,
    interval_s: float = HEARTBEAT_S,
) -> NoReturn:
    """Beat every *interval_s* seconds until cancelled, and at once when *changed* is set.

    current: the record to write, asked at each beat. Nothing is retried inside a beat: the next one is the retry. An
    outage of Redis is logged once and raises nothing. Leaving the registry is the caller's, after the cancellation.
    """
    outage = OutageLog("writer")
    epoch: str | None = None
    while True:
        due = time.monotonic() + interval_s
        changed.clear()  # before the record is taken: a change during the beat brings the next one forward
        try:
            async with writer.order:
                record = current()
                beat = await writer.heartbeat(record)
        except RegistryUnavailable as error:
            outage.failed(error)
        else:
            outage.succeeded()
            if epoch is not None and beat.epoch != epoch:
                log.info("registry.emptied", pod=record.id, state=record.state.value)
            epoch = beat.epoch
        await _wait_until(due, changed)


async def _wait_until(due: float, changed: Signal) -> None:
    try:
        async with asyncio.timeout(max(0.0, due - time.monotonic())):
            await changed.wait()
    except TimeoutError:
        return


def _warm_keys(keys: KeyNames, names: Sequence[str], languages: Sequence[str]) -> list[str]:
    return [keys.warm(name, language) for name in names for language in languages]


def _script(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
