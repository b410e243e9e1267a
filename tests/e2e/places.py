"""Where the story runs: a cluster of the user's, kind, or a node of our own; and how images and volumes get there.

In this order: `KUBECONFIG`, whose cluster pulls the images from `EVERWARM_E2E_REGISTRY`, to which they are pushed; kind,
where Docker and kind are; else the single node of tests/cluster, which takes root and Debian's packages. The story itself
knows none of them apart.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from images.build import PYTHON_IMAGE, BuildError, Engine, find_engine
from tests.cluster.machine import NodeUnavailable, obstacle
from tests.cluster.node import running_node
from tests.cluster.node_config import NODE_IP
from tests.cluster.node_images import engine, make_base_image

KIND_CLUSTER: Final = "everwarm-e2e"
OWN_VALKEY: Final = "everwarm-e2e/valkey"


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with room for a story.

    engine: builds the images, named `<prefix>/...`, from *python_image*; load: gives one to the cluster; address: of this
    machine as pods reach it, None when they cannot; own_valkey: whether Valkey's image must be built too; disk: folder of
    this machine for a hostPath volume, None where a StorageClass makes volumes.
    """

    name: str
    kubeconfig: Path
    engine: Engine
    load: Callable[[str], None]
    prefix: str = "everwarm"
    python_image: str = PYTHON_IMAGE
    address: str | None = None
    disk: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_valkey(self) -> bool:
        """Whether Valkey's image must be built, since none can be pulled."""
        return "valkey" in self.values


def reason_for_none() -> str | None:
    """Why the story can run nowhere here; None when it can."""
    if os.environ.get("KUBECONFIG"):
        if os.environ.get("EVERWARM_E2E_REGISTRY"):
            return None
        return "KUBECONFIG is set: say in EVERWARM_E2E_REGISTRY where its cluster pulls images from"
    return None if _kind_works() else obstacle()


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """The cluster inside `with`; what it writes goes to *folder*. Raises NodeUnavailable, BuildError."""
    if kubeconfig := os.environ.get("KUBECONFIG"):
        yield _given(Path(kubeconfig), os.environ["EVERWARM_E2E_REGISTRY"])
    elif _kind_works():
        with _kind(folder) as ours:
            yield ours
    else:
        with running_node(folder / "node") as node:
            disk = folder / "disk"
            disk.mkdir()
            disk.chmod(0o777)  # whoever fills the volume is not root
            yield Place(
                "a node of our own",
                node.kubeconfig,
                engine(),
                node.load,
                python_image=make_base_image(),
                address=NODE_IP,
                disk=disk,
                values={"valkey": {"image": {"repository": OWN_VALKEY, "tag": "1"}}},
            )


def _given(kubeconfig: Path, registry: str) -> Place:
    """A cluster of the user's."""
    found = find_engine()

    def push(image: str) -> None:
        _run(*found.command, "push", image)

    repositories = {
        part: {"image": {"registry": registry, "pullPolicy": "Always"}}
        for part in ("operator", "stt", "gateway")
    }
    return Place(str(kubeconfig), kubeconfig, found, push, prefix=f"{registry}/everwarm", values=repositories)


@contextmanager
def _kind(folder: Path) -> Iterator[Place]:
    kubeconfig = folder / "kubeconfig"
    _run("kind", "create", "cluster", f"--name={KIND_CLUSTER}", f"--kubeconfig={kubeconfig}", "--wait=120s")
    try:
        yield Place(
            "kind",
            kubeconfig,
            find_engine("docker"),
            lambda image: _run("kind", "load", "docker-image", image, f"--name={KIND_CLUSTER}"),
        )
    finally:
        _run("kind", "delete", "cluster", f"--name={KIND_CLUSTER}", f"--kubeconfig={kubeconfig}")


def _kind_works() -> bool:
    if shutil.which("kind") is None:
        return False
    try:
        find_engine("docker")
    except BuildError:
        return False
    return True


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise NodeUnavailable(f"{' '.join(argv)}: {done.stderr.strip()}")
