"""What the registry says, as frozen values: one pod's record, and a snapshot of all the pods a reader follows.

Pure: no Redis and no clock in here. Writers turn a `PodRecord` into hash fields, readers parse it back; a
`Snapshot` answers who is warm for a key at a given moment. Expiry is kept on the reader's own monotonic clock, so
a reader that lost Redis can go on judging by it, or choose not to.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

SCHEMA: Final = 1  # of the pod hash; a reader ignores records whose schema it does not know
ENTRY_TTL_S: Final = 5.0  # five missed heartbeats
HEARTBEAT_S: Final = 1.0
SILENT_AFTER_S: Final = 2.5  # a reader that looks once a second sees heartbeats up to two seconds old
MAX_COUNT: Final = 1 << 20  # of slots, places and requests; whoever writes more is no pod
VOLATILE_FIELDS: Final = ("boot", "schema", "state", "names", "languages", "inflight", "load_s", "warm_s")
"""Fields of the hash that tell whether it is still of the same process, and all that may change within one."""


class PodState(StrEnum):
    """A pod's life, in order; `failed` ends it."""

    LOADING = "loading"
    WARMING = "warming"
    WARM = "warm"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PodRecord:
    """The hash `pod:<id>`.

    id: the pod's UID (a uuid4 on one machine); url: base URL agents call; model: the spec's model; names: every
    name served, model included; languages: those proven warm so far; inflight: requests held, waiting ones
    included; started: Unix seconds; load_s, warm_s: seconds the load and the warm-up took (0 until known);
    boot: random per process, so a restarted process is told from its predecessor. traceparent: of the trace of the
    process's start, the same in all its records; empty when nothing is traced.
    """

    id: str
    url: str
    state: PodState
    model: str
    names: tuple[str, ...]
    languages: tuple[str, ...]
    slots: int
    queue: int
    inflight: int
    version: str
    node: str
    started: float
    load_s: float
    warm_s: float
    boot: str
    traceparent: str = ""

    def to_hash(self) -> dict[str, str]:
        """Hash fields as they stand in Redis; lists are joined by commas, which names cannot contain."""
        traced = {"traceparent": self.traceparent} if self.traceparent else {}
        return {
            "schema": str(SCHEMA),
            "url": self.url,
            "state": self.state.value,
            "model": self.model,
            "names": ",".join(self.names),
            "languages": ",".join(self.languages),
            "slots": str(self.slots),
            "queue": str(self.queue),
            "inflight": str(self.inflight),
            "version": self.version,
            "node": self.node,
            "started": f"{self.started:.3f}",
            "load_s": f"{self.load_s:.3f}",
            "warm_s": f"{self.warm_s:.3f}",
            "boot": self.boot,
            **traced,
        }

    @classmethod
    def from_hash(cls, pod_id: str, fields: Mapping[str, str]) -> "PodRecord | None":
        """The record in *fields*; None when it is incomplete, damaged or of an unknown schema."""
        try:
            if int(fields["schema"]) != SCHEMA:
                return None
            return cls(
                id=pod_id,
                url=fields["url"],
                state=PodState(fields["state"]),
                model=fields["model"],
                names=parse_list(fields["names"]),
                languages=parse_list(fields["languages"]),
                slots=_count(fields["slots"], least=1),
                queue=_count(fields["queue"]),
                inflight=_count(fields["inflight"]),
                version=fields["version"],
                node=fields["node"],
                started=_seconds(fields["started"]),
                load_s=_seconds(fields["load_s"]),
                warm_s=_seconds(fields["warm_s"]),
                boot=fields["boot"],
                traceparent=fields.get("traceparent", ""),
            )
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Lease:
    """A pod's record and when it lapses, in seconds of the reader's monotonic clock.

    carried: not seen since Redis came back; kept for a while, for the pod has had no time to say itself again.
    """

    pod: PodRecord
    expires_at: float
    carried: bool = False

    def is_silent(self, now: float) -> bool:
        """Whether heartbeats are missing at *now*, though not so many that the lease has lapsed: the pod may hang."""
        return not self.carried and self.expires_at - now <= ENTRY_TTL_S - SILENT_AFTER_S


@dataclass(frozen=True)
class Snapshot:
    """The pods a reader saw at *taken_at* (monotonic seconds), under the registry's *epoch*.

    A snapshot never changes. `frozen` means Redis is out of reach: entries are then kept past their expiry, since
    the missing heartbeats say nothing about the pods. followed: the names it was read for; None when for all.
    """

    taken_at: float
    epoch: str
    leases: tuple[Lease, ...] = ()
    frozen: bool = False
    followed: frozenset[str] | None = None

    @cached_property
    def by_id(self) -> Mapping[str, Lease]:
        """All pods, in whatever state, by id."""
        return {lease.pod.id: lease for lease in self.leases}

    @cached_property
    def by_key(self) -> Mapping[tuple[str, str], tuple[Lease, ...]]:
        """Warm pods by (name, language)."""
        found: dict[tuple[str, str], list[Lease]] = {}
        for lease in self.leases:
            if lease.pod.state is PodState.WARM:
                for name in lease.pod.names:
                    for language in lease.pod.languages:
                        found.setdefault((name, language), []).append(lease)
        return {key: tuple(leases) for key, leases in found.items()}

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Lease, ...]]:
        """Warm pods by name, whatever their languages."""
        found: dict[str, list[Lease]] = {}
        for lease in self.leases:
            if lease.pod.state is PodState.WARM:
                for name in lease.pod.names:
                    found.setdefault(name, []).append(lease)
        return {name: tuple(leases) for name, leases in found.items()}

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name announced by any pod, warm or not."""
        return frozenset(name for lease in self.leases for name in lease.pod.names)

    def covers(self, name: str) -> bool:
        """Whether pods of *name* would be in here: without that, their absence means nothing."""
        return self.followed is None or name in self.followed

    def is_held(self, lease: Lease, *, now: float) -> bool:
        """Whether *lease* still counts at *now*."""
        return self.frozen or lease.expires_at > now


def parse_list(text: str) -> tuple[str, ...]:
    """The list in a hash field: items joined by commas; empty when *text* is."""
    return tuple(text.split(",")) if text else ()


def _count(text: str, *, least: int = 0) -> int:
    number = int(text)
    if not least <= number <= MAX_COUNT:
        raise ValueError(f"{number} is no count")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{number} is no time")
    return number
