"""What a reader makes of what it reads: pure functions from one `View` to the next.

A missing heartbeat is news of the pod only while Redis is there to receive it. So:

- while Redis is out of reach the last snapshot stands, frozen;
- when it is back, or came back empty (another epoch), pods that are not in it are *awaited*: kept, as carried
  leases, until they are announced again, are said to be gone, or have had TTL + 2 s for it;
- otherwise a pod is in the snapshot exactly as long as its lease runs.

Nothing here knows Redis or a clock; all times are seconds of the reader's monotonic clock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from everwarm_core.registry.records import (
    ENTRY_TTL_S,
    HEARTBEAT_S,
    VOLATILE_FIELDS,
    Lease,
    PodRecord,
    Snapshot,
)

GRACE_S: Final = ENTRY_TTL_S + 2.0  # a pod that takes a TTL to notice that Redis is back, and two beats
REFRESH_S: Final = HEARTBEAT_S
JITTER: Final = 0.1  # of the period, either way: readers started together drift apart
BACKOFF_BASE_S: Final = 0.1
BACKOFF_CAP_S: Final = 1.0  # a Redis that comes back is seen within one heartbeat

Scores = Iterable[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One read of the registry.

    asked_at: the reader's clock just before it asked, so that no lease seems longer than it is; now_ms: Redis' clock
    at the read; expiries: pod id to expiry on Redis' clock in ms; hashes: pod id to its hash, empty when it has none;
    followed: the names it was read for, None when for all.
    """

    asked_at: float
    now_ms: float
    epoch: str
    expiries: Mapping[str, float]
    hashes: Mapping[str, Mapping[str, str]]
    followed: frozenset[str] | None = None

    def leases(self) -> tuple[Lease, ...]:
        """The running leases of readable records, by id."""
        found = []
        for pod_id, expires_ms in sorted(self.expiries.items()):
            left_s = (expires_ms - self.now_ms) / 1000
            if left_s < 0 or (pod := PodRecord.from_hash(pod_id, self.hashes.get(pod_id, {}))) is None:
                continue
            if self.followed is None or not self.followed.isdisjoint(pod.names):
                found.append(Lease(pod, expires_at=self.asked_at + left_s))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class View:
    """All that a reader remembers: the snapshot it shows, and the leases it awaits news of, by pod id."""

    snapshot: Snapshot | None = None
    awaited: Mapping[str, Lease] = field(default_factory=dict)

    @property
    def is_frozen(self) -> bool:
        """Whether Redis is out of reach since the snapshot was taken."""
        return self.snapshot is not None and self.snapshot.frozen


def after_reading(view: View, reading: Reading) -> View:
    """The view once *reading* has been made: what it holds, and what is still awaited."""
    last, awaited = view.snapshot, view.awaited
    # An empty epoch is a Redis no pod has written to yet: what came before it was lost then, and is awaited already.
    if last is not None and (last.frozen or last.epoch not in ("", reading.epoch)):
        until = reading.asked_at + GRACE_S
        awaited = {lease.pod.id: Lease(lease.pod, expires_at=until, carried=True) for lease in last.leases}
    announced = reading.leases()
    seen = {lease.pod.id for lease in announced}
    awaited = {
        pod_id: lease
        for pod_id, lease in awaited.items()
        if pod_id not in seen and lease.expires_at > reading.asked_at
    }
    snapshot = Snapshot(
        taken_at=reading.asked_at,
        epoch=reading.epoch,
        leases=(*announced, *awaited.values()),
        followed=reading.followed,
    )
    return View(snapshot, awaited)


def after_loss(view: View) -> View:
    """The view once Redis could not be reached: the same pods, frozen."""
    if view.snapshot is None or view.snapshot.frozen:
        return view
    return replace(view, snapshot=replace(view.snapshot, frozen=True))


def after_departures(view: View, gone: Collection[tuple[str, str]]) -> View:
    """The view without the processes *gone*, each (pod id, boot), that said themselves that they leave.

    That word counts even while Redis seems out of reach, and for pods that are awaited. The boot keeps a late word
    of a process from removing its successor.
    """
    if view.snapshot is None:
        return view
    leases = tuple(lease for lease in view.snapshot.leases if (lease.pod.id, lease.pod.boot) not in gone)
    if len(leases) == len(view.snapshot.leases):
        return view
    left = {lease.pod.id for lease in leases}
    awaited = {pod_id: lease for pod_id, lease in view.awaited.items() if pod_id in left}
    return View(replace(view.snapshot, leases=leases), awaited)


def latest_expiries(sets: Iterable[Scores]) -> dict[str, float]:
    """Each pod's expiry: the latest among the sets it is in."""
    latest: dict[str, float] = {}
    for scores in sets:
        for pod_id, expires_ms in scores:
            latest[pod_id] = max(expires_ms, latest.get(pod_id, expires_ms))
    return latest


def renewed(known: Mapping[str, str], volatile: Sequence[str | None]) -> Mapping[str, str] | None:
    """The hash *known* with its *volatile* fields as just read; None when it is gone or of another process."""
    fresh = {name: value for name, value in zip(VOLATILE_FIELDS, volatile, strict=True) if value is not None}
    if len(fresh) < len(VOLATILE_FIELDS) or fresh["boot"] != known.get("boot"):
        return None
    return {**known, **fresh}


def refresh_pause_s(unit: float) -> float:
    """Seconds until the next refresh; *unit* is random in [0, 1]."""
    return REFRESH_S * (1 + JITTER * (2 * unit - 1))


def backoff_s(failures: int, unit: float) -> float:
    """Seconds to wait after the *failures*-th failure in a row, 1 being the first; *unit* is random in [0, 1]."""
    longest = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(failures - 1, 16))
    return longest * (0.5 + unit / 2)
