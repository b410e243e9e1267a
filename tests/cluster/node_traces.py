"""What a node puts on its machine outside its folder, and how all of it goes away again.

Processes of containers and their shims, mounts, cgroups, a bridge, kube-proxy's tables, two sysctls and a few files. It
is all found by looking at the machine, not remembered: a node that was killed has no memory, and its remains are
removed by the same words as those of one that ends in order.
"""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

import psutil

from tests.cluster.machine import NodeUnavailable, run
from tests.cluster.node_config import BRIDGE, NODE_IP, POD_CIDR, NodeFolders

SYSCTLS: Final = {
    "net/ipv4/ip_forward": "1",
    # Without it an answer between two pods of the bridge misses the Service's address translation on its way back.
    "net/bridge/bridge-nf-call-iptables": "1",
}
PROXY_TABLES: Final = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
CGROUPS: Final = Path("/sys/fs/cgroup")
PLACES_OF_THEIR_OWN: Final = (
    "/run/containerd/s",
    "/run/containerd",
    "/var/lib/cni/results",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/log/containers",
)
DEVICE_PLUGINS: Final = Path(
    "/var/lib/kubelet/device-plugins/kubelet.sock"
)  # wherever the kubelet's folder is
KILL_TIMEOUT_S: Final = 10.0


def make_network(folders: NodeFolders, service_cidr: str) -> None:
    """The bridge, with the host on it, and a way to Services over it, where kube-proxy's rules are."""
    with contextlib.suppress(NodeUnavailable):
        run("modprobe", "br_netfilter")  # where it is a module; else its sysctl is there already
    before = {name: (Path("/proc/sys") / name).read_text(encoding="utf-8") for name in SYSCTLS}
    _sysctl_record(folders).write_text(json.dumps(before), encoding="utf-8")
    for name, value in SYSCTLS.items():
        (Path("/proc/sys") / name).write_text(value, encoding="utf-8")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{NODE_IP}/{POD_CIDR.partition('/')[2]}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    run("ip", "route", "add", service_cidr, "dev", BRIDGE, "src", NODE_IP)


def other_kubelet(folders: NodeFolders) -> str | None:
    """What shows that somebody else's node is on this machine; None when nothing does."""
    ours = folders.state.exists()
    if not ours and (cgroups := pod_cgroups()):
        return f"{cgroups[-1]} exists: another kubelet runs here, or has left it"
    if not ours and (Path("/sys/class/net") / BRIDGE).exists():
        return f"the network interface {BRIDGE} exists, and no node of ours made it"
    return None


def remove_traces(folders: NodeFolders) -> None:
    """Remove everything of the node, its state too; images stay. Its programs have ended, or are about to be killed.

    Raises NodeUnavailable, with what could not be unmounted, rather than delete what is mounted.
    """
    _kill(_shims(folders))
    _kill(_pod_processes())
    for point in mounts_below(folders.state, folders.images):
        with contextlib.suppress(NodeUnavailable):
            run("umount", "--lazy", point)
    if left := mounts_below(folders.state, folders.images):
        raise NodeUnavailable(f"could not be unmounted: {' '.join(left)}")
    for cgroup in pod_cgroups():
        with contextlib.suppress(OSError):  # a process that was killed just now may still be in it
            cgroup.rmdir()
    _remove_network(folders)
    _remove_files(folders)
    shutil.rmtree(folders.state, ignore_errors=True)


def mounts_below(*folders: Path) -> list[str]:
    """Mount points in *folders*, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4].replace("\\040", " ") for line in lines]
    return [
        point for point in reversed(points) if point.startswith(tuple(f"{folder}/" for folder in folders))
    ]


def pod_cgroups() -> list[Path]:
    """The pods' cgroups, innermost first, of every hierarchy (cgroup v1 has one for each controller)."""
    tops = [CGROUPS / "kubepods", *CGROUPS.glob("*/kubepods")]
    return [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]


def _pod_processes() -> list[psutil.Process]:
    """Processes in the pods' cgroups: they outlive a shim that was killed."""
    found = []
    for cgroup in pod_cgroups():
        for pid in (cgroup / "cgroup.procs").read_text(encoding="utf-8").split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
    return found


def _shims(folders: NodeFolders) -> list[psutil.Process]:
    """Between containerd and a pod's containers is a shim, which outlives containerd by design."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if words and "containerd-shim" in words[0] and str(folders.socket) in words:
                found.append(process)
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)  # polls: they are not our children


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _remove_network(folders: NodeFolders) -> None:
    with contextlib.suppress(NodeUnavailable):  # it may never have been made; its routes go with it
        run("ip", "link", "delete", BRIDGE)
    record = _sysctl_record(folders)
    if not record.exists():
        return
    for family, table in PROXY_TABLES:
        with contextlib.suppress(NodeUnavailable):
            run("nft", "delete", "table", family, table)
    for name, value in json.loads(record.read_text(encoding="utf-8")).items():
        (Path("/proc/sys") / name).write_text(value, encoding="utf-8")


def _remove_files(folders: NodeFolders) -> None:
    """The few that the kubelet, CNI and shims write at places of their own."""
    ours = f"{folders.state}/"
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(ours):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob("*"):
        if f'"{ours}' in result.read_text(encoding="utf-8", errors="replace"):
            result.unlink()
    for address in folders.state.glob("containerd/io.containerd.runtime.v2.task/k8s.io/*/address"):
        Path(address.read_text(encoding="utf-8").removeprefix("unix://")).unlink(missing_ok=True)
    DEVICE_PLUGINS.unlink(missing_ok=True)
    for folder in PLACES_OF_THEIR_OWN:
        with contextlib.suppress(OSError):  # it is not there, or not empty and so not ours alone
            Path(folder).rmdir()


def _sysctl_record(folders: NodeFolders) -> Path:
    return folders.state / "sysctls.json"
