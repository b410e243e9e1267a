"""What a real node takes of the machine: root, Debian's packages, a place for what it keeps.

The control plane needs none of this. A node does: containers are the kernel's work, and the container runtime, its
network plugins and the tools that build images are programs of the system. `prepare_machine` says what is missing, and
installs it where that is possible; nothing else here changes the machine.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.go_module import cache

CNI_PLUGINS: Final = Path("/usr/lib/cni")
PACKAGES: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    str(CNI_PLUGINS / "bridge"): "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "umount": "mount",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
"""A program, or the path of one, that a node or its images need -> the Debian package that has it."""


class NodeUnavailable(Exception):
    """There can be no node on this machine; the message says why, and what to do if that is known."""


def kept() -> Path:
    """The folder for what outlives a node: images and their layers. The node's own state is beside it."""
    return cache() / "node"


def obstacle() -> str | None:
    """Why this machine can run no node, however much is installed; None when it can."""
    if sys.platform != "linux":
        return "a node is made of Linux containers, and this is not Linux"
    if os.geteuid() != 0:
        return "a node needs root: containers, their network and their mounts are made by the kernel"
    return None


def missing() -> dict[str, str]:
    """The programs of PACKAGES that are not here, with their packages."""
    return {program: package for program, package in PACKAGES.items() if shutil.which(program) is None}


def prepare_machine() -> None:
    """Return once a node can run here, installing packages if need be. Raises NodeUnavailable."""
    if why := obstacle():
        raise NodeUnavailable(why)
    packages = sorted(set(missing().values()))
    if not packages:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        raise NodeUnavailable(f"missing: {', '.join(missing())}; on Debian they come by {' '.join(install)}")
    sys.stderr.write(f"tests.cluster: {' '.join(install)}\n")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], install):
        run(*command, environ=environ)
    if still := missing():
        raise NodeUnavailable(f"missing, though their packages are installed: {', '.join(still)}")
    # A package's service would run a second containerd on this machine, which nobody here asks anything.
    if Path("/run/systemd/system").exists() and "containerd" in packages:
        run("systemctl", "disable", "--now", "containerd", environ=environ)


def run(*argv: str | Path, environ: dict[str, str] | None = None) -> str:
    """Run a program to its end and return its stdout; raises NodeUnavailable with what it said."""
    words = [str(word) for word in argv]
    if shutil.which(words[0]) is None:
        raise NodeUnavailable(f"the program {words[0]} is missing")
    done = subprocess.run(
        words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NodeUnavailable(f"{' '.join(words)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout
