"""The whole status of a resource, computed anew from what is observed; only times are taken over from the last one.

Three conditions, as kstatus reads them (`kubectl wait`, `helm --wait`, Flux and Argo do):

- **Ready**: as many pods as wanted are warm, by the registry, and Ready, by the kubelet. True at replicas 0, too.
- **Reconciling**: pods are on their way; waiting makes sense.
- **Stalled**: waiting makes no sense, somebody must act. Reconciling is False then, since tools look at it first.

`lastTransitionTime` moves only when a condition's status does, so a status that says the same compares as the same.
The conditions are always all there: a merge patch replaces the list as a whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from everwarm_core.registry.records import PodRecord
from everwarm_core.spec import WhisperModel
from everwarm_operator.naming import selector
from everwarm_operator.observed import Json, ObservedDeployment, format_time, parse_time
from everwarm_operator.problems import Problem, ProblemReason, most_telling


class ConditionType(StrEnum):
    """The conditions of a resource."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class ReadyReason(StrEnum):
    """Reasons of Ready; while a problem is in the way, the problem's (`ProblemReason`)."""

    ALL_PODS_WARM = "AllPodsWarm"
    """True: every pod wanted is warm and Ready."""
    SCALED_TO_ZERO = "ScaledToZero"
    """True: no pod is wanted."""
    WAITING_FOR_WARM_PODS = "WaitingForWarmPods"
    """False: fewer pods are warm and Ready than wanted."""


class ReconcilingReason(StrEnum):
    """Reasons of Reconciling; a problem that may pass by itself gives its own."""

    ROLLING_OUT = "RollingOut"
    """True: pods of the newest generation are replacing others, or pods are being added or removed."""
    WAITING_FOR_WARM_PODS = "WaitingForWarmPods"
    """True: all pods are there and some are not warm yet."""
    SETTLED = "Settled"
    """False: everything is as declared."""
    STALLED = "Stalled"
    """False: nothing more happens by itself; see the condition Stalled."""


class StalledReason(StrEnum):
    """Reasons of Stalled; when True, the problem's."""

    NOT_STALLED = "NotStalled"
    """False: nobody needs to act."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Pods of a resource that are not on their way out.

    ready: by the kubelet; warm: by their gate, as it is about to be; serving: both.
    """

    replicas: int
    ready: int
    warm: int
    serving: int


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, before its times."""

    type: ConditionType
    is_true: bool
    reason: str
    message: str


SECONDS_DIGITS: Final = 2  # of loadSeconds and warmSeconds: hundredths are more than anybody compares


def conditions(
    model: WhisperModel,
    *,
    counts: Counts,
    deployment: ObservedDeployment | None,
    problems: Iterable[Problem],
) -> tuple[Condition, ...]:
    """Ready, Reconciling and Stalled.

    deployment: None while it is not there, or is about to be changed, so that its counts mean nothing.
    """
    wanted = model.spec.replicas
    problem = _told(problems)
    is_rolled_out = deployment is not None and deployment.wanted == wanted and deployment.is_rolled_out
    warm_text = f"{counts.serving} of {wanted} pods are warm"
    return (
        _ready(wanted, counts.serving, problem, warm_text),
        _reconciling(wanted, counts.serving, problem, warm_text, is_rolled_out=is_rolled_out),
        _stalled(problem),
    )


def whole_status(
    model: WhisperModel,
    *,
    generation: int,
    counts: Counts,
    records: Sequence[PodRecord],
    states: Sequence[Condition],
    previous: Json,
    now: datetime,
) -> dict[str, Any]:
    """The status. records: of the warm pods, of which the longest seconds are told; none keeps those that stand."""
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "replicas": counts.replicas,
        "readyReplicas": counts.ready,
        "warmReplicas": counts.warm,
        "selector": selector(model.name),
        "model": model.spec.model,
        "names": list(model.names),
        "languages": list(model.spec.languages),
    }
    if records:
        status["loadSeconds"] = round(max(each.load_s for each in records), SECONDS_DIGITS)
        status["warmSeconds"] = round(max(each.warm_s for each in records), SECONDS_DIGITS)
    else:
        status.update({name: previous[name] for name in ("loadSeconds", "warmSeconds") if name in previous})
    status["conditions"] = with_times(states, generation=generation, previous=previous, now=now)
    return status


def rejected_status(
    problem: Problem, *, generation: int, counts: Counts, previous: Json, now: datetime
) -> dict[str, Any]:
    """The status of a resource that cannot be read: what it says of the last spec stands, for so do its pods."""
    states = (
        Condition(ConditionType.READY, False, problem.reason, problem.message),
        Condition(ConditionType.RECONCILING, False, ReconcilingReason.STALLED, "see the condition Stalled"),
        _stalled(problem),
    )
    standing = {name: value for name, value in previous.items() if name != "conditions"}
    return {
        **standing,
        "observedGeneration": generation,
        "replicas": counts.replicas,
        "readyReplicas": counts.ready,
        "warmReplicas": counts.warm,
        "conditions": with_times(states, generation=generation, previous=previous, now=now),
    }


def with_times(
    states: Sequence[Condition], *, generation: int, previous: Json, now: datetime
) -> list[dict[str, Any]]:
    """The conditions as the API server keeps them."""
    standing = standing_conditions(previous)
    written: list[dict[str, Any]] = []
    for state in states:
        status = "True" if state.is_true else "False"
        before = standing.get(state.type, {})
        since = before.get("lastTransitionTime")
        if before.get("status") != status or parse_time(since) is None:
            since = format_time(now)
        written.append(
            {
                "type": state.type.value,
                "status": status,
                "reason": str(state.reason),
                "message": state.message,
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return written


def standing_conditions(status: Json) -> dict[str, Mapping[str, Any]]:
    """The conditions in *status* by type."""
    found = status.get("conditions")
    if not isinstance(found, Sequence):
        return {}
    return {str(each["type"]): each for each in found if isinstance(each, Mapping) and "type" in each}


def _told(problems: Iterable[Problem]) -> Problem | None:
    """The problem to tell; one that may pass by itself has had its time once the Deployment's deadline is over."""
    problems = tuple(problems)
    told = most_telling(problems)
    is_overdue = any(problem.reason is ProblemReason.PROGRESS_DEADLINE_EXCEEDED for problem in problems)
    return replace(told, stalls=True) if told is not None and is_overdue else told


def _ready(wanted: int, serving: int, problem: Problem | None, warm_text: str) -> Condition:
    if problem is not None and problem.blocks:
        return Condition(ConditionType.READY, False, problem.reason, problem.message)
    if wanted == 0:
        return Condition(ConditionType.READY, True, ReadyReason.SCALED_TO_ZERO, "no pods are wanted")
    if serving >= wanted:
        return Condition(
            ConditionType.READY, True, ReadyReason.ALL_PODS_WARM, f"{wanted} of {wanted} pods are warm"
        )
    if problem is not None:
        return Condition(ConditionType.READY, False, problem.reason, f"{warm_text}: {problem.message}")
    return Condition(ConditionType.READY, False, ReadyReason.WAITING_FOR_WARM_PODS, warm_text)


def _reconciling(
    wanted: int, serving: int, problem: Problem | None, warm_text: str, *, is_rolled_out: bool
) -> Condition:
    kind = ConditionType.RECONCILING
    if problem is not None and problem.stalls:
        return Condition(kind, False, ReconcilingReason.STALLED, "see the condition Stalled")
    is_blocked = problem is not None and problem.blocks
    if is_rolled_out and serving >= wanted and not is_blocked:
        return Condition(kind, False, ReconcilingReason.SETTLED, "everything is as declared")
    if problem is not None:
        surplus = "; a rollout needs room for one pod more" if wanted and serving >= wanted else ""
        return Condition(kind, True, problem.reason, problem.message + surplus)
    if not is_rolled_out:
        return Condition(
            kind, True, ReconcilingReason.ROLLING_OUT, "pods are being added, replaced or removed"
        )
    return Condition(kind, True, ReconcilingReason.WAITING_FOR_WARM_PODS, warm_text)


def _stalled(problem: Problem | None) -> Condition:
    if problem is None or not problem.stalls:
        return Condition(ConditionType.STALLED, False, StalledReason.NOT_STALLED, "nobody needs to act")
    return Condition(ConditionType.STALLED, True, problem.reason, problem.message)
