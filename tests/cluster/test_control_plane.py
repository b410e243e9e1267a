"""What the operator's tests rely on: the control plane is a real one, whole, and tells when it is not."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubernetes.aio import client, config

from tests.cluster.binaries import kubernetes_version
from tests.cluster.control_plane import ControlPlane, PartEnded, Refused, running_control_plane

WAIT_S = 30.0  # for what takes a second on an idle machine
CONTAINER = {"name": "web", "image": "example.invalid/web:1"}


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def names(control_plane: ControlPlane, path: str) -> set[str]:
    return {item["metadata"]["name"] for item in control_plane.request("GET", path)["items"]}


def test_it_is_the_kubernetes_that_was_asked_for(control_plane: ControlPlane) -> None:
    if "KUBEBUILDER_ASSETS" not in os.environ:
        assert control_plane.request("GET", "/version")["gitVersion"] == kubernetes_version()
    assert control_plane.request("GET", "/livez") == "ok"


def test_a_deployment_gets_its_replica_set_and_its_pods(control_plane: ControlPlane, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}"
    control_plane.request("POST", f"{path}/deployments", deployment("web", 2))
    pods = f"/api/v1/namespaces/{namespace}/pods"
    control_plane.wait_for("two pods", lambda: len(names(control_plane, pods)) == 2, within_s=WAIT_S)
    (replica_set,) = control_plane.request("GET", f"{path}/replicasets")["items"]
    assert replica_set["metadata"]["ownerReferences"][0]["name"] == "web"


def test_a_pod_is_scheduled_to_a_node_that_has_room(control_plane: ControlPlane, namespace: str) -> None:
    room = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": namespace, "labels": {"pool": namespace}},
        "status": {
            "allocatable": room,
            "capacity": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}],
        },
    }
    spec = {"nodeSelector": {"pool": namespace}, "containers": [CONTAINER]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
    control_plane.request("POST", "/api/v1/nodes", node)
    try:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        control_plane.request("POST", pods, pod)
        control_plane.wait_for(
            "node of the pod",
            lambda: control_plane.request("GET", f"{pods}/web")["spec"].get("nodeName") == namespace,
            within_s=WAIT_S,
        )
    finally:
        control_plane.request("DELETE", f"/api/v1/nodes/{namespace}")


def test_what_belongs_to_a_deleted_owner_is_deleted_too(control_plane: ControlPlane, namespace: str) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    owner = control_plane.request("POST", maps, config_map("owner"))
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    control_plane.request("POST", maps, config_map("dependent", ownerReferences=[reference]))
    control_plane.request("POST", maps, config_map("other"))
    control_plane.request("DELETE", f"{maps}/owner")
    control_plane.wait_for(
        "garbage collection", lambda: "dependent" not in names(control_plane, maps), within_s=WAIT_S
    )
    assert "other" in names(control_plane, maps)


async def test_a_service_account_may_do_what_is_bound_to_it_and_nothing_else(
    control_plane: ControlPlane, namespace: str
) -> None:
    kubeconfig = control_plane.kubeconfig_of_service_account(namespace, "default")
    configuration = client.Configuration()
    await config.load_kube_config(  # type: ignore[no-untyped-call]  # the library ships this one without types
        str(kubeconfig), client_configuration=configuration
    )
    async with client.ApiClient(configuration) as api:
        core = client.CoreV1Api(api)
        with pytest.raises(client.ApiException) as refusal:
            await core.list_namespaced_pod(namespace)
        assert refusal.value.status == 403
        bind_to_view(control_plane, namespace)
        control_plane.wait_for("binding", lambda: may_list_pods(control_plane, namespace), within_s=WAIT_S)
        assert (await core.list_namespaced_pod(namespace)).items == []
        with pytest.raises(client.ApiException) as refusal:
            await core.list_namespaced_pod("default")
        assert refusal.value.status == 403


def bind_to_view(control_plane: ControlPlane, namespace: str) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    control_plane.request("POST", path, binding)


def may_list_pods(control_plane: ControlPlane, namespace: str) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:default",
            "resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "pods"},
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(control_plane.request("POST", path, review)["status"]["allowed"])


async def test_a_persons_kubeconfig_is_known_by_its_user_and_groups(control_plane: ControlPlane) -> None:
    kubeconfig = control_plane.kubeconfig_for("ada", ["readers", "writers"])
    configuration = client.Configuration()
    await config.load_kube_config(  # type: ignore[no-untyped-call]  # the library ships this one without types
        str(kubeconfig), client_configuration=configuration
    )
    async with client.ApiClient(configuration) as api:
        review = await client.AuthenticationV1Api(api).create_self_subject_review(
            client.V1SelfSubjectReview()
        )
    assert review.status
    assert review.status.user_info
    assert review.status.user_info.username == "ada"
    assert {"readers", "writers"} <= set(review.status.user_info.groups or ())


def test_a_privileged_pod_is_refused_where_pod_security_is_restricted(
    control_plane: ControlPlane, namespace: str
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    control_plane.request("PATCH", f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
    spec = {"containers": [{**CONTAINER, "securityContext": {"privileged": True}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
    with pytest.raises(Refused, match="violates PodSecurity") as refusal:
        control_plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    assert refusal.value.status == 403


def test_an_outage_of_the_api_server_loses_nothing(control_plane: ControlPlane, namespace: str) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.request("POST", maps, config_map("kept"))
    control_plane.stop_apiserver()
    try:
        with pytest.raises(ConnectionRefusedError):
            control_plane.request("GET", maps)
    finally:
        control_plane.start_apiserver()
    assert "kept" in names(control_plane, maps)


def test_a_part_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(PartEnded, match=r"kube-apiserver ended[\s\S]*--no-such-flag"),
        running_control_plane(tmp_path / "plane", flags={"kube-apiserver": ["--no-such-flag"]}),
    ):
        pass
    assert processes_in(tmp_path) == []


def test_nothing_is_left_when_the_process_of_the_tests_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from tests.cluster.control_plane import running_control_plane\n"
        "with running_control_plane(pathlib.Path(sys.argv[1])):\n"
        "    print('running', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    plane = tmp_path / "plane"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(plane)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as tests:
        assert tests.stdout
        assert tests.stdout.readline() == b"running\n"
        parts = processes_in(plane)
        assert len(parts) == 4
        tests.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(parts, timeout=WAIT_S)
    assert alive == []


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes that name *folder* in their command line, but for this one."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid()
        and any(str(folder) in word and word.startswith("--") for word in process.info["cmdline"] or ())
    ]
