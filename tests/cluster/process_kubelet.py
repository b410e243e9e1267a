"""A kubelet that plays pods with processes: a Node without root, containers, images or a network.

It registers a Node, and for every pod bound to it does towards the API server what a kubelet does: it runs the
container with its environment, probes it, restarts it with back-off, reports its state, computes Ready from the
containers *and* the readiness gates, and on deletion gives it its grace before it removes it. Which program stands
for the image, a test decides (`command_for`). The pod's address is 127.0.0.1 for all, so the container's port is
replaced by a free one and the two variables that speak of it are rewritten. Hence what a pod cannot be reached by is
a Service: the API server refuses loopback addresses in EndpointSlices, and says so in events.

It owns what a kubelet owns: its conditions are merged by type, so those of readiness gates stay their owner's.
A pod has one container and is always restarted; init containers, exec probes and the like are not played, and a pod
that needs them is refused loudly rather than run wrongly. Leaving the `async with` ends every process.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.cluster.api import STRATEGIC_MERGE, Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.process_container import now
from tests.cluster.process_pod import Command, ProcessPod

Json = dict[str, Any]

HEARTBEAT_EVERY_S: Final = 10.0  # the node lifecycle controller gives up on a node after 50 s
FIRST_BACKOFF_S: Final = 10.0  # the kubelet's: before the second restart, and doubled by each one


def stt_pod(pod: Json) -> list[str]:
    """The program of Everwarm's own image."""
    return [sys.executable, "-m", "everwarm_stt"]


class ProcessKubelet:
    """A running kubelet; made by `running_kubelet`."""

    def __init__(self, api: Api, node: str, namespace: str | None) -> None:
        self.node: Final = node
        """The name of its Node, which is also the value of the Node's label kubernetes.io/hostname."""
        self._api = api
        self._selector = f"spec.nodeName={node}" + (f",metadata.namespace={namespace}" if namespace else "")

    async def work(self, pod_of: Callable[[Json], ProcessPod]) -> None:
        """Keep the Node alive and play its pods, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeat(), name="heartbeat")
            pods: dict[str, ProcessPod] = {}
            async for uid, pod in self._api.watch("/api/v1/pods", self._selector):
                if uid in pods:
                    pods[uid].update(pod)
                elif pod is not None:
                    pods[uid] = pod_of(pod)
                    group.create_task(pods[uid].run(), name=pod["metadata"]["name"])

    async def register(self) -> None:
        """Make the Node; returns once it takes pods."""
        room = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "5000"}
        labels = {"kubernetes.io/hostname": self.node, "kubernetes.io/os": "linux"}
        status = {"capacity": room, "allocatable": room, "conditions": [_node_ready()]}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node, "labels": labels},
            "status": status,
        }
        await self._api.request("POST", "/api/v1/nodes", node)
        async for _, seen in self._api.watch("/api/v1/nodes", f"metadata.name={self.node}"):
            if seen and not seen["spec"].get("taints"):  # a new node is tainted until it was seen Ready
                return

    async def unregister(self) -> None:
        """Delete the Node; pods still bound to it are collected as garbage."""
        await self._api.insist("DELETE", f"/api/v1/nodes/{self.node}")

    async def _heartbeat(self) -> None:
        while True:
            patch = {"status": {"conditions": [_node_ready()]}}
            await self._api.insist("PATCH", f"/api/v1/nodes/{self.node}/status", patch, kind=STRATEGIC_MERGE)
            await asyncio.sleep(HEARTBEAT_EVERY_S)


@contextlib.asynccontextmanager
async def running_kubelet(
    control_plane: ControlPlane,
    folder: Path,
    *,
    node: str,
    namespace: str | None = None,
    command_for: Command = stt_pod,
    first_backoff_s: float = FIRST_BACKOFF_S,
) -> AsyncIterator[ProcessKubelet]:
    """A Node called *node* inside `async with`; logs are *folder*/<pod's name>/<restart>.log.

    namespace: plays the pods of this one only. What other tests left behind may be bound to the node too.
    command_for: the program of a pod (its JSON), started with the environment of the pod's container.
    first_backoff_s: seconds before the second restart of a container; shorter makes a test shorter.
    """
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout, read_bufsize=2**21) as session,
        # A probe is a connection of its own, as the kubelet's are.
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            headers={"user-agent": "kube-probe/1.37"},
        ) as http,
    ):
        api = Api(control_plane, session)
        kubelet = ProcessKubelet(api, node, namespace)

        def pod_of(pod: Json) -> ProcessPod:
            place = folder / pod["metadata"]["name"]
            place.mkdir(parents=True, exist_ok=True)
            return ProcessPod(
                pod,
                api=api,
                http=http,
                folder=place,
                command_for=command_for,
                first_backoff_s=first_backoff_s,
            )

        await kubelet.register()
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(kubelet.work(pod_of), name=node)
                yield kubelet
                work.cancel()
        finally:
            await kubelet.unregister()


def _node_ready() -> Json:
    return {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "processes can be started",
        "lastHeartbeatTime": now(),
    }
