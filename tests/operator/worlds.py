"""Small worlds for the operator's pure functions: resources, pods, leases, and a cluster that does as it is told."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from everwarm_core.registry.records import Lease, PodState
from everwarm_core.spec import API_VERSION, KIND, WhisperModel
from everwarm_operator.desired import Owner, Platform, desired_objects
from everwarm_operator.gate import GatePatch, Registry, RegistryHealth
from everwarm_operator.manifest import Manifest
from everwarm_operator.naming import TEMPLATE_ANNOTATION
from everwarm_operator.observed import Gate, ObservedPod, ObservedResource, Terminated, Waiting
from everwarm_operator.reconcile import Instant, Observed, Outcome
from tests.fixtures.records import pod_record

PLATFORM: Final = Platform(image="everwarm/stt:1.0.0", redis_url="redis://valkey:6379/0")
OWNER: Final = Owner(namespace="speech", uid="uid-resource")
NOW: Final = Instant(wall=datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC), monotonic_s=1000.0)
TRUSTED: Final = RegistryHealth.reached(0.0)
JUST_BACK: Final = RegistryHealth.reached(NOW.monotonic_s - 1.0)
UNREACHABLE: Final = RegistryHealth.unreachable()

FIRST_CONTAINER: Final = "containerd://" + "1" * 64
SECOND_CONTAINER: Final = "containerd://" + "2" * 64
FIRST_GRANT: Final = "boot boot-a, container " + "1" * 12


def whisper_model(name: str = "base.en", **spec: Any) -> WhisperModel:
    """A resource called *name* of base.en; *spec* is written as in YAML."""
    return WhisperModel.from_document(
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": OWNER.namespace},
            "spec": {"model": "base.en", **spec},
        },
        source=name,
    )


def resource(**changes: Any) -> ObservedResource:
    """What the API server knows of it, first generation, no status yet."""
    first = ObservedResource(
        namespace=OWNER.namespace,
        name="base.en",
        uid=OWNER.uid,
        generation=1,
        created_at=datetime(2026, 11, 25, 11, 0, 0, tzinfo=UTC),
        status={},
    )
    return replace(first, **changes)


def desired(model: WhisperModel, platform: Platform = PLATFORM) -> dict[str, Any]:
    """The bodies of its objects by kind."""
    return {each.kind: each.body for each in desired_objects(model, owner=OWNER, platform=platform)}


def pod_spec(model: WhisperModel, platform: Platform = PLATFORM) -> dict[str, Any]:
    """The spec of its pods."""
    spec: dict[str, Any] = desired(model, platform)["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(model: WhisperModel, platform: Platform = PLATFORM) -> dict[str, Any]:
    """Their only container."""
    (only,) = pod_spec(model, platform)["containers"]
    assert isinstance(only, dict)
    return only


def template_hash(model: WhisperModel) -> str:
    """The digest that pods of *model* carry."""
    return str(
        desired(model)["Deployment"]["spec"]["template"]["metadata"]["annotations"][TEMPLATE_ANNOTATION]
    )


# --- Pods ----------------------------------------------------------------------------------------------------------


def pod(name: str = "pod-a", *, model: WhisperModel | None = None, **changes: Any) -> ObservedPod:
    """A pod of base.en whose container runs and is not ready yet; its UID is its name."""
    model = model or whisper_model()
    running = ObservedPod(
        name=name,
        uid=name,
        phase="Running",
        template_hash=template_hash(model),
        names=model.names,
        languages=model.spec.languages,
        image=PLATFORM.image,
        container_id=FIRST_CONTAINER,
        is_running=True,
    )
    return replace(running, **changes)


def warm_pod(name: str = "pod-a", *, model: WhisperModel | None = None, **changes: Any) -> ObservedPod:
    """A pod that is Ready, its gate open for `lease(name)`."""
    record = f"boot {name.replace('pod', 'boot')}, container {'1' * 12}"
    ready = {"gate": open_gate(f"warm: {record}"), "is_ready": True, "are_containers_ready": True}
    return pod(name, model=model, **{**ready, **changes})


def waiting_pod(reason: str, message: str = "", **changes: Any) -> ObservedPod:
    """A pod whose container waits."""
    return pod(is_running=False, container_id="", waiting=Waiting(reason, message), **changes)


def failed(message: str = "", *, exit_code: int = 1, reason: str = "Error") -> Terminated:
    """How a container ended that failed."""
    return Terminated(exit_code=exit_code, reason=reason, message=message, container_id=FIRST_CONTAINER)


def open_gate(message: str = f"warm: {FIRST_GRANT}", reason: str = "Warm") -> Gate:
    """A gate that is open since 11:30."""
    return Gate(is_open=True, reason=reason, message=message, since="2026-11-25T11:30:00Z")


def closed_gate(message: str = "loading its weights", reason: str = "Loading") -> Gate:
    """A gate that is closed since 11:30."""
    return Gate(is_open=False, reason=reason, message=message, since="2026-11-25T11:30:00Z")


def lease(
    pod_id: str = "pod-a", *, expires_at: float = NOW.monotonic_s + 5, carried: bool = False, **record: Any
) -> Lease:
    """A lease of a warm pod of base.en."""
    facts: dict[str, Any] = {"names": ("base.en",), "state": PodState.WARM, **record}
    return Lease(pod_record(pod_id, **facts), expires_at=expires_at, carried=carried)


def registry(*leases: Lease, health: RegistryHealth = TRUSTED) -> Registry:
    """A registry that holds these."""
    return Registry(health, {each.pod.id: each for each in leases})


# --- A cluster that does as it is told -----------------------------------------------------------------------------


def live(manifest: Manifest) -> dict[str, Any]:
    """The object as the API server returns it: with what it adds by itself, and without what is empty."""
    body: dict[str, Any] = copy.deepcopy(dict(manifest.body))
    body["metadata"].update(uid=f"uid-{manifest.kind}", resourceVersion="7", generation=1)
    if manifest.kind == "Deployment":
        body["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
        spec = body["spec"]["template"]["spec"]
        spec.update(restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
        for each in spec["containers"]:
            each["terminationMessagePath"] = "/dev/termination-log"
            each["ports"][0]["protocol"] = "TCP"
            each["startupProbe"]["httpGet"]["scheme"] = "HTTP"
            each["startupProbe"]["successThreshold"] = 1
    if manifest.kind == "Service":
        body["spec"].update(clusterIP="10.0.0.7", type="ClusterIP")
        body["spec"]["ports"][0]["protocol"] = "TCP"
    return body


def live_objects(
    model: WhisperModel, *, replicas: int | None = None, platform: Platform = PLATFORM, **status: Any
) -> dict[tuple[str, str], dict[str, Any]]:
    """Its objects, applied; the Deployment rolled out, or as *replicas* and *status* say."""
    objects = {each.key: live(each) for each in desired_objects(model, owner=OWNER, platform=platform)}
    count = model.spec.replicas if replicas is None else replicas
    for (kind, _), body in objects.items():
        if kind == "Deployment":
            body["status"] = {
                "observedGeneration": 1,
                "replicas": count,
                "updatedReplicas": count,
                "readyReplicas": count,
                **status,
            }
    return objects


def after(observed: Observed, outcome: Outcome) -> Observed:
    """The world once *outcome* has been written."""
    objects = {**observed.objects, **{each.key: live(each) for each in outcome.apply}}
    patches = {patch.pod_uid: patch for patch in outcome.gates}
    pods = tuple(_patched(each, patches.get(each.uid)) for each in observed.pods)
    status: Mapping[str, Any] = {**observed.resource.status, **(outcome.status or {})}
    standing = {name: value for name, value in status.items() if value is not None}
    return replace(
        observed,
        resource=replace(observed.resource, status=standing),
        objects=objects,
        pods=pods,
        memory=outcome.memory,
    )


def _patched(before: ObservedPod, patch: GatePatch | None) -> ObservedPod:
    if patch is None:
        return before
    verdict = patch.verdict
    return replace(before, gate=Gate(verdict.is_open, str(verdict.reason), verdict.message, patch.since))
