"""From a WhisperModel and what is observed of it to everything that is to be written: one pure function.

`reconcile` is level-based: it looks at what is, never at what changed, and may be called at any time, as often as
one likes. Applied to a world that already is as it should be, it returns an `Outcome` with nothing to write. It is
linear in the number of the resource's pods. The shell around it observes (indexed API objects, the registry's
snapshot), writes what the outcome says, in its order, and calls again when something moved, when a write failed, or
after `recheck_after_s`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from everwarm_core.errors import SpecError
from everwarm_core.registry.records import Lease, PodRecord, PodState
from everwarm_core.registry.view import GRACE_S
from everwarm_core.spec import WhisperModel
from everwarm_operator.desired import Owner, Platform, desired_objects
from everwarm_operator.events import Event, Judged, Memory, pod_events, resource_events
from everwarm_operator.gate import (
    GatePatch,
    Keys,
    Registry,
    RegistryHealth,
    gate_patch,
    is_of_another_process,
    judge,
)
from everwarm_operator.manifest import Manifest, needs_apply
from everwarm_operator.naming import TEMPLATE_ANNOTATION
from everwarm_operator.observed import Json, ObservedDeployment, ObservedPod, ObservedResource
from everwarm_operator.problems import (
    Problem,
    Rival,
    deployment_problems,
    foreign_object,
    invalid_spec,
    pod_problems,
    refused_object,
    taken_name,
)
from everwarm_operator.status import Counts, conditions, rejected_status, whole_status

__all__ = ["Instant", "Observed", "Outcome", "Rival", "reconcile", "reject"]

RECHECK_MARGIN_S: Final = 0.1  # so that the moment waited for has passed on every clock


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on two clocks: *wall* (aware) goes into conditions, *monotonic_s* is that of leases."""

    wall: datetime
    monotonic_s: float


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known of one resource besides its spec.

    objects: the live objects of `desired.object_keys`, as JSON, by (kind, name); those that are not there are left
    out. pods: all that the selector finds, ended ones included. rivals: the valid resources of the same namespace
    that could dispute a name, itself included or not. refusal: what the API server said when it refused to apply
    what this very look had to write. memory: of the last outcome, else a fresh one.
    """

    resource: ObservedResource
    objects: Mapping[tuple[str, str], Json] = field(default_factory=dict)
    pods: tuple[ObservedPod, ...] = ()
    rivals: tuple[Rival, ...] = ()
    refusal: str | None = None
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be written, in this order; all of it empty when nothing has to change.

    apply: objects to apply; gates: conditions to set on pods; status: the whole status, as a merge patch (what it no
    longer has is None in it), or None when it stands already; events: to be told; memory: to be handed in next time,
    once the rest has been written; recheck_after_s: when to look again though nothing moved, None when only news can
    change anything.
    """

    apply: tuple[Manifest, ...] = ()
    gates: tuple[GatePatch, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
    memory: Memory = field(default_factory=Memory)
    recheck_after_s: float | None = None

    @property
    def writes(self) -> int:
        """How many requests this takes."""
        return len(self.apply) + len(self.gates) + (self.status is not None) + len(self.events)


def reconcile(
    model: WhisperModel, observed: Observed, platform: Platform, registry: Registry, now: Instant
) -> Outcome:
    """What has to be written so that the cluster is as *model* says."""
    resource = observed.resource
    owner = Owner(resource.namespace, resource.uid)
    desired = desired_objects(model, owner=owner, platform=platform)
    blocking = taken_name(model, resource, observed.rivals) or foreign_object(
        desired, observed.objects, resource
    )
    apply = (
        ()
        if blocking
        else tuple(each for each in desired if needs_apply(each, observed.objects.get(each.key)))
    )
    keys = Keys(model.names, model.spec.languages)
    judged = tuple(_judge(pod, keys, registry, now) for pod in observed.pods)
    gates = _gate_patches(judged, now)
    deployment = _settled_deployment(desired, apply, observed.objects)
    problems = _problems(desired, deployment, observed, blocking)
    counts = _count(judged)
    status = whole_status(
        model,
        generation=resource.generation,
        counts=counts,
        records=[each.record for each in judged if each.record is not None and each.verdict.is_open],
        states=conditions(model, counts=counts, deployment=deployment, problems=problems),
        previous=resource.status,
        now=now.wall,
    )
    told, memory = pod_events(judged, observed.memory)
    return Outcome(
        apply=apply,
        gates=gates,
        status=merge_patch(resource.status, status),
        events=(*told, *resource_events(resource, status)),
        memory=memory,
        recheck_after_s=_recheck_after_s(registry.health, observed.pods, now),
    )


def reject(error: SpecError, observed: Observed, registry: Registry, now: Instant) -> Outcome:
    """What has to be written of a resource whose spec means nothing: why.

    Its objects are left as they are, and its pods go on being judged by what they were made for, so that one that is
    restarted comes back.
    """
    resource = observed.resource
    judged = tuple(_judge(pod, Keys((), ()), registry, now) for pod in observed.pods if pod.names)
    status = rejected_status(
        invalid_spec(error),
        generation=resource.generation,
        counts=_count(judged),
        previous=resource.status,
        now=now.wall,
    )
    told, memory = pod_events(judged, observed.memory)
    return Outcome(
        gates=_gate_patches(judged, now),
        status=merge_patch(resource.status, status),
        events=(*told, *resource_events(resource, status)),
        memory=memory,
        recheck_after_s=_recheck_after_s(registry.health, observed.pods, now),
    )


def merge_patch(standing: Json, status: dict[str, Any]) -> dict[str, Any] | None:
    """*status* as a merge patch that makes *standing* equal to it; None when it is."""
    if dict(standing) == status:
        return None
    return {**dict.fromkeys(set(standing) - set(status)), **status}


def _judge(pod: ObservedPod, keys: Keys, registry: Registry, now: Instant) -> Judged:
    lease = registry.leases.get(pod.uid)
    verdict = judge(pod, lease, registry.health, keys=keys, now=now.monotonic_s)
    return Judged(pod, verdict, _record(pod, lease))


def _record(pod: ObservedPod, lease: Lease | None) -> PodRecord | None:
    """The pod's record, where it is of the process that runs now and has got to the end of its proof."""
    if lease is None or is_of_another_process(pod, lease):
        return None
    return lease.pod if lease.pod.state is PodState.WARM else None


def _gate_patches(judged: Iterable[Judged], now: Instant) -> tuple[GatePatch, ...]:
    patches = (gate_patch(each.pod, each.verdict, now=now.wall) for each in judged)
    return tuple(patch for patch in patches if patch is not None)


def _settled_deployment(
    desired: Iterable[Manifest], apply: Iterable[Manifest], live: Mapping[tuple[str, str], Json]
) -> ObservedDeployment | None:
    """The live Deployment; None when it is not there or is about to change, so that what it says is of the past."""
    wanted = next(each for each in desired if each.kind == "Deployment")
    standing = live.get(wanted.key)
    if standing is None or any(each.key == wanted.key for each in apply):
        return None
    return ObservedDeployment.from_object(standing)


def _problems(
    desired: Iterable[Manifest],
    deployment: ObservedDeployment | None,
    observed: Observed,
    blocking: Problem | None,
) -> tuple[Problem, ...]:
    if blocking is not None:
        return (blocking,)
    if observed.refusal is not None:
        return (refused_object(observed.refusal),)
    wanted = next(each for each in desired if each.kind == "Deployment")
    template_hash = wanted.body["spec"]["template"]["metadata"]["annotations"][TEMPLATE_ANNOTATION]
    of_pods = tuple(pod_problems(observed.pods, template_hash=template_hash))
    if deployment is None or not deployment.is_observed:
        return of_pods
    return (*of_pods, *deployment_problems(deployment))


def _count(judged: Iterable[Judged]) -> Counts:
    here = [each for each in judged if not (each.pod.is_deleting or each.pod.is_over)]
    return Counts(
        replicas=len(here),
        ready=sum(each.pod.is_ready for each in here),
        warm=sum(each.verdict.is_open for each in here),
        serving=sum(each.pod.is_ready and each.verdict.is_open for each in here),
    )


def _recheck_after_s(health: RegistryHealth, pods: tuple[ObservedPod, ...], now: Instant) -> float | None:
    """When the registry will have been back for long enough to be trusted about pods it does not hold."""
    if not pods or health.reached_since is None or health.is_trusted(now.monotonic_s):
        return None
    return health.reached_since + GRACE_S - now.monotonic_s + RECHECK_MARGIN_S
