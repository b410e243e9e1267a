"""The operator as it runs in a cluster, for tests: a process with the rights of its Role and no others, beside a Valkey.

Where no kubelet runs, `Kubelet` says of pods what one would, and tells the registry what the pods would.
"""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.registry.connection import connect
from everwarm_core.registry.records import PodRecord, PodState
from everwarm_core.registry.writer import RegistryWriter
from everwarm_operator.access import CLUSTER_RULES, RULES, Rule
from everwarm_operator.crd import GROUP, PLURAL, VERSION, custom_resource_definition
from everwarm_operator.naming import WARM_GATE
from tests.cluster.control_plane import ControlPlane
from tests.support.pods import free_port
from tests.support.waiting import until

Json = dict[str, Any]

ACCOUNT: Final = "everwarm-operator"
WAIT_S: Final = 120.0
"""For what takes a second on an idle machine; but the garbage collector looks for new kinds once in 30 s only."""
END_S: Final = 60.0
"""For the end of an operator that cannot begin: most of that are its imports."""
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
LOOKS: Final = "everwarm_reconcile_duration_seconds_count"
"""Metric: how often the operator has looked at a resource."""
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def install_crd(control_plane: ControlPlane) -> None:
    """Install the CRD, unless it is there, and wait until resources can be made."""
    crd = dict(custom_resource_definition())
    name = crd["metadata"]["name"]
    if all(item["metadata"]["name"] != name for item in control_plane.request("GET", CRDS)["items"]):
        control_plane.request("POST", CRDS, crd)
    control_plane.wait_for("established CRD", lambda: _is_established(control_plane, name))
    control_plane.wait_for("served kind", lambda: _is_served(control_plane))


def _is_established(control_plane: ControlPlane, name: str) -> bool:
    conditions = control_plane.request("GET", f"{CRDS}/{name}")["status"].get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def _is_served(control_plane: ControlPlane) -> bool:
    """Whether the API server answers for the kind and lists it: both come after it is told to be established."""
    root = f"/apis/{GROUP}/{VERSION}"
    control_plane.request("GET", f"{root}/{PLURAL}")
    return any(kind["name"] == PLURAL for kind in control_plane.request("GET", root)["resources"])


def grant(
    control_plane: ControlPlane,
    namespace: str,
    *,
    rules: Sequence[Rule] = RULES,
    cluster_rules: Sequence[Rule] = CLUSTER_RULES,
    account_in: str | None = None,
) -> Path:
    """Grant the operator *rules* in *namespace*; returns the kubeconfig of its account.

    account_in: the namespace of an account that is there already; by default one is made in *namespace*.
    """
    home = account_in or namespace
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}
    if account_in is None:
        control_plane.request(
            "POST", f"/api/v1/namespaces/{home}/serviceaccounts", {"metadata": {"name": ACCOUNT}}
        )
    for scope, kind, name, granted in (
        (f"/namespaces/{namespace}", "Role", ACCOUNT, rules),
        ("", "ClusterRole", f"{ACCOUNT}-{namespace}", cluster_rules),
    ):
        plural = kind.lower() + "s"
        control_plane.request(
            "POST",
            f"{RBAC}{scope}/{plural}",
            {"metadata": {"name": name}, "rules": [dict(rule.body) for rule in granted]},
        )
        control_plane.request(
            "POST",
            f"{RBAC}{scope}/{plural.replace('roles', 'rolebindings')}",
            {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                "subjects": [subject],
            },
        )
    return control_plane.kubeconfig_of_service_account(home, ACCOUNT)


@dataclass(slots=True)
class RunningOperator:
    """An operator's process; *url* is its own door, *log* the file its stderr goes to."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def is_ready(self) -> bool:
        """Whether it has listed everything once."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self) -> str:
        """Its metrics page."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            page: bytes = answer.read()
        return page.decode()

    def metric(self, name: str) -> float:
        """The sum of all series of the metric *name*."""
        samples = (line.rsplit(" ", 1) for line in self.metrics().splitlines())
        return sum(float(value) for series, value in samples if series.partition("{")[0] == name)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        """Its exit code, once it has ended by itself; killed when it does not."""
        try:
            return self.process.wait(END_S)
        finally:
            self.kill()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def start_operator(
    kubeconfig: Path, namespace: str, redis_url: str, folder: Path, **variables: str
) -> RunningOperator:
    """Start an operator of *namespace*; does not wait."""
    port = free_port()
    log = folder / f"operator-{port}.log"
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("EVERWARM_", "OTEL_"))}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "everwarm_operator"],
            env={
                **inherited,
                "KUBECONFIG": str(kubeconfig),
                "EVERWARM_OPERATOR_NAMESPACES": namespace,
                "EVERWARM_REDIS_URL": redis_url,
                "EVERWARM_OPERATOR_HOST": "127.0.0.1",
                "EVERWARM_OPERATOR_PORT": str(port),
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    return RunningOperator(process, f"http://127.0.0.1:{port}", log)


@contextmanager
def running_operator(
    control_plane: ControlPlane,
    kubeconfig: Path,
    namespace: str,
    redis_url: str,
    folder: Path,
    **variables: str,
) -> Iterator[RunningOperator]:
    """An operator inside `with`, ready; ended whatever happens."""
    operator = start_operator(kubeconfig, namespace, redis_url, folder, **variables)
    try:
        wait_until_ready(control_plane, operator)
        yield operator
    finally:
        if operator.process.poll() is None:
            operator.process.terminate()
            try:
                operator.process.wait(10)
            except subprocess.TimeoutExpired:
                operator.kill()


def wait_until_ready(control_plane: ControlPlane, operator: RunningOperator) -> None:
    """Return once it is ready; raises AssertionError with its log when it has ended."""

    def ready() -> bool:
        assert operator.process.poll() is None, operator.log.read_text()[-4000:]
        return operator.is_ready()

    control_plane.wait_for("ready operator", ready, within_s=WAIT_S)


@dataclass(frozen=True, slots=True)
class World:
    """One namespace as a test sees and moves it."""

    control_plane: ControlPlane
    namespace: str
    redis_url: str

    @property
    def models(self) -> str:
        """The path of the WhisperModels."""
        return f"/apis/everwarm.dev/v1alpha1/namespaces/{self.namespace}/whispermodels"

    @property
    def pods_path(self) -> str:
        """The path of the pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def apply(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Json:
        """Make a WhisperModel of tiny.en, *spec* over that."""
        body = {
            "apiVersion": "everwarm.dev/v1alpha1",
            "kind": "WhisperModel",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"model": "tiny.en", **spec},
        }
        made: Json = self.control_plane.request("POST", self.models, body)
        return made

    def change(self, name: str, **spec: Any) -> None:
        """Merge *spec* into that of a WhisperModel."""
        self.control_plane.request("PATCH", f"{self.models}/{name}", {"spec": spec})

    def delete(self, name: str) -> None:
        """Delete a WhisperModel."""
        self.control_plane.request("DELETE", f"{self.models}/{name}")

    def status(self, name: str) -> Json:
        """The status of a WhisperModel; empty while it has none."""
        found: Json = self.control_plane.request("GET", f"{self.models}/{name}").get("status", {})
        return found

    def condition(self, name: str, kind: str) -> Json:
        """One condition of a WhisperModel; empty while it has none."""
        found: list[Json] = [c for c in self.status(name).get("conditions", ()) if c["type"] == kind]
        return found[0] if found else {}

    def items(self, path: str) -> list[Json]:
        """What is listed at *path*, such as apps/v1 deployments."""
        found: list[Json] = self.control_plane.request("GET", path)["items"]
        return found

    def deployments(self) -> list[Json]:
        """The Deployments of the namespace."""
        return self.items(f"/apis/apps/v1/namespaces/{self.namespace}/deployments")

    def services(self) -> list[Json]:
        """Its Services."""
        return self.items(f"/api/v1/namespaces/{self.namespace}/services")

    def disruption_budgets(self) -> list[Json]:
        """Its PodDisruptionBudgets."""
        return self.items(f"/apis/policy/v1/namespaces/{self.namespace}/poddisruptionbudgets")

    def pods(self) -> list[Json]:
        """Its pods that are not being deleted."""
        return [pod for pod in self.items(self.pods_path) if "deletionTimestamp" not in pod["metadata"]]

    def events(self, reason: str) -> list[Json]:
        """Its Events of *reason*."""
        found = self.items(f"/api/v1/namespaces/{self.namespace}/events")
        return [event for event in found if event["reason"] == reason]

    def wait(self, what: str, condition: Any, within_s: float = WAIT_S) -> None:
        """Return once *condition* holds."""
        self.control_plane.wait_for(what, condition, within_s=within_s)

    def gate(self, pod_name: str) -> str | None:
        """The status of a pod's gate; None while it has none."""
        gate = self._gate(pod_name)
        return str(gate["status"]) if gate else None

    def gate_reason(self, pod_name: str) -> str | None:
        """Why a pod's gate says what it says; None while it has none."""
        gate = self._gate(pod_name)
        return str(gate["reason"]) if gate else None

    def _gate(self, pod_name: str) -> Json | None:
        return next((each for each in self._conditions(pod_name) if each["type"] == WARM_GATE), None)

    # --- what a kubelet and a pod would say ---

    def run_container(self, pod: Json, *, container_id: str = "containerd://one", ready: bool = True) -> None:
        """Say as the kubelet that the pod's container runs."""
        name = pod["metadata"]["name"]
        word = "True" if ready else "False"
        self.control_plane.request(
            "PATCH",
            f"{self.pods_path}/{name}/status",
            {
                "status": {
                    "phase": "Running",
                    "conditions": [
                        *(c for c in self._conditions(name) if c["type"] not in ("Ready", "ContainersReady")),
                        {"type": "ContainersReady", "status": word},
                        {"type": "Ready", "status": "False"},
                    ],
                    "containerStatuses": [
                        {
                            "name": "stt",
                            "ready": ready,
                            "started": ready,
                            "restartCount": 0,
                            "image": "x",
                            "imageID": "x",
                            "containerID": container_id,
                            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                        }
                    ],
                }
            },
        )

    def cannot_pull(self, pod: Json, reason: str) -> None:
        """Say as the kubelet that the pod's image cannot be pulled, for *reason*."""
        waiting = {"reason": "ErrImagePull", "message": reason}
        status = {
            "name": "stt",
            "ready": False,
            "restartCount": 0,
            "image": "x",
            "imageID": "",
            "state": {"waiting": waiting},
        }
        self.control_plane.request(
            "PATCH",
            f"{self.pods_path}/{pod['metadata']['name']}/status",
            {"status": {"containerStatuses": [status]}},
        )

    def _conditions(self, pod_name: str) -> list[Json]:
        pod = self.control_plane.request("GET", f"{self.pods_path}/{pod_name}")
        found: list[Json] = pod.get("status", {}).get("conditions", [])
        return found

    async def register(self, pod: Json, *, lease_s: float = 120.0, **changes: Any) -> PodRecord:
        """Say to the registry as the pod, for *lease_s*, that it is warm, or what *changes* say; returns the record."""
        record = record_of(pod, **changes)
        async with connect(self.redis_url) as redis:
            writer = RegistryWriter(redis, self.namespace, ttl_s=lease_s)

            async def has_beaten() -> bool:
                with suppress(RegistryUnavailable):  # as for a pod: the next beat is the retry
                    await writer.heartbeat(record)
                    return True
                return False

            await until(has_beaten, within_s=WAIT_S)
        return record

    async def deregister(self, record: PodRecord) -> None:
        """Say to the registry as the pod that it leaves."""
        async with connect(self.redis_url) as redis:
            await RegistryWriter(redis, self.namespace).deregister(record)


def record_of(pod: Json, **changes: Any) -> PodRecord:
    """What the pod would say of itself when it is warm for all its keys, or what *changes* say."""
    annotations = pod["metadata"]["annotations"]
    said = {
        "id": pod["metadata"]["uid"],
        "url": "http://127.0.0.1:1",
        "state": PodState.WARM,
        "model": "tiny.en",
        "names": tuple(annotations["everwarm.dev/names"].split(",")),
        "languages": tuple(annotations["everwarm.dev/languages"].split(",")),
        "slots": 1,
        "queue": 4,
        "inflight": 0,
        "version": "0",
        "node": "",
        "started": 1.0,
        "load_s": 1.5,
        "warm_s": 2.5,
        "boot": "boot-one",
    }
    return PodRecord(**{**said, **changes})
