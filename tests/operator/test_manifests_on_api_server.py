"""The objects on a real API server, and the words that real controllers have for what is wrong with them.

What `needs_apply` ignores, what Pod Security admits and what a problem is recognised by are guesses about other
programs; here they are asked.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import pytest

from everwarm_operator.desired import Owner, desired_objects
from everwarm_operator.gate import Verdict, gate_patch
from everwarm_operator.manifest import Manifest, needs_apply
from everwarm_operator.naming import FIELD_MANAGER, WARM_GATE
from everwarm_operator.observed import ObservedDeployment, ObservedPod
from everwarm_operator.problems import Problem, ProblemReason, deployment_problems, pod_problems
from tests.cluster.api import STRATEGIC_MERGE, Api
from tests.cluster.control_plane import ControlPlane, Refused
from tests.operator.test_desired import RICH, WHOLE
from tests.operator.worlds import whisper_model

APPLY: Final = "application/apply-patch+yaml"
QUERY: Final = f"fieldManager={FIELD_MANAGER}&force=true"
FOLDERS: Final = {
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Service": "api/v1/namespaces/{}/services",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}
CLAIM: Final = {"persistentVolumeClaim": {"claimName": "weights"}}
FULL_NODE: Final = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "full"},
    "spec": {"taints": [{"key": "full", "effect": "NoSchedule"}]},
}
"""Takes no pod, but makes the scheduler look at all that a pod asks for: without a node it looks at nothing."""


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[Api]:
    """The API server, as admin."""
    async with aiohttp.ClientSession() as session:
        yield Api(control_plane, session)


def path_of(manifest: Manifest) -> str:
    """Where the object is."""
    return f"/{FOLDERS[manifest.kind].format(manifest.namespace)}/{manifest.name}"


async def apply(api: Api, manifest: Manifest) -> dict[str, Any]:
    """The object once it has been applied."""
    return await api.request("PATCH", f"{path_of(manifest)}?{QUERY}", dict(manifest.body), kind=APPLY)


async def owner_in(api: Api, namespace: str) -> Owner:
    """Something that exists, to own what is made: the garbage collector deletes what has no owner."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    metadata = {"name": "owner"}
    made = await api.request("POST", path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    return Owner(namespace, made["metadata"]["uid"])


def of_config_map(manifest: Manifest) -> Manifest:
    """The manifest with the owner's real kind, so that these tests need no definition of ours."""
    metadata = dict(manifest.body["metadata"])
    (reference,) = metadata["ownerReferences"]
    owner = {**reference, "apiVersion": "v1", "kind": "ConfigMap", "name": "owner"}
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k != "everwarm.dev/applied"}
    metadata.update(ownerReferences=[owner], annotations=annotations)
    return Manifest.of({**manifest.body, "metadata": metadata})


async def all_applied(api: Api, namespace: str, **spec: Any) -> list[Manifest]:
    """The objects of a resource with this spec, applied."""
    owner = await owner_in(api, namespace)
    made = desired_objects(whisper_model(**spec), owner=owner, platform=WHOLE)
    manifests = [of_config_map(each) for each in made]
    for each in manifests:
        await apply(api, each)
    return manifests


def the(kind: str, manifests: list[Manifest]) -> Manifest:
    """The manifest of that kind."""
    return next(each for each in manifests if each.kind == kind)


def seen(control_plane: ControlPlane, path: str, condition: Callable[[Any], object]) -> Any:
    """The object at *path* as soon as it meets *condition*."""
    found: list[Any] = []

    def has_come() -> object:
        found[:] = [control_plane.request("GET", path)]
        return condition(found[0])

    control_plane.wait_for(f"what is awaited at {path}", has_come, within_s=30)
    return found[0]


@pytest.fixture
def full_node(control_plane: ControlPlane) -> Iterator[None]:
    """A node that takes no pod."""
    control_plane.request("POST", "/api/v1/nodes", FULL_NODE)
    yield
    control_plane.request("DELETE", "/api/v1/nodes/full")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        RICH,
        {"source": {"persistentVolumeClaim": {"claimName": "weights"}}},
        {"source": {"image": {"reference": "registry.example/base:1"}}},
        {
            "replicas": 0,
            "template": {
                "resources": {"limits": {"memory": "1.5Gi", "cpu": 2}, "requests": {"cpu": "0.25"}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}
                ],
                "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
                "env": [{"name": "EMPTY", "value": ""}, {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
            },
        },
    ],
    ids=["defaults", "everything", "claim", "image", "template"],
)  # fmt: skip
async def test_objects_that_were_applied_need_no_other_apply(
    api: Api, namespace: str, spec: dict[str, Any]
) -> None:
    """Whatever the API server and its controllers make of them."""
    for each in await all_applied(api, namespace, **spec):
        live = await api.get(path_of(each))
        assert live is not None
        assert not needs_apply(each, live), each.kind


async def test_foreign_changes_are_seen_corrected_and_foreign_fields_left(api: Api, namespace: str) -> None:
    deployment = the("Deployment", await all_applied(api, namespace, replicas=0))
    foreign = {"metadata": {"labels": {"team": "speech"}}, "spec": {"replicas": 2}}
    changed = await api.request("PATCH", path_of(deployment), foreign)
    assert needs_apply(deployment, changed)
    corrected = await apply(api, deployment)
    assert not needs_apply(deployment, corrected)
    assert corrected["spec"]["replicas"] == 0
    assert corrected["metadata"]["labels"]["team"] == "speech"


async def test_a_field_that_is_no_longer_wanted_goes(api: Api, namespace: str) -> None:
    with_selector = the(
        "Deployment", await all_applied(api, namespace, template={"nodeSelector": {"gpu": "l4"}})
    )
    owner = Owner(namespace, with_selector.body["metadata"]["ownerReferences"][0]["uid"])
    made = desired_objects(whisper_model(), owner=owner, platform=WHOLE)
    without = the("Deployment", [of_config_map(each) for each in made])
    live = await apply(api, without)
    assert "nodeSelector" not in live["spec"]["template"]["spec"]


async def test_pods_are_admitted_where_pod_security_is_restricted(
    api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await api.request("PATCH", f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": label}})
    deployment = the("Deployment", await all_applied(api, namespace, source=CLAIM, device="cuda"))

    def is_decided(live: Any) -> bool:
        return bool(
            live.get("status", {}).get("replicas") or ObservedDeployment.from_object(live).replica_failure
        )

    live = seen(control_plane, path_of(deployment), is_decided)
    assert ObservedDeployment.from_object(live).replica_failure is None


async def test_a_quota_that_is_used_up_is_recognised(
    api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    await api.request("POST", quotas, quota)
    seen(control_plane, f"{quotas}/none", lambda live: "hard" in live.get("status", {}))
    deployment = the("Deployment", await all_applied(api, namespace))
    live = seen(
        control_plane, path_of(deployment), lambda live: ObservedDeployment.from_object(live).replica_failure
    )
    (problem,) = deployment_problems(ObservedDeployment.from_object(live))
    assert problem.reason is ProblemReason.QUOTA_EXCEEDED
    assert "base-en" not in problem.message, "the pod's name would change with each try"


def problems_of(pod: ObservedPod) -> list[Problem]:
    """What keeps *pod* from being Ready."""
    return list(pod_problems([pod], template_hash=pod.template_hash))


async def unplaced_pod(
    api: Api,
    namespace: str,
    control_plane: ControlPlane,
    *,
    reason: ProblemReason = ProblemReason.UNSCHEDULABLE,
    **spec: Any,
) -> ObservedPod:
    """The pod of a resource, once the scheduler has given up on it for now, and for *reason*.

    It may look at a pod before it has heard of the node, finds none then, and says more at its next try.
    """
    await all_applied(api, namespace, **spec)

    def is_unplaced(live: Any) -> bool:
        pods = map(ObservedPod.from_object, live["items"])
        return any(problem.reason is reason for pod in pods for problem in problems_of(pod))

    (pod,) = seen(control_plane, f"/api/v1/namespaces/{namespace}/pods", is_unplaced)["items"]
    return ObservedPod.from_object(pod)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({}, ProblemReason.UNSCHEDULABLE), ({"source": CLAIM}, ProblemReason.CLAIM_NOT_FOUND)],
    ids=["no room", "no claim"],
)
async def test_a_pod_that_finds_no_place_is_recognised(
    api: Api,
    namespace: str,
    control_plane: ControlPlane,
    full_node: None,
    spec: dict[str, Any],
    reason: ProblemReason,
) -> None:
    pod = await unplaced_pod(api, namespace, control_plane, reason=reason, **spec)
    (problem,) = problems_of(pod)
    assert problem.reason is reason


async def test_a_pod_carries_what_it_was_made_for(
    api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    pod = await unplaced_pod(api, namespace, control_plane, aliases=["whisper-1"])
    assert (pod.names, pod.languages) == (("base.en", "whisper-1"), ("en",))
    assert pod.template_hash


async def test_a_gate_is_set_beside_the_kubelets_conditions_on_the_pod_it_was_meant_for(
    api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    pod = await unplaced_pod(api, namespace, control_plane)
    patch = gate_patch(pod, Verdict(True, "Warm", "warm: boot a, container b"), now=datetime.now(UTC))
    assert patch is not None
    path = f"/api/v1/namespaces/{namespace}/pods/{pod.name}/status"
    body = {"metadata": {"uid": patch.pod_uid}, "status": {"conditions": [patch.condition]}}
    patched = await api.request("PATCH", path, body, kind=STRATEGIC_MERGE)
    kinds = {each["type"] for each in patched["status"]["conditions"]}
    assert kinds >= {WARM_GATE, "PodScheduled"}
    open_pod = ObservedPod.from_object(patched)
    assert open_pod.gate is not None
    assert open_pod.gate.is_open
    assert gate_patch(open_pod, patch.verdict, now=datetime.now(UTC)) is None
    other = replace(patch, pod_uid="00000000-0000-0000-0000-000000000000")
    body["metadata"] = {"uid": other.pod_uid}
    with pytest.raises(Refused) as refused:
        await api.request("PATCH", path, body, kind=STRATEGIC_MERGE)
    assert refused.value.status in (409, 422), "metadata.uid: field is immutable"
