"""The registry of each namespace that has resources, followed all the time; whoever it says something new of is told.

One `RegistryReader` a namespace, as agents have: it keeps a snapshot, tells outages from departures and awaits pods that
had no time to come back (`everwarm_core.registry.view`). Heartbeats renew leases every second and are no news; a pod
that comes, goes, or is in another state or process is, and so is a lease that lapses: that is told when it does, not
when the next reading shows it.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final, NamedTuple

from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import Lease, PodState, Snapshot
from everwarm_core.registry.view import GRACE_S
from everwarm_operator.gate import Registry

Clock = Callable[[], float]

MARGIN_S: Final = 0.1  # after a moment that changes a verdict, so that the look that follows it finds it over


class _Facts(NamedTuple):
    """What of a lease can change a verdict."""

    boot: str
    state: PodState
    names: tuple[str, ...]
    languages: tuple[str, ...]
    carried: bool


class Registries:
    """Snapshots by namespace, inside `async with`; *tell* gets the UIDs of pods that there is news of, None for all."""

    def __init__(
        self, url: str, tell: Callable[[str, Collection[str] | None], None], *, clock: Clock = time.monotonic
    ) -> None:
        self._url = url
        self._tell = tell
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None
        self._followers: dict[str, _Follower] = {}

    async def run(self) -> None:
        """Follow the namespaces asked for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for namespace, follower in self._followers.items():
                self._start(group, namespace, follower)
            await asyncio.Event().wait()

    def of(self, namespace: str) -> Registry:
        """The registry of *namespace* as it is known now; it is followed from the first call on."""
        follower = self._followers.get(namespace)
        if follower is None:
            follower = _Follower(RegistryReader(self._url, namespace, clock=self._clock))
            self._followers[namespace] = follower
            if self._group is not None:
                self._start(self._group, namespace, follower)
        return Registry.of(follower.reader.snapshot, reached_since=follower.reached_since, now=self._clock())

    def keep(self, namespaces: Collection[str]) -> None:
        """Follow none but *namespaces* from now on."""
        for namespace in self._followers.keys() - set(namespaces):
            self._followers.pop(namespace).stop()

    def _start(self, group: asyncio.TaskGroup, namespace: str, follower: "_Follower") -> None:
        follower.task = group.create_task(
            follower.run(lambda uids: self._tell(namespace, uids), self._clock), name=f"registry {namespace}"
        )


class _Follower:
    """One namespace."""

    def __init__(self, reader: RegistryReader) -> None:
        self.reader = reader
        self.reached_since: float | None = None
        self.task: asyncio.Task[None] | None = None
        self._facts: dict[str, _Facts] = {}

    def stop(self) -> None:
        """Follow no more."""
        if self.task is not None:
            self.task.cancel()

    async def run(self, tell: Callable[[Collection[str] | None], None], clock: Clock) -> None:
        """Read until cancelled, telling what is new."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.reader.run(), name="registry reader")
            snapshot: Snapshot | None = None
            trusted_at = lapses_at = math.inf
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_pause_s(min(trusted_at, lapses_at) - clock())):
                        snapshot = await self.reader.changed(snapshot)
                        if self._turn(snapshot, clock()):
                            trusted_at = math.inf if snapshot.frozen else clock() + GRACE_S + MARGIN_S
                            tell(None)
                        elif news := self._news(snapshot):
                            tell(news)
                        lapses_at = next_lapse(snapshot, snapshot.taken_at)
                        continue
                now = clock()
                if trusted_at <= now:
                    trusted_at = math.inf
                    tell(None)
                if snapshot is not None and lapses_at <= now:
                    tell({lease.pod.id for lease in snapshot.leases if lease.expires_at <= now})
                    lapses_at = next_lapse(snapshot, now)

    def _turn(self, snapshot: Snapshot, now: float) -> bool:
        """Note whether Redis is in reach; whether that has changed, which concerns every pod."""
        was_reached = self.reached_since is not None
        if snapshot.frozen:
            self.reached_since = None
        elif not was_reached:
            self.reached_since = now
        has_turned = was_reached == snapshot.frozen
        if has_turned:
            self._facts = _facts(snapshot.leases)
        return has_turned

    def _news(self, snapshot: Snapshot) -> frozenset[str]:
        before, self._facts = self._facts, _facts(snapshot.leases)
        return frozenset(uid for uid, _ in before.items() ^ self._facts.items())


def _pause_s(left_s: float) -> float | None:
    return None if left_s == math.inf else max(0.0, left_s)


def next_lapse(snapshot: Snapshot, since: float) -> float:
    """When the next lease that ran at *since* is surely over, unless it is renewed until then.

    *since* is the reading's own time when it is new: a lease that ran then may be over before the reading is looked at,
    and nobody has been told. Never (infinity) while Redis is out of reach.
    """
    running = (lease.expires_at for lease in snapshot.leases if lease.expires_at > since)
    return math.inf if snapshot.frozen else min(running, default=math.inf) + MARGIN_S


def _facts(leases: Collection[Lease]) -> dict[str, _Facts]:
    return {
        lease.pod.id: _Facts(
            lease.pod.boot, lease.pod.state, lease.pod.names, lease.pod.languages, lease.carried
        )
        for lease in leases
    }
