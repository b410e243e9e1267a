"""The story's stage: one cluster, the images built and loaded, a restricted namespace with the weights on a volume."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from everwarm_stt.settings import PodSettings
from everwarm_stt.weights import resolve_weights
from images.build import Plan, build_images, table, too_heavy
from tests.cluster.collector import Collector, running_collector
from tests.cluster.fixtures import asked_for_e2e
from tests.cluster.node_images import scratch_folder
from tests.e2e.figures import Figures
from tests.e2e.kubectl import Json, Kubectl, wait_for
from tests.e2e.places import OWN_VALKEY, Place, place, reason_for_none

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
NAMESPACE = "speech"
RELEASE = "everwarm"
CHART = ROOT / "charts" / "everwarm"
WEIGHTS_IMAGE = "weights:1"
PREVIOUS_TAG = "previous"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@dataclass(slots=True)
class Stage:
    """What the story plays on.

    previous: a checkout of the commit before this one, when that has a chart and images of its own.
    """

    place: Place
    kubectl: Kubectl
    plan: Plan
    figures: Figures
    collector: Collector | None
    previous: Path | None
    folder: Path
    excused: list[tuple[float, float]] = field(default_factory=list)
    """Times, on the wall clock, in which Ready and warm may disagree."""

    def pods(self, name: str) -> list[Json]:
        """The pods of WhisperModel *name* that are not being deleted."""
        listed = self.kubectl.items(
            "pods", f"--selector=app.kubernetes.io/instance={name},app.kubernetes.io/name=everwarm-stt"
        )
        return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]

    def uids(self, name: str) -> set[str]:
        """Their UIDs."""
        return {pod["metadata"]["uid"] for pod in self.pods(name)}

    def ready(self, name: str) -> int:
        """How many of them are Ready."""
        return sum(
            any(
                each["type"] == "Ready" and each["status"] == "True"
                for each in pod["status"].get("conditions", ())
            )
            for pod in self.pods(name)
        )

    def is_settled(self, name: str, replicas: int) -> bool:
        """Whether WhisperModel *name* says of its newest generation that *replicas* pods are there, Ready and warm."""
        model = self.kubectl.get("whispermodel", name)
        status = model.get("status", {})
        counts = [status.get(key) for key in ("replicas", "readyReplicas", "warmReplicas")]
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        return (
            status.get("observedGeneration") == model["metadata"]["generation"]
            and counts == [replicas] * 3
            and (conditions.get("Ready"), conditions.get("Reconciling")) == ("True", "False")
            # The status may be from before a pod went.
            and len(self.pods(name)) == self.ready(name) == replicas
        )

    def excuse(self, began: float, margin_s: float) -> None:
        """What *began* then and ends now, and *margin_s* after it, may show disagreements."""
        self.excused.append((began, time.time() + margin_s))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Stage]:
    """The stage, set; skips where there can be none."""
    if not asked_for_e2e():
        pytest.skip(
            "the story plays only with EVERWARM_E2E=1, which `make e2e` sets: it takes a cluster and minutes"
        )
    if why := reason_for_none():
        pytest.skip(why)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    folder = tmp_path_factory.mktemp("story")
    with capture.global_and_fixture_disabled(), place(folder) as ours, scratch_folder() as scratch:
        figures = Figures(ours.name)
        plan, previous = _build(ours, figures, scratch)
        kubectl = Kubectl(ours.kubeconfig, NAMESPACE)
        _make_namespace(kubectl, ours)
        if ours.address is None:
            yield Stage(ours, kubectl, plan, figures, None, previous, folder)
        else:
            with running_collector(folder / "collector", address=ours.address) as collector:
                yield Stage(ours, kubectl, plan, figures, collector, previous, folder)
        report = figures.report()
        report.write("e2e")
        print("\n" + report.markdown())  # noqa: T201 - what the story is for


def _build(ours: Place, figures: Figures, scratch: Path) -> tuple[Plan, Path | None]:
    """Build all images and give them to the cluster."""
    plan = Plan(prefix=ours.prefix, python_image=ours.python_image)
    began = time.monotonic()
    weights = build_images(ours.engine, plan)
    print(table(weights))  # noqa: T201
    assert not too_heavy(plan, weights)
    figures.note_all(
        {f"{name} on top of its base": each.on_top / 1e6 for name, each in weights.items()}, "MB"
    )
    names = list(weights)
    previous = _previous_commit(scratch)
    if previous:
        older = Plan(prefix=ours.prefix, python_image=ours.python_image, tag=PREVIOUS_TAG, root=previous)
        names += build_images(ours.engine, older)
    names.append(_build_here(ours, "weights.Dockerfile", f"{ours.prefix}/{WEIGHTS_IMAGE}", _weights(scratch)))
    if ours.own_valkey:
        names.append(_build_here(ours, "valkey.Dockerfile", f"{OWN_VALKEY}:1", scratch / "empty"))
    for name in names:
        ours.load(name)
    figures.note("images built and loaded", time.monotonic() - began)
    return plan, previous


def _build_here(ours: Place, dockerfile: str, name: str, context: Path) -> str:
    context.mkdir(exist_ok=True)
    ours.engine.build(name, HERE / dockerfile, context, ["--build-arg", f"PYTHON_IMAGE={ours.python_image}"])
    return name


def _weights(scratch: Path) -> Path:
    """A folder with the weights of the tests: tiny.en and base."""
    folder = scratch / "weights"
    for model in ("tiny.en", "base"):
        found = resolve_weights(PodSettings(model=model), lambda *_: None)
        shutil.copytree(found.path, folder / model)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # a container's user is somebody else
    return folder


def _previous_commit(scratch: Path) -> Path | None:
    """A checkout of the commit before this one; None where there is none with a chart and images."""
    folder = scratch / "previous"
    git = ["git", "-C", str(ROOT)]
    made = subprocess.run(
        [*git, "worktree", "add", "--detach", folder, "HEAD~1"], check=False, capture_output=True
    )
    if made.returncode != 0 or not (folder / "Dockerfile.stt").exists():
        return None
    shutil.rmtree(folder / ".git", ignore_errors=True)
    (folder / ".git").unlink(missing_ok=True)
    subprocess.run([*git, "worktree", "prune"], check=True, capture_output=True)
    return folder


def _make_namespace(kubectl: Kubectl, ours: Place) -> None:
    """A restricted namespace with a volume that holds the weights."""
    level = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": level}})
    claim: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if ours.disk:
        volume = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": str(ours.disk)},
        }
        kubectl.apply(
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "weights"}, "spec": volume}
        )
        claim |= {"storageClassName": "", "volumeName": "weights"}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"}, "spec": claim}
    )
    copy = {
        "name": "copy",
        "image": f"{ours.prefix}/{WEIGHTS_IMAGE}",
        "command": ["cp", "-r", "/weights/tiny.en", "/weights/base", "/volume/"],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
    }
    spec = {
        "restartPolicy": "Never",
        "securityContext": {**POD_SECURITY, "fsGroup": 65532},
        "containers": [copy],
        "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": "weights"}}],
    }
    wait_for("default ServiceAccount", lambda: kubectl.get("serviceaccount", "default"))
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy"}, "spec": spec})
    wait_for("weights on the volume", lambda: _phase(kubectl, "copy") in ("Succeeded", "Failed"))
    assert _phase(kubectl, "copy") == "Succeeded", kubectl("logs", "copy")
    kubectl("delete", "pod", "copy")


def _phase(kubectl: Kubectl, pod: str) -> str:
    return str(kubectl.get("pod", pod)["status"].get("phase"))
