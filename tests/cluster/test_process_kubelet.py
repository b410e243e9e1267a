"""What tests with pods rely on: the process kubelet does towards the API server what a kubelet does.

The container is a small HTTP server that is steered by files in its working folder, which is its pod's. Each rule runs
on the process kubelet and, where a real node is asked for, on the real kubelet too: a rule that is not the kubelet's
fails there. Only what is about processes on the machine itself is asked of the process kubelet alone.
"""

import base64
import contextlib
import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.control_plane import ControlPlane, Refused
from tests.cluster.node import Node, load_image
from tests.cluster.node_config import NODE_NAME
from tests.cluster.node_images import make_base_image
from tests.cluster.process_kubelet import running_kubelet
from tests.support.waiting import until

WAIT_S = 30.0  # for what takes two or three seconds on an idle machine
GATE = "everwarm.dev/warm"

SERVER = """
import http.server, json, os, pathlib, signal, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/")
        with open(name + ".probed", "a") as probed:
            probed.write(".")
        if pathlib.Path("crash").exists():
            os.remove("crash")
            print("last words", flush=True)
            os._exit(3)
        self.send_response(200 if pathlib.Path(name).exists() else 503)
        self.end_headers()
    def log_message(self, *_):
        pass

def stop(*_):
    pathlib.Path("asked").write_text(str(time.time()))
    while pathlib.Path("linger").exists():
        time.sleep(0.05)
    pathlib.Path("finished").touch()
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
address = os.environ.get("LISTEN", "127.0.0.1"), int(os.environ["EVERWARM_PORT"])
server = http.server.ThreadingHTTPServer(address, Handler)
seen = dict(os.environ)
if token := os.environ.get("EVERWARM_TOKEN_FILE"):
    seen["token read"] = pathlib.Path(token).read_text()
pathlib.Path("environment.new").write_text(json.dumps(seen))
os.rename("environment.new", "environment")
server.serve_forever()
"""


def server(_pod: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", SERVER]


def probe(path: str, **more: Any) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5, **more}


STARTS = {"startupProbe": probe("/alive", failureThreshold=round(WAIT_S))}
"""However long the program takes to listen, its liveness is asked for only then."""


class Place:
    """A pod called `web`, its folder, and what the API server says of it."""

    def __init__(
        self, control_plane: ControlPlane, namespace: str, folder: Path, *, image: str | None = None
    ) -> None:
        """*image*: what the real node's container is made from; None is for the process kubelet."""
        self.control_plane = control_plane
        self.namespace = namespace
        self.image = image
        self.kubelet_folder = folder
        self.folder = folder / "web"
        self.folder.mkdir()
        self.pods = f"/api/v1/namespaces/{namespace}/pods"

    @property
    def node(self) -> str:
        return NODE_NAME if self.image else self.namespace

    def create(self, container: dict[str, Any] | None = None, **spec: Any) -> None:
        described: dict[str, Any] = {
            "name": "stt",
            "image": "example.invalid/stt:1",
            "ports": [{"name": "http", "containerPort": 8000}],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **(container or {}),
        }
        described["env"] = [*described.get("env", ()), {"name": "PLACE", "value": self.namespace}]
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "containers": [described],
                "nodeName": self.node,
                "terminationGracePeriodSeconds": 20,
                **spec,
            },
        }
        if self.image:
            self._as_container(pod["spec"])
        self.control_plane.request("POST", self.pods, pod)

    def _as_container(self, spec: dict[str, Any]) -> None:
        """What the process kubelet takes from `server` and from its own folder."""
        (container,) = spec["containers"]
        folder = {"name": "folder", "hostPath": {"path": str(self.folder)}}
        spec["volumes"] = [*spec.get("volumes", ()), folder]
        container["volumeMounts"] = [
            *container.get("volumeMounts", ()),
            {"name": "folder", "mountPath": "/place"},
        ]
        here = {"LISTEN": "0.0.0.0", "EVERWARM_PORT": "8000"}
        container["env"] += [{"name": name, "value": value} for name, value in here.items()]
        container |= {"image": self.image, "command": ["python3", "-c", SERVER], "workingDir": "/place"}

    def status(self) -> dict[str, Any]:
        return dict(self.control_plane.request("GET", f"{self.pods}/web")["status"])

    def container(self) -> dict[str, Any]:
        (status,) = self.status().get("containerStatuses") or [
            {"state": {}, "restartCount": 0, "ready": False}
        ]
        return dict(status)

    def condition(self, kind: str) -> dict[str, Any]:
        conditions = {entry["type"]: entry for entry in self.status().get("conditions", ())}
        return dict(conditions.get(kind, {"status": "Absent"}))

    def waits_for(self) -> str:
        """Why the container is not there yet."""
        return str(self.container()["state"].get("waiting", {}).get("reason"))

    def runs(self) -> bool:
        return (self.folder / "environment").exists()

    def environment(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "environment").read_text(encoding="utf-8")))

    def process(self) -> psutil.Process | None:
        """The container's first process as this machine sees it, while it runs."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PLACE") == self.namespace:
                    return process
        return None

    def probes(self, name: str) -> int:
        record = self.folder / f"{name}.probed"
        return len(record.read_bytes()) if record.exists() else 0

    def delete(self) -> None:
        self.control_plane.request("DELETE", f"{self.pods}/web")

    def is_gone(self) -> bool:
        try:
            self.status()
        except Refused as refused:
            return refused.status == 404
        return False


@pytest.fixture
def process_place(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Place:
    return Place(control_plane, namespace, tmp_path)


@pytest.fixture(params=["process kubelet", pytest.param("real kubelet", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "process kubelet":
        yield request.getfixturevalue("process_place")
        return
    node: Node = request.getfixturevalue("node")
    image = make_base_image()
    load_image(image)
    namespace = f"test-{secrets.token_hex(4)}"
    node.control_plane.create_namespace(namespace)
    yield Place(node.control_plane, namespace, tmp_path, image=image)
    node.control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}")


def kubelet(place: Place) -> AbstractAsyncContextManager[object]:
    """A kubelet for the pod: one of the test's own, or that of the node, which is there."""
    if place.image:
        return contextlib.nullcontext()
    return running_kubelet(
        place.control_plane,
        place.kubelet_folder,
        node=place.namespace,
        namespace=place.namespace,
        command_for=server,
        first_backoff_s=0.1,
    )


async def test_readiness_follows_the_probe_both_ways(place: Place) -> None:
    place.create({"readinessProbe": probe("/ready", failureThreshold=1)})
    async with kubelet(place):
        await until(place.runs, within_s=WAIT_S)
        await until(lambda: place.status()["phase"] == "Running", within_s=WAIT_S)
        await until(lambda: place.condition("Ready")["status"] == "False", within_s=WAIT_S)
        assert place.condition("Ready")["reason"] == "ContainersNotReady"
        (place.folder / "ready").touch()
        await until(lambda: place.condition("Ready")["status"] == "True", within_s=WAIT_S)
        assert place.container()["ready"] is True
        (place.folder / "ready").unlink()
        await until(lambda: place.condition("Ready")["status"] == "False", within_s=WAIT_S)


async def test_ready_needs_every_gate_and_leaves_the_gates_condition_alone(place: Place) -> None:
    place.create(readinessGates=[{"conditionType": GATE}])
    async with kubelet(place):
        await until(lambda: place.condition("ContainersReady")["status"] == "True", within_s=WAIT_S)
        assert place.condition("Ready")["status"] == "False"
        assert place.condition("Ready")["reason"] == "ReadinessGatesNotReady"
        set_gate(place, "True")
        await until(lambda: place.condition("Ready")["status"] == "True", within_s=WAIT_S)
        assert place.condition(GATE)["reason"] == "TheTestSaysSo"
        set_gate(place, "False")
        await until(lambda: place.condition("Ready")["status"] == "False", within_s=WAIT_S)
        assert place.condition("ContainersReady")["status"] == "True"
        assert place.condition(GATE)["reason"] == "TheTestSaysSo"


def set_gate(place: Place, status: str) -> None:
    others = [entry for entry in place.status()["conditions"] if entry["type"] != GATE]
    gate = {"type": GATE, "status": status, "reason": "TheTestSaysSo"}
    place.control_plane.request(
        "PATCH", f"{place.pods}/web/status", {"status": {"conditions": [*others, gate]}}
    )


async def test_a_container_that_dies_is_restarted_as_another_one_and_its_last_words_are_kept(
    place: Place,
) -> None:
    (place.folder / "alive").touch()
    place.create({**STARTS, "livenessProbe": probe("/alive")})
    async with kubelet(place):
        await until(lambda: "running" in place.container()["state"], within_s=WAIT_S)
        first = place.container()
        (place.folder / "crash").touch()  # at its next request, once
        await until(lambda: place.container()["restartCount"] == 1, within_s=WAIT_S)
        second = place.container()
        assert second["containerID"] != first["containerID"]
        ended = second["lastState"]["terminated"]
        assert ended["containerID"] == first["containerID"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "last words\n")


async def test_a_container_that_is_found_dead_by_its_liveness_probe_is_restarted(place: Place) -> None:
    (place.folder / "alive").touch()
    place.create({**STARTS, "livenessProbe": probe("/alive", failureThreshold=2)})
    async with kubelet(place):
        await until(lambda: place.probes("alive") >= 3, within_s=WAIT_S)  # the first: that it has started
        assert place.container()["restartCount"] == 0
        (place.folder / "alive").unlink()
        await until(lambda: place.container()["restartCount"] == 1, within_s=WAIT_S)
        assert (place.folder / "finished").exists()  # it was asked first


async def test_a_container_that_does_not_start_in_its_time_is_restarted_and_readiness_waits_for_the_start(
    place: Place,
) -> None:
    place.create({"startupProbe": probe("/up", failureThreshold=3), "readinessProbe": probe("/ready")})
    (place.folder / "ready").touch()
    async with kubelet(place):
        await until(lambda: place.container()["restartCount"] >= 1, within_s=WAIT_S)
        assert place.container()["started"] is False
        assert place.probes("ready") == 0
        (place.folder / "up").touch()
        await until(lambda: place.container()["ready"], within_s=WAIT_S)
        assert place.container()["started"] is True


async def test_a_deleted_pod_gets_its_pause_and_its_grace_before_it_is_gone(place: Place) -> None:
    place.create(
        {"readinessProbe": probe("/ready"), "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
    )
    (place.folder / "ready").touch()
    async with kubelet(place):
        await until(lambda: place.condition("Ready")["status"] == "True", within_s=WAIT_S)
        (place.folder / "linger").touch()
        deleted = time.time()
        place.delete()
        await until((place.folder / "asked").exists, within_s=WAIT_S)
        await until(lambda: (place.folder / "asked").read_text() != "", within_s=WAIT_S)
        assert float((place.folder / "asked").read_text()) - deleted >= 0.9
        assert "deletionTimestamp" in place.control_plane.request("GET", f"{place.pods}/web")["metadata"]
        (place.folder / "linger").unlink()
        await until(place.is_gone, within_s=WAIT_S)
        assert (place.folder / "finished").exists()


async def test_a_container_that_outstays_its_grace_is_killed(place: Place) -> None:
    place.create(terminationGracePeriodSeconds=1)
    (place.folder / "linger").touch()
    async with kubelet(place):
        await until(place.runs, within_s=WAIT_S)
        assert place.process() is not None
        place.delete()
        await until(place.is_gone, within_s=WAIT_S)
        assert place.process() is None
        assert not (place.folder / "finished").exists()


async def test_variables_come_from_the_pod_its_secrets_and_its_config_maps(place: Place) -> None:
    place.create(
        {
            "env": [
                {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                {"name": "EVERWARM_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "ADDRESS", "value": "$(IP) $(NOBODY) $$(IP)"},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "word"}}},
                {"name": "EVERWARM_TOKEN_FILE", "value": "/run/token/word"},
            ],
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "volumeMounts": [{"name": "token", "mountPath": "/run/token"}],
        },
        volumes=[{"name": "token", "secret": {"secretName": "secret"}}],
    )
    async with kubelet(place):
        await until(lambda: place.waits_for() == "ContainerCreating", within_s=WAIT_S)  # for the volume
        core = f"/api/v1/namespaces/{place.namespace}"
        word = base64.b64encode(b"sesame").decode()
        place.control_plane.request(
            "POST", f"{core}/secrets", {"metadata": {"name": "secret"}, "data": {"word": word}}
        )
        await until(lambda: place.waits_for() == "CreateContainerConfigError", within_s=WAIT_S)
        assert 'configmap "settings" not found' in place.container()["state"]["waiting"]["message"]
        place.control_plane.request(
            "POST", f"{core}/configmaps", {"metadata": {"name": "settings"}, "data": {"MODE": "quick"}}
        )
        await until(place.runs, within_s=WAIT_S)
        seen = place.environment()
        pod = place.control_plane.request("GET", f"{place.pods}/web")
    assert seen["UID"] == pod["metadata"]["uid"]
    assert seen["EVERWARM_NODE"] == place.node
    assert seen["ADDRESS"] == f"{pod['status']['podIP']} $(NOBODY) $(IP)"
    assert seen["PASSWORD"] == "sesame"
    assert seen["MODE"] == "quick"
    assert seen["token read"] == "sesame"


async def test_what_happens_during_an_outage_of_the_api_server_is_reported_after_it(place: Place) -> None:
    place.create()
    async with kubelet(place):
        await until(place.runs, within_s=WAIT_S)
        await until(lambda: "running" in place.container()["state"], within_s=WAIT_S)
        place.control_plane.stop_apiserver()
        try:
            first = place.process()
            assert first is not None
            first.kill()
            await until(lambda: place.process() not in {None, first}, within_s=WAIT_S)
        finally:
            place.control_plane.start_apiserver()
        await until(lambda: place.container()["restartCount"] == 1, within_s=WAIT_S)
        assert place.container()["lastState"]["terminated"]["exitCode"] == 137


# --- Of the process kubelet alone ----------------------------------------------------------------------------------


async def test_what_speaks_of_the_pods_port_and_its_volumes_is_made_true_for_a_process(
    process_place: Place,
) -> None:
    process_place.create(
        {
            "env": [
                {"name": "EVERWARM_PORT", "value": "8000"},
                {"name": "EVERWARM_POD_URL", "value": "http://10.1.2.3:8000"},
                {"name": "EVERWARM_CACHE_DIR", "value": "/cache/hub"},
            ],
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        },
        volumes=[{"name": "cache", "emptyDir": {}}],
    )
    async with kubelet(process_place):
        await until(process_place.runs, within_s=WAIT_S)
        seen = process_place.environment()
    assert seen["EVERWARM_PORT"] != "8000"
    assert seen["EVERWARM_POD_URL"] == f"http://127.0.0.1:{seen['EVERWARM_PORT']}"
    assert seen["EVERWARM_CACHE_DIR"] == str(process_place.folder / "volumes" / "cache" / "hub")


async def test_no_process_outlives_the_kubelet(process_place: Place) -> None:
    process_place.create()
    async with kubelet(process_place):
        await until(process_place.runs, within_s=WAIT_S)
        assert process_place.process() is not None
    assert process_place.process() is None
