"""A real node under the tests' control plane: containerd, kubelet, kube-proxy and CoreDNS on this machine.

Pods run in containers with an address each, Services and DNS names work inside and from the host, probes and
preStop hooks are the kubelet's own. What is not there: a network beyond the machine, NetworkPolicy enforcement,
hostPort, LoadBalancer, StorageClasses (make hostPath PersistentVolumes) and metrics for autoscalers.

There is one node on a machine, because its addresses are fixed and a kernel has one set of cgroups. All its programs
end with the process that started them; what is then left (containers, mounts, cgroups, the network) is removed on the
way out, or before the next node when there was no way out. Images stay, so that loading one again costs nothing.
"""

import contextlib
import fcntl
import http.client
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from images.build import BuildError
from tests.cluster.binaries import Binaries, Part, build_binaries
from tests.cluster.control_plane import SERVICE_CIDR, START_TIMEOUT_S, ControlPlane, PartProcess
from tests.cluster.machine import CNI_PLUGINS, NodeUnavailable, kept, prepare_machine, run
from tests.cluster.node_config import (
    DNS_READY_PORT,
    NODE_IP,
    NODE_NAME,
    PAUSE_IMAGE,
    PROXY_HEALTH_PORT,
    NodeFolders,
    cni_config,
    containerd_config,
    corefile,
    kubelet_config,
    proxy_config,
)
from tests.cluster.node_images import build, engine, full_name, scratch_folder
from tests.cluster.node_traces import make_network, other_kubelet, remove_traces

CONTAINERD_PATIENCE_S: Final = 5.0
PAUSE_DOCKERFILE: Final = 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n'
IDENTITY_LABEL: Final = "everwarm.dev/id"  # on containerd's image: the id of the one it was made from


class Node:
    """A running cluster of one node; made by `running_node`."""

    def __init__(self, folder: Path, binaries: Binaries, flags: Mapping[Part, Sequence[str]]) -> None:
        self._folders = node_folders()
        self._binaries = binaries
        self.control_plane: Final = ControlPlane(folder, binaries, flags, node_ip=NODE_IP)
        """The API server, listening where pods reach it, and everybody's credentials."""
        self._processes: dict[str, PartProcess] = {}
        self._folder = folder

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig that may do everything."""
        return self.control_plane.kubeconfig

    def wait_for(
        self, what: str, condition: Callable[[], object], *, within_s: float = START_TIMEOUT_S
    ) -> None:
        """As the control plane's, and raises PartEnded as soon as a part of the node has ended too."""

        def holds() -> object:
            for process in self._processes.values():
                process.check()
            return condition()

        self.control_plane.wait_for(what, holds, within_s=within_s)

    # --- Images ----------------------------------------------------------------------------------------------------

    def load(self, image: str) -> None:
        """Give the node *image*, as in a Dockerfile's tag, from the store of `node_images`; nothing if it has it."""
        load_image(image)

    def load_archive(self, archive: Path) -> None:
        """Give the node the images in *archive*, as `docker save` writes it."""
        ctr("images", "import", archive)

    # --- The parts -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns once the node is Ready and Services and names work."""
        self._folders.state.mkdir(parents=True)
        make_network(self._folders, SERVICE_CIDR)
        self._start_containerd()
        self.control_plane.start()
        self.wait_for("containerd", _containerd_answers)
        _load_pause_image(self._binaries)
        self._start_node()
        self.wait_for("ready node", self._is_ready)
        self.wait_for("ready DNS server", lambda: _answers(DNS_READY_PORT, "/ready"))
        self.wait_for("ready kube-proxy", lambda: _answers(PROXY_HEALTH_PORT, "/healthz"))

    def close(self) -> None:
        """End all parts and remove everything but logs and images."""
        for name, process in reversed(self._processes.items()):
            if name != "containerd":
                process.kill()
        self.control_plane.close()
        if containerd := self._processes.get("containerd"):
            _remove_containers()
            containerd.end(within_s=CONTAINERD_PATIENCE_S)
        remove_traces(self._folders)

    def _start_containerd(self) -> None:
        config = self._folders.state / "containerd.toml"
        config.write_text(containerd_config(self._folders, CNI_PLUGINS), encoding="utf-8")
        (self._folders.state / "cni").mkdir()
        self._write("cni/everwarm.conflist", cni_config(self._folders))
        self._start("containerd", "containerd", "--config", config)

    def _start_node(self) -> None:
        authority, state = self.control_plane.authority, self._folders.state
        server = authority.server("kubelet", [f"DNS:{NODE_NAME}", f"IP:{NODE_IP}"])
        kubeconfig_for = self.control_plane.kubeconfig_for
        config = self._write("kubelet.json", kubelet_config(self._folders, server, authority.own.certificate))
        self._start(
            "kubelet",
            *self._binaries.command("kubelet"),
            f"--config={config}",
            f"--kubeconfig={kubeconfig_for(f'system:node:{NODE_NAME}', ['system:nodes'])}",
            f"--root-dir={state / 'kubelet'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_IP}",
        )
        config = self._write("proxy.json", proxy_config(kubeconfig_for("system:kube-proxy")))
        self._start("kube-proxy", *self._binaries.command("kube-proxy"), f"--config={config}")
        config = state / "Corefile"
        config.write_text(corefile(kubeconfig_for("coredns", ["system:masters"])), encoding="utf-8")
        self._start("coredns", *self._binaries.command("coredns"), "-conf", config)

    def _start(self, name: str, *command: str | Path) -> None:
        self._processes[name] = PartProcess(name, [str(word) for word in command], self._folder)
        self._processes[name].start()

    def _write(self, name: str, content: Any) -> Path:
        path = self._folders.state / name
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return path

    def _is_ready(self) -> bool:
        node = self.control_plane.request("GET", f"/api/v1/nodes/{NODE_NAME}")
        conditions = {entry["type"]: entry["status"] for entry in node["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")


@contextlib.contextmanager
def running_node(folder: Path, *, flags: Mapping[Part, Sequence[str]] | None = None) -> Iterator[Node]:
    """A cluster of one node inside `with`, its logs in *folder*, which is made; *flags* as for the control plane.

    Installs Debian's packages if they are missing, and removes what a node left that was killed. Raises
    NodeUnavailable, BinariesUnavailable, or PartEnded with the log of a part that could not start.
    """
    prepare_machine()
    binaries = build_binaries()
    with _sole_node():
        _remove_leftovers()
        node = Node(folder, binaries, flags or {})
        try:
            node.start()
            yield node
        finally:
            node.close()


def node_folders() -> NodeFolders:
    """Where the machine's one node keeps its state and its images."""
    return NodeFolders(state=kept() / "state", images=kept() / "containerd")


def node_runs() -> bool:
    """Whether a node of ours answers on this machine."""
    return node_folders().socket.exists() and _containerd_answers()


def clean_up() -> None:
    """Remove what a node of ours left that was killed. Raises NodeUnavailable while one runs."""
    with _sole_node():
        _remove_leftovers()


def _remove_leftovers() -> None:
    if why := other_kubelet(node_folders()):
        raise NodeUnavailable(why)
    if node_folders().state.exists():
        remove_traces(node_folders())


def load_image(image: str) -> None:
    """Give the running node *image* from the store of `node_images`, unless it has it. Raises NodeUnavailable."""
    name = full_name(image)
    try:
        identity = engine().identity_of(image)
        if ctr("images", "list", "--quiet", f'name=={name},labels."{IDENTITY_LABEL}"=={identity}').strip():
            return
        with scratch_folder() as folder:
            engine().save(image, folder / "image.tar", name=name)
            ctr("images", "import", folder / "image.tar")
    except BuildError as error:
        raise NodeUnavailable(str(error)) from error
    ctr("images", "label", name, f"{IDENTITY_LABEL}={identity}")


def ctr(*words: str | Path) -> str:
    """Containerd's own client, where the kubelet's images and containers are. Raises NodeUnavailable."""
    return run("ctr", "--address", node_folders().socket, "--namespace", "k8s.io", *words)


def _load_pause_image(binaries: Binaries) -> None:
    """The image of the process that holds a pod's namespaces, which the container runtime expects to be there."""
    with scratch_folder() as folder:
        shutil.copy(binaries.location.with_name("pause"), folder)
        build(PAUSE_IMAGE, PAUSE_DOCKERFILE, folder)
    load_image(PAUSE_IMAGE)


def _remove_containers() -> None:
    """Kill and remove every container; with the last one of a pod its shim ends too."""
    with contextlib.suppress(NodeUnavailable):  # what is left is killed by its cgroup
        if containers := ctr("containers", "list", "--quiet").split():
            with contextlib.suppress(NodeUnavailable):
                ctr("tasks", "delete", "--force", *containers)
            ctr("containers", "delete", *containers)


def _containerd_answers() -> bool:
    try:
        ctr("version")
    except NodeUnavailable:
        return False
    return True


def _answers(port: int, path: str) -> bool:
    """Whether a program of the node answers 200."""
    connection = http.client.HTTPConnection(NODE_IP, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    finally:
        connection.close()


@contextlib.contextmanager
def _sole_node() -> Iterator[None]:
    """Inside `with`, no other process has a node; the kernel frees the lock even when its owner is killed."""
    kept().mkdir(parents=True, exist_ok=True)
    with (kept() / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NodeUnavailable(
                "another process runs a node on this machine, and there can be one"
            ) from error
        yield
