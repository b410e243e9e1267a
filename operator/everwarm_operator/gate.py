"""Whether a pod's readiness gate is open: the registry's word, made to outlast the registry.

A pod is Ready when its containers are and its gate `everwarm.dev/warm` is open, so what a Service and a rollout see
is what agents see. While the registry can be trusted the rule is short: open if and only if it holds this pod, by
UID, warm for every key the pod was made for. The rest is about what the registry cannot say:

- **Out of reach.** Missing heartbeats are no news of a pod then. What is open stays open. What is not follows
  ContainersReady (the kubelet asks `/readyz`, which means warm), or no pod born in an outage could ever serve.
- **Back, for less than TTL + 2 s**, or back without its data: pods have not had time to say themselves again. A pod
  that is missing keeps what it has; one that is there is judged.
- **A container was restarted.** The gate, unlike the container, survives that, and so does the old process's entry
  in the registry for a TTL. A pod cannot learn its own container id, so the gate records which process (boot) was
  warm in which container; in another container that boot is a dead one, and only a different boot opens the gate.

All the operator may write on a pod is this condition, so the record lives in its message, where it survives restarts
of the operator and where a person can read it: `warm: boot 1f2e3d4c5b6a7988, container 0123456789ab`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from everwarm_core.registry.records import ENTRY_TTL_S, Lease, PodState, Snapshot
from everwarm_core.registry.view import GRACE_S
from everwarm_operator.naming import WARM_GATE
from everwarm_operator.observed import Gate, ObservedPod, format_time

UNKNOWN: Final = "unknown"
"""In a record: the boot of a process that became warm while the registry was out of reach, or a container whose id
the kubelet had not said yet."""

STALE_AFTER_S: Final = ENTRY_TTL_S / 2
"""Age of a snapshot, renewed every second, at which it is no longer believed: well before leases in it lapse."""

CONTAINER_ID_CHARACTERS: Final = 12  # of the runtime's id; as many as `docker ps` and `crictl ps` show

_BOOT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RECORD: Final = re.compile(r"boot (?P<boot>[A-Za-z0-9._-]+), container (?P<container>[A-Za-z0-9._-]+)")


class GateReason(StrEnum):
    """Reasons of the condition `everwarm.dev/warm`."""

    WARM = "Warm"
    """The registry holds the pod for every key it was made for."""
    CONTAINERS_READY = "ContainersReady"
    """The registry is out of reach, and the pod says itself that it is warm."""
    LOADING = "Loading"
    """The registry holds the pod as loading its weights."""
    WARMING = "Warming"
    """The registry holds the pod as proving its keys."""
    KEYS_MISSING = "KeysMissing"
    """The registry holds the pod warm, though not for every key it was made for."""
    DRAINING = "Draining"
    """The pod finishes what it holds and takes nothing new."""
    FAILED = "Failed"
    """The pod has given up; the last line of its log says why."""
    RESTARTED = "Restarted"
    """The registry still holds the process that ran before the container was restarted."""
    NOT_RUNNING = "NotRunning"
    """The container does not run (yet, or any more)."""
    UNREGISTERED = "Unregistered"
    """The registry can be trusted and does not hold the pod: it did not register yet, or its lease has expired."""
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    """The registry is out of reach, and the pod's containers are not ready."""


@dataclass(frozen=True, slots=True)
class RegistryHealth:
    """Whether the registry can be trusted.

    reached_since: monotonic seconds since when it has been read without a break; None while it is out of reach.
    was_reached: whether it ever was by this operator; only messages differ by it.
    """

    reached_since: float | None
    was_reached: bool

    @classmethod
    def reached(cls, since: float) -> "RegistryHealth":
        """It answers, and has since *since* (monotonic seconds)."""
        return cls(reached_since=since, was_reached=True)

    @classmethod
    def unreachable(cls) -> "RegistryHealth":
        """It answered once and does not now."""
        return cls(reached_since=None, was_reached=True)

    @classmethod
    def never_reached(cls) -> "RegistryHealth":
        """It has not answered this operator yet."""
        return cls(reached_since=None, was_reached=False)

    @property
    def is_reached(self) -> bool:
        """Whether it answers."""
        return self.reached_since is not None

    def is_trusted(self, now: float) -> bool:
        """Whether absence from it means something at *now*: it has been back for TTL + 2 s."""
        return self.reached_since is not None and now - self.reached_since >= GRACE_S


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry as far as one resource is concerned: its health, and leases by pod UID."""

    health: RegistryHealth
    leases: Mapping[str, Lease]

    @classmethod
    def of(cls, snapshot: Snapshot | None, *, reached_since: float | None, now: float) -> "Registry":
        """From a reader's *snapshot*.

        reached_since: monotonic seconds of the first read since the last outage; now: monotonic seconds. A snapshot
        that was not renewed for a while says as little about pods as an outage: the reader may just have been stuck.
        """
        if snapshot is None:
            return cls(RegistryHealth.never_reached(), {})
        if snapshot.frozen or reached_since is None or now - snapshot.taken_at > STALE_AFTER_S:
            return cls(RegistryHealth.unreachable(), snapshot.by_id)
        return cls(RegistryHealth.reached(reached_since), snapshot.by_id)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys a pod must be warm for: every name with every language."""

    names: tuple[str, ...]
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """The record in the condition's message: process *boot* was warm in *container* (short id)."""

    boot: str
    container: str

    def __str__(self) -> str:
        return f"boot {self.boot}, container {self.container}"

    @classmethod
    def parse(cls, message: str) -> "Grant | None":
        """The record in a condition's message; None when it has none."""
        matched = _RECORD.search(message)
        return cls(matched["boot"], matched["container"]) if matched else None

    @classmethod
    def of(cls, pod: ObservedPod, boot: str) -> "Grant":
        """The record that process *boot* is warm in the container *pod* has now."""
        return cls(boot, _short_id(pod.container_id) or UNKNOWN)

    def is_for_another_container(self, pod: ObservedPod) -> bool:
        """Whether *pod* has another container by now than the one recorded."""
        container = _short_id(pod.container_id)
        return bool(container) and self.container not in (container, UNKNOWN)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate should say; *message* holds the record of the last grant, if there was one."""

    is_open: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class GatePatch:
    """A condition to be written on a pod.

    The uid is a precondition: a pod of the same name that took the place of the one judged must not inherit its gate.
    """

    pod_name: str
    pod_uid: str
    verdict: Verdict
    since: str
    """lastTransitionTime."""

    @property
    def condition(self) -> dict[str, str]:
        """The condition; a strategic merge patch of `pods/status` merges it with the others by type."""
        return {
            "type": WARM_GATE,
            "status": "True" if self.verdict.is_open else "False",
            "reason": self.verdict.reason,
            "message": self.verdict.message,
            "lastTransitionTime": self.since,
        }


def judge(
    pod: ObservedPod, lease: Lease | None, health: RegistryHealth, *, keys: Keys, now: float
) -> Verdict:
    """The verdict on *pod*.

    lease: what the registry holds, or held last, of a pod with this UID; keys: what it must be warm for when the pod
    does not say so itself; now: monotonic seconds, the clock of leases and health.
    """
    names, languages = (pod.names, pod.languages) if pod.names else (keys.names, keys.languages)
    standing = pod.gate
    grant = Grant.parse(standing.message) if standing else None
    if lease is not None and is_of_another_process(pod, lease):
        lease = None
    if not health.is_reached:
        return _without_registry(pod, lease, grant)
    if lease is None or lease.carried or lease.expires_at <= now:
        is_carried = lease is not None and lease.carried and lease.expires_at > now
        if grant and grant.is_for_another_container(pod):
            return _closed(GateReason.RESTARTED, "its container was restarted", grant)
        if standing and (is_carried or not health.is_trusted(now)):
            return _as_it_stands(standing)
        return _closed(GateReason.UNREGISTERED, "the registry does not hold this pod", grant)
    if pod.is_stopped:
        return _closed(GateReason.NOT_RUNNING, "its container does not run", grant)
    if lease.pod.state is not PodState.WARM:
        reason, text = _NOT_WARM[lease.pod.state]
        return _closed(reason, text, grant)
    missing = [name for name in names if name not in lease.pod.names]
    missing += [language for language in languages if language not in lease.pod.languages]
    if missing:
        return _closed(GateReason.KEYS_MISSING, f"not yet warm for {', '.join(missing)}", grant)
    return Verdict(True, GateReason.WARM, f"warm: {Grant.of(pod, _boot(lease))}")


def is_of_another_process(pod: ObservedPod, lease: Lease) -> bool:
    """Whether *lease* is known to be of a process that ran in a container which *pod* had before."""
    grant = Grant.parse(pod.gate.message) if pod.gate else None
    return grant is not None and grant.boot == _boot(lease) and grant.is_for_another_container(pod)


def gate_patch(pod: ObservedPod, verdict: Verdict, *, now: datetime) -> GatePatch | None:
    """The condition to write so that *pod* says *verdict*; None when it does, or will never run again."""
    standing = pod.gate
    if pod.is_over:
        return None
    if standing is not None and verdict == Verdict(standing.is_open, standing.reason, standing.message):
        return None
    has_turned = standing is None or not standing.since or standing.is_open != verdict.is_open
    since = format_time(now) if standing is None or has_turned else standing.since
    return GatePatch(pod.name, pod.uid, verdict, since)


_NOT_WARM: Final[Mapping[PodState, tuple[GateReason, str]]] = {
    PodState.LOADING: (GateReason.LOADING, "loading its weights"),
    PodState.WARMING: (GateReason.WARMING, "proving its keys"),
    PodState.DRAINING: (GateReason.DRAINING, "finishing what it holds"),
    PodState.FAILED: (GateReason.FAILED, "failed; the last line of its log says why"),
}


def _without_registry(pod: ObservedPod, lease: Lease | None, grant: Grant | None) -> Verdict:
    """The verdict while the registry is out of reach; *lease*: what it held last of the process in this container."""
    standing = pod.gate
    if (
        lease
        and grant
        and grant.boot == _boot(lease)
        and lease.pod.state in (PodState.DRAINING, PodState.FAILED)
    ):
        reason, text = _NOT_WARM[lease.pod.state]
        return _closed(reason, text, grant)  # its own last word, which needs no registry to be true
    has_moved = grant is not None and grant.is_for_another_container(pod)
    if standing and standing.is_open and not has_moved:
        return _as_it_stands(standing)
    if pod.are_containers_ready and not pod.is_deleting:
        text = "warm by its own word, as the registry is out of reach"
        return Verdict(True, GateReason.CONTAINERS_READY, f"{text}: {Grant.of(pod, UNKNOWN)}")
    if standing and not standing.is_open:
        return _as_it_stands(standing)
    if has_moved:
        return _closed(GateReason.RESTARTED, "its container was restarted", grant)
    return _closed(GateReason.REGISTRY_UNREACHABLE, "not ready, and the registry is out of reach", grant)


def _as_it_stands(standing: Gate) -> Verdict:
    return Verdict(standing.is_open, standing.reason, standing.message)


def _closed(reason: GateReason, text: str, grant: Grant | None) -> Verdict:
    return Verdict(False, reason, f"{text} (last warm: {grant})" if grant else text)


def _boot(lease: Lease) -> str:
    """The lease's boot as it can stand in a message: whoever writes to the registry chose it."""
    boot = lease.pod.boot
    return boot if _BOOT.fullmatch(boot) else hashlib.sha256(boot.encode()).hexdigest()[:16]


def _short_id(container_id: str) -> str:
    """The first characters of `containerd://<hex>`'s own part."""
    return container_id.rpartition("/")[2][:CONTAINER_ID_CHARACTERS]
