"""What everyone but the pods does with the registry: keep a snapshot of it that is at most a second old.

Each second, with jitter, one pipeline re-reads what the reader follows: Redis' time, the epoch, the index of each
name, and of the pods known so far what can change in their records; a second one fetches whole records of processes
not seen before (a whole one costs three times as much to parse). That alone is enough. A blocking XREAD on `changes`, on a connection of its own, only brings the next read forward; since every
read is a full one, entries that were trimmed or missed cost nothing but that second. How readings, outages and
departures become snapshots is decided in `view`, without I/O.

A reader starts without Redis and never raises because of it: `snapshot` is None until the first read, and afterwards
stays, frozen, for as long as Redis is out of reach.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from random import random
from typing import Any, Final, Self

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.logs import library_logger
from everwarm_core.registry.connection import (
    BLOCK_S,
    EXCHANGE_TIMEOUT_S,
    OutageLog,
    connect,
    pipeline,
    reaching_redis,
)
from everwarm_core.registry.names import KeyNames
from everwarm_core.registry.records import VOLATILE_FIELDS, Snapshot, parse_list
from everwarm_core.registry.view import (
    Reading,
    View,
    after_departures,
    after_loss,
    after_reading,
    backoff_s,
    latest_expiries,
    refresh_pause_s,
    renewed,
)

MAX_FOLLOWED: Final = (
    1000  # names come from callers, so there must be an end; the ones asked for least go first
)
MAX_PODS: Final = 5000  # per name or namespace; one read of more would not end before leases lapse
COALESCE_S: Final = 0.02  # changes come in bursts (a rollout); one read answers those of this time
RECORDS_AT_ONCE: Final = 500  # whole ones; so the first read of many pods is several exchanges, each in time
CHANGES_AT_ONCE: Final = 200
WANTED_TTL_S: Final = 30.0  # demand that was not repeated for so long is no demand
WANTED_EVERY_S: Final = 1.0  # per name; a thousand waiting callers are one note
MAX_WANTED: Final = 100  # names noted at a time: they come from callers and become keys

Hashes = Mapping[str, Mapping[str, str]]

log = library_logger(__name__)


class RegistryReader:
    """Snapshots of *namespace* in the Redis at *url*.

    follow: names to keep track of, to which `follow` adds; None for every pod there is. clock: monotonic seconds, on
    which leases of the snapshots expire. Nothing happens before `run`, which one task runs; `read_all` and `want`
    work without it. Close with `aclose` or `async with`; the end of `run` closes too.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        follow: Iterable[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = KeyNames(namespace)
        self._redis = connect(url)
        self._blocking_redis = connect(url)
        self._clock = clock
        self._followed: OrderedDict[str, None] | None = None if follow is None else OrderedDict()
        self._view = View()
        self._known: Hashes = {}
        self._cursor: str | None = None
        self._read_at: float | None = None
        self._wanted: dict[str, float] = {}
        self._outage = OutageLog("reader", clock=clock)
        self._sooner = asyncio.Event()
        self._published = asyncio.Event()
        for name in follow or ():
            self.follow(name)

    async def __aenter__(self) -> Self:
        """The reader itself; starts nothing."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; they open again when the reader is used again."""
        await self._redis.aclose()
        await self._blocking_redis.aclose()

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; None until Redis was reached once."""
        return self._view.snapshot

    @property
    def connected(self) -> bool:
        """Whether the last read succeeded."""
        return self._read_at is not None and not self._outage.is_lost

    @property
    def age_s(self) -> float:
        """Seconds since Redis was last read; infinite before the first time."""
        return math.inf if self._read_at is None else self._clock() - self._read_at

    def follow(self, name: str) -> None:
        """From the next snapshot on, which is made at once, include the pods of *name*.

        A thousand names are followed at most; the one asked for longest ago makes room.
        """
        if self._followed is None:
            return
        if name not in self._followed:
            self._sooner.set()
        self._followed[name] = None
        self._followed.move_to_end(name)
        if len(self._followed) > MAX_FOLLOWED:
            self._followed.popitem(last=False)

    async def changed(self, after: Snapshot | None) -> Snapshot:
        """The newest snapshot, as soon as it is another one than *after*; waits for ever while there is none."""
        while (snapshot := self._view.snapshot) is None or snapshot is after:
            await self._published.wait()
        return snapshot

    async def covering(self, name: str) -> Snapshot:
        """Follow *name*; the first snapshot in which its pods would be. The caller bounds the wait."""
        self.follow(name)
        snapshot = await self.changed(None)
        while not snapshot.covers(name):
            snapshot = await self.changed(snapshot)
        return snapshot

    async def read_all(self) -> Snapshot:
        """Every pod there is, read now, whatever is followed. Raises RegistryUnavailable."""
        return after_reading(View(), await self._read(None, known={})).snapshot or Snapshot(0.0, "")

    async def want(self, name: str) -> None:
        """Note that somebody asks for *name* and nobody holds it, for whoever may scale it from zero.

        At most one note a second and name; one that cannot be written is dropped, for the caller asks again.
        """
        now = self._clock()
        self._wanted = {n: at for n, at in self._wanted.items() if now - at < WANTED_EVERY_S}
        if name in self._wanted or len(self._wanted) >= MAX_WANTED:
            return
        self._wanted[name] = now
        key = self._keys.wanted(name)
        with suppress(RegistryUnavailable):
            async with reaching_redis(), pipeline(self._redis, is_atomic=True) as pipe:
                pipe.incr(key)
                pipe.pexpire(key, round(WANTED_TTL_S * 1000))
                await pipe.execute()

    async def run(self) -> None:
        """Keep the snapshot fresh until cancelled; an outage of Redis is logged once and raises nothing."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._poll(), name="registry.poll")
                group.create_task(self._watch(), name="registry.watch")
        finally:
            await self.aclose()

    async def _poll(self) -> None:
        failures = 0
        while True:
            self._sooner.clear()  # before reading: what changes meanwhile brings the next read forward
            try:
                reading = await self._read(self._names(), known=self._known)
            except RegistryUnavailable as error:
                failures += 1
                self._outage.failed(error)
                self._show(after_loss(self._view))
                await asyncio.sleep(backoff_s(failures, random()))  # noqa: S311 - jitter
                continue
            failures = 0
            self._outage.succeeded()
            self._take_over(reading)
            await self._until_due(refresh_pause_s(random()))  # noqa: S311 - jitter

    async def _until_due(self, pause_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._sooner.wait()
        if self._sooner.is_set():
            await asyncio.sleep(COALESCE_S)

    def _take_over(self, reading: Reading) -> None:
        last = self._view.snapshot
        if last is not None and last.epoch != reading.epoch:
            self._cursor = "0-0"  # another stream, whose entries are all news
            if last.epoch:
                log.info("registry.emptied", role="reader")
        self._read_at = reading.asked_at
        self._known = reading.hashes
        self._show(after_reading(self._view, reading))

    def _show(self, view: View) -> None:
        is_news = view.snapshot is not self._view.snapshot
        self._view = view
        if is_news:
            published, self._published = self._published, asyncio.Event()
            published.set()

    async def _watch(self) -> None:
        failures = 0
        while True:
            try:
                async with reaching_redis(BLOCK_S + EXCHANGE_TIMEOUT_S):
                    entries = await self._next_changes()
            except RegistryUnavailable:
                failures += 1
                if failures == 1:
                    self._sooner.set()  # `_poll` decides whether Redis is lost, and tells so
                await asyncio.sleep(backoff_s(failures, random()))  # noqa: S311 - jitter
                continue
            failures = 0
            if any(self._concerns(fields) for fields in entries):
                self._sooner.set()
            gone = {(e.get("pod", ""), e.get("boot", "")) for e in entries if e.get("state") == "gone"}
            if gone:
                self._show(after_departures(self._view, gone))

    async def _next_changes(self) -> list[Mapping[str, str]]:
        """The fields of the next entries; empty when none came for a while."""
        if self._cursor is None:
            newest = await self._blocking_redis.xrevrange(self._keys.changes, count=1)
            self._cursor = str(newest[0][0]) if newest else "0-0"
            self._sooner.set()  # what happened between the first read and this cursor
        cursor = self._cursor
        replies: Any = await self._blocking_redis.xread(
            {self._keys.changes: cursor}, count=CHANGES_AT_ONCE, block=round(BLOCK_S * 1000)
        )
        entries = [entry for _, stream in replies or () for entry in stream]
        if entries and self._cursor == cursor:  # else another epoch was seen meanwhile
            self._cursor = entries[-1][0]
        return [fields for _, fields in entries]

    def _concerns(self, fields: Mapping[str, str]) -> bool:
        if self._followed is None:
            return True
        return not self._followed.keys().isdisjoint(parse_list(fields.get("names", "")))

    def _names(self) -> frozenset[str] | None:
        return None if self._followed is None else frozenset(self._followed)

    async def _read(self, names: frozenset[str] | None, *, known: Hashes) -> Reading:
        """One reading of the pods of *names*, or of all; *known*: hashes by pod id, of which only changes are read."""
        indexes = [self._keys.pods] if names is None else [self._keys.pods_of(name) for name in sorted(names)]
        asked_at = self._clock()
        async with reaching_redis(), pipeline(self._redis) as pipe:
            pipe.time()
            pipe.get(self._keys.epoch)
            for index in indexes:
                pipe.zrange(index, 0, MAX_PODS - 1, desc=True, withscores=True)
            for pod_id in known:
                pipe.hmget(self._keys.pod(pod_id), VOLATILE_FIELDS)
            (seconds, micros), epoch, *replies = await pipe.execute()
        expiries = latest_expiries(replies[: len(indexes)])
        hashes = {
            pod_id: fields
            for (pod_id, before), volatile in zip(known.items(), replies[len(indexes) :], strict=True)
            if pod_id in expiries and (fields := renewed(before, volatile))
        }
        new = [pod_id for pod_id in expiries if pod_id not in hashes]
        for start in range(0, len(new), RECORDS_AT_ONCE):
            hashes |= await self._records(new[start : start + RECORDS_AT_ONCE])
        return Reading(
            asked_at=asked_at,
            now_ms=seconds * 1000 + micros / 1000,
            epoch=epoch or "",
            expiries=expiries,
            hashes=hashes,
            followed=names,
        )

    async def _records(self, pod_ids: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """Whole records, fetched in one exchange."""
        async with reaching_redis(), pipeline(self._redis) as pipe:
            for pod_id in pod_ids:
                pipe.hgetall(self._keys.pod(pod_id))
            return dict(zip(pod_ids, await pipe.execute(), strict=True))
