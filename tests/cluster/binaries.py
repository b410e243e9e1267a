"""Where the programs of a real cluster come from: found, or built once.

In this order: `KUBEBUILDER_ASSETS`, the folder that the tools for Kubernetes operators agree on, if all four programs
are in it (its usual two are not enough: Deployments and garbage collection need the controller manager); a build of the
Go module in `kube/`, which takes minutes, once for each version of the module. A node's programs come only from that.
Whoever wants neither the build nor its timing inside a test calls `python -m tests.cluster` first.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.cluster.go_module import BinariesUnavailable, GoModule

__all__ = ["PARTS", "Binaries", "BinariesUnavailable", "NodePart", "Part", "build_binaries", "find_binaries"]

Part = Literal["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
PARTS: Final[tuple[Part, ...]] = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NodePart = Literal["kubelet", "kube-proxy", "coredns"]

MODULE: Final = Path(__file__).parent / "kube"


@dataclass(frozen=True, slots=True)
class Binaries:
    """*location* is one program with the parts as subcommands, or a folder with a program for each."""

    location: Path

    def command(self, part: Part | NodePart) -> tuple[str, ...]:
        """The words that start *part*; its flags follow."""
        if self.location.is_dir():
            return (str(self.location / part),)
        return (str(self.location), part)


def find_binaries() -> Binaries:
    """The control plane's programs, built now if they are nowhere. Raises BinariesUnavailable."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and all(os.access(Path(assets) / part, os.X_OK) for part in PARTS):
        return Binaries(Path(assets))
    return build_binaries()


def build_binaries() -> Binaries:
    """The one program with all parts, built now if it is not cached; `pause` is beside it. Raises BinariesUnavailable."""
    return Binaries(kube_module().build() / "kube")


def kube_module() -> GoModule:
    """The module of the one program, with the version in it that the released programs report: clients look at it."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    stamps = {
        f"{package}.{name}": value
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in {"gitVersion": version, "gitMajor": major, "gitMinor": minor}.items()
    }
    return GoModule(
        folder=MODULE,
        what=f"the control plane of Kubernetes {version}",
        version=version,
        programs={"kube": ".", "pause": "./pause"},
        stamps=stamps,
        otherwise=f"KUBEBUILDER_ASSETS may name a folder with {', '.join(PARTS)} instead.",
    )


def kubernetes_version() -> str:
    """The version that go.mod asks for, such as v1.37.2."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"))
    assert found, "go.mod asks for Kubernetes"
    return found[1]
