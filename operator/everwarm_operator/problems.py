"""What keeps a resource from being as declared, recognised in what the cluster says, in words a person can act on.

Some of it only the operator can see at all: the pod that would report it never starts. Each `Problem` says whether it
*stalls* the resource (nothing gets better until somebody repairs something) or may pass by itself (a node is being
added). All are read off what is observed now, so they go when their cause does; nothing is remembered.

Pods that are Ready, on their way out or of an older template do not count: their troubles are over, or are being
replaced. Of several problems the first in the order below is told, and of pods with the same one the first by name,
so that the same world always makes the same words.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from everwarm_core.errors import SpecError
from everwarm_core.spec import KIND, WhisperModel, ensure_names_are_unique
from everwarm_operator.gate import Grant
from everwarm_operator.manifest import Manifest, was_applied
from everwarm_operator.observed import (
    Json,
    ObservedDeployment,
    ObservedPod,
    ObservedResource,
    Terminated,
    controller,
)

MAX_MESSAGE: Final = 1000  # characters; an Event takes 1024


class ProblemReason(StrEnum):
    """Reasons of Stalled, Ready and Reconciling that name a problem; in the order in which they are told."""

    INVALID_SPEC = "InvalidSpec"
    """The spec passes the schema and still means nothing."""
    NAME_TAKEN = "NameTaken"
    """A name of this resource belongs to an older one."""
    OBJECT_NOT_OURS = "ObjectNotOurs"
    """An object of the name we need exists and belongs to somebody else."""
    OBJECT_REFUSED = "ObjectRefused"
    """The API server refuses an object made from the spec, for what the schema cannot check."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace's ResourceQuota allows no further pod."""
    FORBIDDEN_BY_POD_SECURITY = "ForbiddenByPodSecurity"
    """The namespace's Pod Security level refuses the pods."""
    PODS_REFUSED = "PodsRefused"
    """The API server refuses the pods for another reason."""
    IMAGE_NOT_PULLED = "ImageNotPulled"
    """The image cannot be pulled: it does not exist, or its registry refuses us."""
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    """The container cannot be made: a Secret it needs is missing, say, or its image runs as root."""
    WEIGHTS_NOT_FOUND = "WeightsNotFound"
    """Pods find no usable weights where the source says."""
    WARMUP_FAILED = "WarmupFailed"
    """Pods load their model but do not become warm in time."""
    OUT_OF_MEMORY = "OutOfMemory"
    """Pods are killed for using more memory than their limit."""
    PODS_FAIL = "PodsFail"
    """Pods end again and again, for another reason."""
    CLAIM_NOT_FOUND = "ClaimNotFound"
    """The PersistentVolumeClaim with the weights does not exist."""
    UNSCHEDULABLE = "Unschedulable"
    """No node has room for, or fits, a pod."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    """Pods have not become Ready in the time that placement and warm-up may take, and nothing says why."""


_ORDER: Final = {reason: place for place, reason in enumerate(ProblemReason)}
_BLOCKING: Final = frozenset(
    {ProblemReason.INVALID_SPEC, ProblemReason.NAME_TAKEN, ProblemReason.OBJECT_NOT_OURS}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem; stalls: whether somebody must act."""

    reason: ProblemReason
    message: str
    stalls: bool = True

    @property
    def blocks(self) -> bool:
        """Whether nothing may be applied while it stands."""
        return self.reason in _BLOCKING


@dataclass(frozen=True, slots=True)
class Rival:
    """Another valid resource of the namespace."""

    model: WhisperModel
    resource: ObservedResource


def most_telling(problems: Iterable[Problem]) -> Problem | None:
    """The one to be told: the first in the order of reasons; None when there is none."""
    return min(problems, key=lambda problem: _ORDER[problem.reason], default=None)


def invalid_spec(error: SpecError) -> Problem:
    """The spec is no WhisperModel, for the reasons in *error*."""
    text = "; ".join(f"{path}: {reason}" for path, reason in error.problems)
    return Problem(ProblemReason.INVALID_SPEC, cut(text))


def taken_name(model: WhisperModel, resource: ObservedResource, rivals: Iterable[Rival]) -> Problem | None:
    """A name of *model* that an older rival has; the older one keeps it, whichever of the two was edited."""
    for rival in sorted(rivals, key=lambda rival: _age(rival.resource)):
        if rival.resource.uid == resource.uid or _age(rival.resource) > _age(resource):
            continue
        try:
            ensure_names_are_unique((rival.model, model))
        except SpecError as error:
            path, reason = error.problems[0]
            if error.source != model.name:
                path = "spec.model"
                reason = (
                    f"{model.spec.model!r} is a name of resource {rival.model.name!r},"
                    f" whose model is {rival.model.spec.model!r}; choose another one"
                )
            return Problem(ProblemReason.NAME_TAKEN, cut(f"{path}: {reason}"))
    return None


def foreign_object(
    desired: Iterable[Manifest], live: Mapping[tuple[str, str], Json], resource: ObservedResource
) -> Problem | None:
    """An object of the name of one of *desired* that is not ours to change.

    One without a controller that we applied once has lost its owner reference, and is taken back.
    """
    for manifest in desired:
        standing = live.get(manifest.key)
        owner = controller(standing) if standing is not None else None
        if standing is None or (owner is None and was_applied(standing)):
            continue
        if owner is None or owner.get("uid") != resource.uid:
            what = f"{manifest.kind} {manifest.name!r}"
            if owner is not None and (owner.get("kind"), owner.get("name")) == (KIND, resource.name):
                message = f"{what} of an earlier resource of this name is still being deleted"
                return Problem(ProblemReason.OBJECT_NOT_OURS, message, stalls=False)
            advice = "delete or rename it, or give the resource another name"
            message = f"{what} exists and was not made for this resource; {advice}"
            return Problem(ProblemReason.OBJECT_NOT_OURS, message)
    return None


def refused_object(message: str) -> Problem:
    """The API server refused to apply an object, saying *message*."""
    return Problem(ProblemReason.OBJECT_REFUSED, cut(f"an object made from the spec is refused: {message}"))


def deployment_problems(deployment: ObservedDeployment) -> Iterator[Problem]:
    """What the conditions of a Deployment, whose newest generation has been observed, say."""
    failure = deployment.replica_failure
    if failure is not None and failure.is_true:
        reason, advice = ProblemReason.PODS_REFUSED, ""
        if "exceeded quota" in failure.message:
            reason, advice = ProblemReason.QUOTA_EXCEEDED, "; raise the quota, or ask for less"
        elif "violates PodSecurity" in failure.message:
            reason, advice = (
                ProblemReason.FORBIDDEN_BY_POD_SECURITY,
                "; change spec.template, or the namespace's level",
            )
        yield Problem(reason, cut(_without_pod_name(failure.message), advice))
    progressing = deployment.progressing
    if progressing is not None and progressing.reason == "ProgressDeadlineExceeded":
        yield Problem(
            ProblemReason.PROGRESS_DEADLINE_EXCEEDED,
            "pods did not become Ready in the time that placement and warm-up may take;"
            " see their events and logs, or raise spec.warmup.timeoutSeconds",
        )


def pod_problems(pods: Iterable[ObservedPod], *, template_hash: str) -> Iterator[Problem]:
    """What keeps pods made from the template *template_hash* from being Ready."""
    for pod in sorted(pods, key=lambda pod: pod.name):
        if pod.template_hash == template_hash and not (pod.is_ready or pod.is_deleting or pod.is_over):
            yield from _problems_of(pod)


def failure_text(terminated: Terminated) -> str:
    """Why a container failed, in its own words where it left any."""
    if reason := terminated.last_words.get("reason"):
        return str(reason)
    if terminated.reason == "OOMKilled":
        return "killed for using more memory than its limit"
    lines = terminated.message.strip().splitlines()
    return f"exit code {terminated.exit_code}" + (f": {lines[-1][:300]}" if lines else "")


def cut(text: str, ending: str = "") -> str:
    """*text* and *ending* on one line, the text shortened where both would be too long for an Event."""
    text = " ".join(text.split())
    room = MAX_MESSAGE - len(ending)
    return (text if len(text) <= room else text[: room - 3] + "...") + ending


# --- Pods ----------------------------------------------------------------------------------------------------------

_PULL_FAILURES: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_CREATE_FAILURES: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
)
_BACK_OFF: Final = re.compile(r'^Back-off pulling image "[^"]*": (ErrImagePull: )?')
_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" not found')
_POD_NAME: Final = re.compile(r'pods "[^"]*" is forbidden: ')

_BY_ERROR: Final[Mapping[str, ProblemReason]] = {
    "WeightsUnavailable": ProblemReason.WEIGHTS_NOT_FOUND,
    "WarmupFailed": ProblemReason.WARMUP_FAILED,
}
"""Reasons by the class of error in a pod's last words (everwarm_core.errors)."""


def _problems_of(pod: ObservedPod) -> Iterator[Problem]:
    for recognise in _RECOGNISERS:
        if (problem := recognise(pod)) is not None:
            yield problem


def _image_problem(pod: ObservedPod) -> Problem | None:
    waiting = pod.waiting
    if waiting is None or waiting.reason not in _PULL_FAILURES:
        return None
    # The kubelet says the same twice, in turn, as an error and as its own waiting; told in one form, it is told once.
    detail = _BACK_OFF.sub("", waiting.message) or waiting.reason
    return Problem(ProblemReason.IMAGE_NOT_PULLED, cut(f"image {pod.image!r} cannot be pulled: {detail}"))


def _creation_problem(pod: ObservedPod) -> Problem | None:
    waiting = pod.waiting
    if waiting is None or waiting.reason not in _CREATE_FAILURES:
        return None
    detail = waiting.message or waiting.reason
    return Problem(ProblemReason.CONTAINER_NOT_CREATED, cut(f"the container cannot be made: {detail}"))


def _failure_problem(pod: ObservedPod) -> Problem | None:
    """The pod's process fails: by its own account (then every start will), or again and again.

    The account stands while the next process runs, until it is warm, so the problem does not come and go with
    every try.
    """
    terminated = pod.terminated
    if terminated is None or not terminated.has_failed or _has_been_warm_since(pod):
        return None
    text = failure_text(terminated)
    if words := terminated.last_words:
        return Problem(
            _BY_ERROR.get(str(words.get("error")), ProblemReason.PODS_FAIL), cut(f"pods fail: {text}")
        )
    is_looping = (
        pod.waiting is not None and pod.waiting.reason == "CrashLoopBackOff"
    ) or pod.restart_count > 1
    if not is_looping:
        return None
    if terminated.reason == "OOMKilled":
        return Problem(
            ProblemReason.OUT_OF_MEMORY, cut(f"pods are {text}", "; raise spec.template.resources")
        )
    return Problem(ProblemReason.PODS_FAIL, cut(f"pods fail: {text}"))


def _has_been_warm_since(pod: ObservedPod) -> bool:
    """Whether the process that runs was warm already; what keeps it from being Ready is no earlier one's failure."""
    grant = Grant.parse(pod.gate.message) if pod.gate else None
    return pod.is_running and grant is not None and not grant.is_for_another_container(pod)


def _placement_problem(pod: ObservedPod) -> Problem | None:
    if pod.unschedulable is None:
        return None
    if missing := _MISSING_CLAIM.search(pod.unschedulable):
        message = (
            f"PersistentVolumeClaim {missing['name']!r} does not exist; create it, or correct spec.source"
        )
        return Problem(ProblemReason.CLAIM_NOT_FOUND, message)
    text = pod.unschedulable or "no node fits"
    advice = "; make room, or have rollouts replace pods in their place (spec.rollout)"
    return Problem(ProblemReason.UNSCHEDULABLE, cut(f"no node takes a pod: {text}", advice), stalls=False)


_RECOGNISERS: Final[tuple[Callable[[ObservedPod], Problem | None], ...]] = (
    _image_problem,
    _creation_problem,
    _failure_problem,
    _placement_problem,
)


def _without_pod_name(message: str) -> str:
    """The message of a refused pod without the pod's random name, which is another at each try."""
    return _POD_NAME.sub("pods are forbidden: ", message)


def _age(resource: ObservedResource) -> tuple[datetime, str]:
    """Sorts older resources first; of two of the same second, in which nobody can be first, by UID."""
    return resource.created_at or datetime.max.replace(tzinfo=UTC), resource.uid
