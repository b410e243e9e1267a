"""What the cluster shows, as frozen values read off API objects (JSON as the API server returns it).

Nothing is required to be there: a pod that was just made has no status, an old API server lacks fields. What is
missing reads as None, zero or False, never as an error. Only what some decision needs is kept, so a change of
anything else compares as no change.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from everwarm_core.registry.records import parse_list
from everwarm_operator.naming import LANGUAGES_ANNOTATION, NAMES_ANNOTATION, TEMPLATE_ANNOTATION, WARM_GATE

Json = Mapping[str, Any]

CONTAINER: Final = "stt"
"""Name of the container that serves; others in the pod are somebody else's (sidecars)."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The readiness gate as it stands on a pod."""

    is_open: bool
    reason: str
    message: str
    since: str
    """lastTransitionTime, as written."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run: `ImagePullBackOff`, `CrashLoopBackOff`, ..."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Terminated:
    """How a container ended; *message* is the end of its log when it failed (terminationMessagePolicy)."""

    exit_code: int
    reason: str
    message: str
    container_id: str

    @property
    def has_failed(self) -> bool:
        """Whether it did not end of its own will, after a drain."""
        return self.exit_code != 0

    @property
    def last_words(self) -> Mapping[str, Any]:
        """Attributes of the pod's last line of log if that is its own account of a failure, else empty.

        `everwarm-pod` ends with `{"event": "pod.failed", "reason": ..., "error": <class of the error>}`; a line cut
        by the kubelet's limit of 2 KiB is none.
        """
        for line in reversed(self.message.strip().splitlines()):
            try:
                attributes = json.loads(line)
            except ValueError:
                continue
            if isinstance(attributes, dict) and attributes.get("event") == "pod.failed":
                return attributes
        return {}


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """One pod of a resource.

    names, languages: the keys it must be warm for, from its own annotations: in a rollout the pods of the last
    generation are judged by what they were made for. template_hash: digest of the template it was made from (our own,
    which a desired Deployment has too; Kubernetes' stands on no Deployment). terminated: how its container ended, now
    or before the process that runs now. unschedulable: the scheduler's message while it finds no node.
    """

    name: str
    uid: str
    created_at: datetime | None = None
    is_deleting: bool = False
    phase: str = ""
    node: str = ""
    template_hash: str = ""
    names: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    is_ready: bool = False
    are_containers_ready: bool = False
    gate: Gate | None = None
    image: str = ""
    container_id: str = ""
    is_running: bool = False
    restart_count: int = 0
    waiting: Waiting | None = None
    terminated: Terminated | None = None
    unschedulable: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it will never run again (evicted, or ended): its place has been given to another pod."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_stopped(self) -> bool:
        """Whether the kubelet says that its container does not run; before it says anything, nobody knows."""
        return not self.is_running and (self.waiting is not None or self.terminated is not None)

    @classmethod
    def from_object(cls, pod: Json) -> "ObservedPod":
        """The pod in the API object *pod*."""
        metadata, spec, status = _mapping(pod, "metadata"), _mapping(pod, "spec"), _mapping(pod, "status")
        annotations = _mapping(metadata, "annotations")
        conditions = _by(status.get("conditions"), "type")
        container = _container(status.get("containerStatuses"))
        state, last_state = _mapping(container, "state"), _mapping(container, "lastState")
        scheduled = conditions.get("PodScheduled", {})
        is_unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        return cls(
            name=_text(metadata, "name"),
            uid=_text(metadata, "uid"),
            created_at=parse_time(metadata.get("creationTimestamp")),
            is_deleting=bool(metadata.get("deletionTimestamp")),
            phase=_text(status, "phase"),
            node=_text(spec, "nodeName"),
            template_hash=_text(annotations, TEMPLATE_ANNOTATION),
            names=parse_list(_text(annotations, NAMES_ANNOTATION)),
            languages=parse_list(_text(annotations, LANGUAGES_ANNOTATION)),
            is_ready=_is_true(conditions, "Ready"),
            are_containers_ready=_is_true(conditions, "ContainersReady"),
            gate=_gate(conditions.get(WARM_GATE)),
            image=_text(_container(spec.get("containers")), "image"),
            container_id=_text(container, "containerID"),
            is_running="running" in state,
            restart_count=_count(container, "restartCount"),
            waiting=_waiting(state.get("waiting")),
            terminated=_terminated(state.get("terminated") or last_state.get("terminated")),
            unschedulable=_text(scheduled, "message") if is_unschedulable else None,
        )


@dataclass(frozen=True, slots=True)
class DeploymentCondition:
    """A condition of a Deployment: Progressing, ReplicaFailure or Available."""

    is_true: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ObservedDeployment:
    """The resource's Deployment; counts are of pods that are not being deleted."""

    generation: int = 0
    observed_generation: int = 0
    wanted: int = 0
    """spec.replicas."""
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    progressing: DeploymentCondition | None = None
    replica_failure: DeploymentCondition | None = None

    @property
    def is_observed(self) -> bool:
        """Whether the Deployment controller has seen the newest generation, so that its conditions are about that."""
        return self.observed_generation >= self.generation

    @property
    def is_rolled_out(self) -> bool:
        """Whether the pods there are, are the pods wanted: all of the newest template, none left over."""
        return self.is_observed and self.updated == self.replicas == self.wanted

    @classmethod
    def from_object(cls, deployment: Json) -> "ObservedDeployment":
        """The Deployment in the API object *deployment*."""
        metadata, status = _mapping(deployment, "metadata"), _mapping(deployment, "status")
        conditions = _by(status.get("conditions"), "type")
        return cls(
            generation=_count(metadata, "generation"),
            observed_generation=_count(status, "observedGeneration"),
            wanted=_count(_mapping(deployment, "spec"), "replicas"),
            replicas=_count(status, "replicas"),
            updated=_count(status, "updatedReplicas"),
            ready=_count(status, "readyReplicas"),
            available=_count(status, "availableReplicas"),
            progressing=_condition(conditions.get("Progressing")),
            replica_failure=_condition(conditions.get("ReplicaFailure")),
        )


@dataclass(frozen=True, slots=True)
class ObservedResource:
    """What the API server knows of a WhisperModel beside its spec.

    created_at: decides which of two resources has a name; status: as it stands, empty when there is none yet.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: datetime | None
    status: Json

    @classmethod
    def from_object(cls, resource: Json) -> "ObservedResource":
        """Read off the API object *resource*, valid or not."""
        metadata = _mapping(resource, "metadata")
        return cls(
            namespace=_text(metadata, "namespace"),
            name=_text(metadata, "name"),
            uid=_text(metadata, "uid"),
            generation=_count(metadata, "generation"),
            created_at=parse_time(metadata.get("creationTimestamp")),
            status=_mapping(resource, "status"),
        )


def controller(live: Json) -> Json | None:
    """The owner reference of the owner that controls the object *live*; None when nobody does."""
    owners = _mapping(live, "metadata").get("ownerReferences")
    for owner in owners if isinstance(owners, Sequence) else ():
        if isinstance(owner, Mapping) and owner.get("controller"):
            return owner
    return None


def parse_time(text: object) -> datetime | None:
    """A Kubernetes timestamp (RFC 3339, UTC) as an aware datetime; None when there is none or it is damaged."""
    if not isinstance(text, str):
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def format_time(moment: datetime) -> str:
    """*moment* as Kubernetes writes times: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _gate(condition: Json | None) -> Gate | None:
    if condition is None:
        return None
    return Gate(
        is_open=condition.get("status") == "True",
        reason=_text(condition, "reason"),
        message=_text(condition, "message"),
        since=_text(condition, "lastTransitionTime"),
    )


def _waiting(state: object) -> Waiting | None:
    if not isinstance(state, Mapping):
        return None
    return Waiting(reason=_text(state, "reason"), message=_text(state, "message"))


def _terminated(state: object) -> Terminated | None:
    if not isinstance(state, Mapping):
        return None
    return Terminated(
        exit_code=_count(state, "exitCode"),
        reason=_text(state, "reason"),
        message=_text(state, "message"),
        container_id=_text(state, "containerID"),
    )


def _condition(condition: Json | None) -> DeploymentCondition | None:
    if condition is None:
        return None
    return DeploymentCondition(
        is_true=condition.get("status") == "True",
        reason=_text(condition, "reason"),
        message=_text(condition, "message"),
    )


def _container(containers: object) -> Json:
    """The container that serves, among *containers* (statuses or specs); the only one whatever its name."""
    found = _by(containers, "name")
    return found.get(CONTAINER) or (next(iter(found.values())) if len(found) == 1 else {})


def _by(items: object, key: str) -> dict[str, Json]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        return {}
    return {str(item[key]): item for item in items if isinstance(item, Mapping) and key in item}


def _is_true(conditions: Mapping[str, Json], name: str) -> bool:
    return conditions.get(name, {}).get("status") == "True"


def _mapping(parent: Json, key: str) -> Json:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(parent: Json, key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def _count(parent: Json, key: str) -> int:
    value = parent.get(key)
    return value if isinstance(value, int) else 0
