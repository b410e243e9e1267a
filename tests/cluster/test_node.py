"""The real node: what tests with containers rely on, and that the machine is as it was once it is gone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import asked_for_e2e
from tests.cluster.machine import PACKAGES, NodeUnavailable, kept, missing, obstacle, run
from tests.cluster.node import Node, node_folders
from tests.cluster.node_config import (
    BRIDGE,
    NODE_IP,
    NodeFolders,
    containerd_config,
    corefile,
    kubelet_config,
)
from tests.cluster.node_images import full_name, make_base_image, scratch_folder
from tests.cluster.node_traces import CGROUPS, SYSCTLS, mounts_below, pod_cgroups

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0

needs_node = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not asked_for_e2e() or obstacle() is not None,
        reason=obstacle() or "a real node starts with EVERWARM_E2E=1 only",
    ),
]

SERVER = "import http.server as h; h.HTTPServer(('', 8000), h.SimpleHTTPRequestHandler).serve_forever()"
CLIENT = """
import socket, time, urllib.request
for _ in range(300):  # the server may start later, and kube-proxy follows its endpoint up to a second late
    try:
        print(urllib.request.urlopen("http://web:8000/", timeout=5).status)
        break
    except OSError:
        time.sleep(0.1)
print(socket.gethostbyname("kubernetes.default"))
try:
    socket.gethostbyname("example.com")
except socket.gaierror:
    print("no such name")
"""


OWNER = """
import signal, sys, threading
from pathlib import Path
from tests.cluster.node import running_node
from tests.cluster.node_images import make_base_image

with running_node(Path(sys.argv[1])) as node:
    node.load(image := make_base_image())
    cluster, pods = node.control_plane, "/api/v1/namespaces/default/pods"
    sleeper = {"name": "python", "image": image, "command": ["sleep", "600"]}
    cluster.request("POST", pods, {"metadata": {"name": "stray"}, "spec": {"containers": [sleeper]}})
    phase = lambda: cluster.request("GET", f"{pods}/stray")["status"].get("phase")
    node.wait_for("running pod", lambda: phase() == "Running")
    print(phase(), flush=True)
    threading.Event().wait()
"""


# --- What needs no root --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("web", "docker.io/library/web:latest"),
        ("everwarm/stt:1", "docker.io/everwarm/stt:1"),
        ("localhost/web:1", "localhost/web:1"),
        ("registry.test:5000/web", "registry.test:5000/web:latest"),
        ("everwarm.invalid/pause:1", "everwarm.invalid/pause:1"),
    ],
)
def test_image_is_loaded_under_the_name_that_the_kubelet_will_ask_for(given: str, full: str) -> None:
    assert full_name(given) == full


def test_missing_programs_are_told_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    lacking = missing()
    assert lacking["buildah"] == "buildah"
    assert lacking["ctr"] == "containerd"
    assert set(lacking.items()) <= set(PACKAGES.items())


def test_program_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(NodeUnavailable, match=r"(?s)failed:.*no good"):
        run(sys.executable, "-c", "import sys; sys.exit('no good')")
    with pytest.raises(NodeUnavailable, match="everwarm-nothing is missing"):
        run("everwarm-nothing")


def test_scratch_folder_of_a_process_that_was_killed_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left, used = kept() / f"scratch-{ended.pid}-a", kept() / f"scratch-{os.getpid()}-b"
    for folder in (left, used):
        folder.mkdir(parents=True)
    with scratch_folder() as own:
        assert {path.name for path in kept().iterdir()} == {own.name, used.name}


def test_nothing_of_a_node_is_written_outside_its_folders(tmp_path: Path) -> None:
    """What is not told a folder uses a place of the machine, which somebody else's node would share."""
    folders = NodeFolders(state=tmp_path / "state", images=tmp_path / "images")
    text = containerd_config(folders, Path("/usr/lib/cni"))
    paths = [line.partition('"')[2].rstrip('"') for line in text.splitlines() if '= "/' in line]
    assert len(paths) == 7
    assert [path for path in paths if not path.startswith(str(tmp_path))] == ["/usr/lib/cni"]


def test_kubelet_asks_everybody_who_they_are() -> None:
    certificate: Any = type("Certificate", (), {"certificate": Path("/c"), "key": Path("/k")})
    config = kubelet_config(NodeFolders(Path("/s"), Path("/i")), certificate, Path("/ca"))
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}


def test_names_outside_the_cluster_are_answered_by_a_block_of_their_own() -> None:
    inside, outside = corefile(Path("/kubeconfig")).split("\n. {\n")
    assert "kubernetes cluster.local" in inside
    assert "template" not in inside
    assert "NXDOMAIN" in outside


# --- A node --------------------------------------------------------------------------------------------------------


def _machine() -> dict[str, Any]:
    """What a node changes on the machine, as it is now."""
    tables = subprocess.run(
        ["nft", "-j", "list", "tables"], check=True, capture_output=True, text=True
    ).stdout
    return {
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "tables": [item["table"]["name"] for item in json.loads(tables)["nftables"] if "table" in item],
        "cgroups": pod_cgroups() + sorted(CGROUPS.glob("*/k8s.io")),
        "mounts": mounts_below(node_folders().state, node_folders().images),
        "sysctls": {name: (Path("/proc/sys") / name).read_text() for name in SYSCTLS},
        "state": node_folders().state.exists(),
        "files": [
            path
            for folder in (
                "/run/containerd",
                "/var/lib/kubelet",
                "/var/lib/cni/results",
                "/var/log/containers",
            )
            for path in Path(folder).rglob("*")
        ],
    }


@pytest.fixture
def unused_machine() -> Iterator[None]:
    """A machine without a node: this run's own may have it, since there can be one."""
    if (Path("/sys/class/net") / BRIDGE).exists():
        pytest.skip("this run has a node already, and there can be one; run this file by itself")
    yield
    subprocess.run([sys.executable, "-m", "tests.cluster", "node", "down"], cwd=ROOT, check=False)


def _run_node(folder: Path, ending: signal.Signals) -> None:
    """A process with a node and a running pod, ended by a signal."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(ending)
        process.wait(60)
    assert said == "Running\n"


@pytest.mark.usefixtures("unused_machine")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
class TestEnd:
    pytestmark = needs_node

    def test_machine_is_as_it_was_after_a_node(self, ending: signal.Signals, tmp_path: Path) -> None:
        """After one that was killed, `node down` makes it so."""
        before = _machine()
        _run_node(tmp_path / "cluster", ending)
        if ending is signal.SIGKILL:
            assert _machine() != before
            subprocess.run([sys.executable, "-m", "tests.cluster", "node", "down"], cwd=ROOT, check=True)
        assert _machine() == before


class TestNode:
    pytestmark = needs_node

    def test_pods_reach_services_by_name_and_nothing_outside(self, node: Node) -> None:
        image = make_base_image()
        node.load(image)
        cluster = node.control_plane
        cluster.create_namespace("reach")
        try:
            _create(cluster, "web", image, SERVER, labels={"app": "web"})
            service = {"selector": {"app": "web"}, "ports": [{"port": 8000}]}
            cluster.request(
                "POST", "/api/v1/namespaces/reach/services", {"metadata": {"name": "web"}, "spec": service}
            )
            _create(cluster, "asking", image, CLIENT)
            node.wait_for(
                "end of the asking pod", lambda: _phase(cluster, "asking") == "Succeeded", within_s=WAIT_S
            )
            said = cluster.request("GET", "/api/v1/namespaces/reach/pods/asking/log")
        finally:
            cluster.request("DELETE", "/api/v1/namespaces/reach")
        assert said.split("\n")[:3] == ["200", "10.96.0.1", "no such name"]

    def test_pods_reach_the_host_at_the_nodes_address(self, node: Node) -> None:
        """Where a collector or a test's own server listens."""
        assert node.control_plane.url.startswith(f"https://{NODE_IP}:")


def _create(
    cluster: ControlPlane, name: str, image: str, program: str, labels: dict[str, str] | None = None
) -> None:
    container = {"name": "python", "image": image, "command": ["python3", "-u", "-c", program]}
    pod = {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0},
    }
    cluster.request("POST", "/api/v1/namespaces/reach/pods", pod)


def _phase(cluster: ControlPlane, name: str) -> str:
    return str(cluster.request("GET", f"/api/v1/namespaces/reach/pods/{name}")["status"].get("phase"))
