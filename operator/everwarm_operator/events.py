"""Which Kubernetes Events follow from what was and what is: each turn of a pod and of a resource once.

Pure, so "once" needs a memory, and it is handed in. A resource's turns are told from its conditions, which stand in
its status. A pod's are told from a `Memory` of what was told of each; a fresh one, after a restart of the operator,
takes the pods it finds as told, but for what this very reconcile changes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from everwarm_core.registry.records import PodRecord
from everwarm_operator.gate import GateReason, Verdict
from everwarm_operator.observed import Json, ObservedPod, ObservedResource
from everwarm_operator.problems import cut, failure_text
from everwarm_operator.status import ConditionType, ReadyReason, standing_conditions


class EventType(StrEnum):
    """Types of Events that Kubernetes knows."""

    NORMAL = "Normal"
    WARNING = "Warning"


class EventReason(StrEnum):
    """Reasons of Events about pods; those about resources have the reason of the condition that turned."""

    LOADING = "Loading"
    """A process has started and loads its weights."""
    WARM = "Warm"
    """The pod holds every key it was made for; its gate is open."""
    NO_LONGER_WARM = "NoLongerWarm"
    """The gate was open and is closed, though the same process runs."""
    DRAINING = "Draining"
    """The pod finishes what it holds and takes nothing new."""
    FAILED = "Failed"
    """The process ended with an error."""
    RECOVERED = "Recovered"
    """Of a resource: it is no longer stalled."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be told about a pod or a resource.

    kind, name, uid: what it is about (`regarding`), in the resource's namespace; message: at most 1024 characters.
    """

    kind: Literal["Pod", "WhisperModel"]
    name: str
    uid: str
    type: EventType
    reason: str
    message: str


class PodTurn(StrEnum):
    """Where a process is in its life, as far as Events tell of it."""

    LOADING = "loading"
    WARM = "warm"
    CLOSED = "closed"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of one pod last: the turn and of which container, and the container whose failure was told."""

    turn: PodTurn | None = None
    container: str = ""
    failed_container: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What was told of the pods of one resource, by UID. The shell keeps it between two calls; lost, little is lost.

    is_fresh: made by a new operator, so the pods it meets first are older than it and count as told.
    """

    told: Mapping[str, Told] = field(default_factory=dict)
    is_fresh: bool = True


@dataclass(frozen=True, slots=True)
class Judged:
    """A pod with the verdict on its gate, and its record in the registry, if that is of its present process."""

    pod: ObservedPod
    verdict: Verdict
    record: PodRecord | None


def pod_events(judged: Iterable[Judged], memory: Memory) -> tuple[tuple[Event, ...], Memory]:
    """The events of these pods, and what has been told once they are."""
    events: list[Event] = []
    told: dict[str, Told] = {}
    for each in judged:
        before = memory.told.get(each.pod.uid, Told())
        after = _after(each, before)
        told[each.pod.uid] = after
        is_opened_now = each.verdict.is_open and not (each.pod.gate and each.pod.gate.is_open)
        if not memory.is_fresh:
            events += _told_of(each, before, after)
        elif is_opened_now:
            events += _told_of(each, replace(after, turn=None), after)
    return tuple(events), Memory(told, is_fresh=False)


def resource_events(resource: ObservedResource, status: Json) -> Iterator[Event]:
    """The events that follow from the resource's conditions as they stand and as they are in *status*."""
    before, after = standing_conditions(resource.status), standing_conditions(status)

    def event(kind: EventType, reason: object, message: object) -> Event:
        return Event("WhisperModel", resource.name, resource.uid, kind, str(reason), cut(str(message)))

    was_stalled, stalled = before.get(ConditionType.STALLED, {}), after.get(ConditionType.STALLED, {})
    if stalled.get("status") == "True":
        if was_stalled.get("status") != "True" or was_stalled.get("reason") != stalled.get("reason"):
            yield event(EventType.WARNING, stalled["reason"], stalled["message"])
    elif was_stalled.get("status") == "True":
        yield event(
            EventType.NORMAL, EventReason.RECOVERED, f"no longer stalled by {was_stalled.get('reason')}"
        )
    was_ready, ready = before.get(ConditionType.READY, {}), after.get(ConditionType.READY, {})
    if ready.get("status") == "True":
        if was_ready.get("status") != "True" or was_ready.get("reason") != ready.get("reason"):
            yield event(EventType.NORMAL, ready["reason"], ready["message"])
    elif was_ready.get("status") == "True" and stalled.get("status") != "True":
        is_expected = ready.get("reason") == ReadyReason.WAITING_FOR_WARM_PODS
        kind = EventType.NORMAL if is_expected else EventType.WARNING
        yield event(kind, ready["reason"], ready["message"])


def _after(each: Judged, before: Told) -> Told:
    """What will have been told of the pod."""
    pod, failed = each.pod, before.failed_container
    if pod.terminated is not None and pod.terminated.has_failed:
        failed = pod.terminated.container_id or f"before restart {pod.restart_count}"
    turn = _turn(each, before)
    if turn is None:
        return replace(before, failed_container=failed)
    return Told(turn, pod.container_id, failed)


def _turn(each: Judged, before: Told) -> PodTurn | None:
    """Where the pod's process is; None when that is nothing to tell of."""
    pod, verdict = each.pod, each.verdict
    is_same = before.turn is not None and before.container == pod.container_id
    if is_same and before.turn is PodTurn.DRAINING:
        return None  # what comes after is its end
    if verdict.reason == GateReason.DRAINING:
        return PodTurn.DRAINING
    if verdict.is_open:
        return PodTurn.WARM
    if pod.is_deleting or pod.is_over or not pod.is_running:
        return None
    return PodTurn.CLOSED if is_same and before.turn in (PodTurn.WARM, PodTurn.CLOSED) else PodTurn.LOADING


def _told_of(each: Judged, before: Told, after: Told) -> Iterator[Event]:
    pod, record = each.pod, each.record

    def event(kind: EventType, reason: EventReason, message: str) -> Event:
        return Event("Pod", pod.name, pod.uid, kind, reason.value, cut(message))

    if pod.terminated is not None and after.failed_container != before.failed_container:
        yield event(EventType.WARNING, EventReason.FAILED, f"failed: {failure_text(pod.terminated)}")
    if (after.turn, after.container) == (before.turn, before.container):
        return
    match after.turn:
        case PodTurn.LOADING:
            yield event(EventType.NORMAL, EventReason.LOADING, "loading its weights")
        case PodTurn.WARM if record is not None:
            seconds = (
                f"{record.load_s + record.warm_s:.1f} s (load {record.load_s:.1f}, proof {record.warm_s:.1f})"
            )
            yield event(EventType.NORMAL, EventReason.WARM, f"warm in {seconds}")
        case PodTurn.WARM:
            yield event(
                EventType.NORMAL, EventReason.WARM, "warm by its own word; the registry is out of reach"
            )
        case PodTurn.DRAINING:
            yield event(EventType.NORMAL, EventReason.DRAINING, "draining: finishing what it holds")
        case PodTurn.CLOSED:
            yield event(
                EventType.WARNING, EventReason.NO_LONGER_WARM, f"no longer warm: {each.verdict.message}"
            )
