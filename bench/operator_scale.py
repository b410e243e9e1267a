"""A hundred and a thousand WhisperModels of three pods each: time, writes and memory of the operator.

A real control plane, and the operator with the rights of its Role. No pod runs: what a kubelet and the pods would say is
said for them, all at once when every pod is there. A node with room for all of them is declared, so that the scheduler
has its share of the work as in a cluster.

Everything shares two cores, so each part's CPU is counted, and what is waited for is asked for in a way that costs next
to nothing: a list of three thousand pods, asked for again and again, once took a core of its own.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import psutil

from bench.memory import pss_mib
from bench.report import Figure, Promise, Report
from everwarm_core.registry.connection import connect
from everwarm_core.registry.writer import RegistryWriter
from tests.cluster.binaries import PARTS, Part
from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.fixtures.valkey import running_valkey
from tests.operator.running import (
    LOOKS,
    RunningOperator,
    World,
    grant,
    install_crd,
    record_of,
    running_operator,
)

COUNTS: Final = (100, 1000)
PODS: Final = 3
CALLERS: Final = 4
SETTLE_S: Final = 1800.0
RESYNC_S: Final = 30.0
LEASE_S: Final = 3600.0
ROOM: Final = {"cpu": "100000", "memory": "1000Ti", "pods": "100000"}
FLAGS: Final[Mapping[Part, Sequence[str]]] = {
    "kube-controller-manager": ("--node-monitor-grace-period=1h",)  # nobody renews the declared node
}
UNITS: Final = {
    "seconds": "s",
    "seconds until all pods exist": "s",
    "seconds from the last registration to all statuses": "s",
    "writes per resource": "",
    "gates per pod": "",
    "events per pod": "",
    "memory": "MiB",
    "operator CPU": "s",
    "control plane CPU": "s",
}
LOOK_EVERY_S: Final = 0.5  # at what is waited for
NOT_COUNTED: Final = ("Pod/status", "Event")  # a pod's gate and what is told of it belong to the pod


def run() -> Report:
    """Both counts, each on a control plane of its own."""
    small, large = (_measure(count) for count in COUNTS)

    def growth(name: str) -> float:
        """How much more it is for each resource at the larger count."""
        return (large[name] / COUNTS[1]) / (small[name] / COUNTS[0])

    return Report(
        title="The operator with a thousand resources",
        promises=(
            Promise(
                "writes to create a resource, gates and Events aside", large["writes per resource"], 8, ""
            ),
            Promise("writes of two resyncs when nothing changed", large["idle writes"], 0, ""),
            Promise(
                "operator's CPU per resource at 1,000 over that at 100", growth("operator CPU"), 1.5, "x"
            ),
            Promise("time per resource at 1,000 over that at 100", growth("seconds"), 1.5, "x"),
        ),
        figures=tuple(
            Figure(f"{name}, {count} resources", found[name], unit)
            for count, found in zip(COUNTS, (small, large), strict=True)
            for name, unit in UNITS.items()
        ),
    )


def _measure(count: int) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="scale") as folder,
        running_valkey() as valkey,
        running_control_plane(Path(folder) / "plane", flags=FLAGS) as plane,
    ):
        install_crd(plane)
        plane.create_namespace("scale")
        declare_node(plane)
        world = World(plane, "scale", valkey.url)
        kubeconfig = grant(plane, "scale")
        resync = {"EVERWARM_OPERATOR_RESYNC_SECONDS": f"{RESYNC_S:g}"}
        with running_operator(plane, kubeconfig, "scale", valkey.url, Path(folder), **resync) as operator:
            return _drive(world, operator, count)


def _drive(world: World, operator: RunningOperator, count: int) -> dict[str, float]:
    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(lambda n: world.apply(f"speech-{n}", replicas=PODS), range(count)))
        _until("all pods", lambda: _pods(world) == count * PODS)
        created = time.perf_counter()
        pods = world.pods()
        list(callers.map(world.run_container, pods))
    asyncio.run(_register(world, pods))
    registered = time.perf_counter()
    _until("all gates open", lambda: operator.metric("everwarm_pods_warm") == count * PODS)
    _until("all warm", lambda: _warm(world) == count)
    ended = time.perf_counter()
    _until("quiet", lambda: _is_quiet(operator))
    writes = _writes(operator)
    looks = operator.metric(LOOKS)
    _until("two resyncs", lambda: operator.metric(LOOKS) >= looks + 2 * count)
    idle = sum(_writes(operator).values()) - sum(writes.values())
    return {
        "seconds": ended - began,
        "seconds until all pods exist": created - began,
        "seconds from the last registration to all statuses": ended - registered,
        "writes per resource": sum(n for what, n in writes.items() if what not in NOT_COUNTED) / count,
        "gates per pod": writes.get("Pod/status", 0) / count / PODS,
        "events per pod": writes.get("Event", 0) / count / PODS,
        "idle writes": idle,
        "memory": pss_mib(operator.process.pid),
        "operator CPU": _cpu(psutil.Process(operator.process.pid)),
        "control plane CPU": sum(_cpu(part) for part in _control_plane()),
    }


def _until(what: str, condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SETTLE_S
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"no {what} within {SETTLE_S:g} s")
        time.sleep(LOOK_EVERY_S)


def _pods(world: World) -> int:
    """How many pods there are, without listing them."""
    first = world.control_plane.request("GET", f"{world.pods_path}?limit=1")
    return len(first["items"]) + int(first["metadata"].get("remainingItemCount", 0))


async def _register(world: World, pods: list[dict[str, Any]]) -> None:
    async with connect(world.redis_url) as redis:
        writer = RegistryWriter(redis, world.namespace, ttl_s=LEASE_S)
        for pod in pods:
            await writer.heartbeat(record_of(pod))


def _warm(world: World) -> int:
    return sum(model.get("status", {}).get("warmReplicas") == PODS for model in world.items(world.models))


def _is_quiet(operator: RunningOperator) -> bool:
    """Whether a whole resync passes without a write."""
    before, until = sum(_writes(operator).values()), time.monotonic() + 2 * RESYNC_S
    while time.monotonic() < until:
        if sum(_writes(operator).values()) != before:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def _writes(operator: RunningOperator) -> dict[str, float]:
    found = {}
    for line in operator.metrics().splitlines():
        if line.startswith("everwarm_api_writes_total{"):
            found[line.split('"')[1]] = float(line.split()[-1])
    return found


def _control_plane() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if set(child.cmdline()) & set(PARTS)]


def _cpu(process: psutil.Process) -> float:
    """Seconds of CPU it has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def declare_node(plane: ControlPlane) -> None:
    """A node with room for everything, that no kubelet stands for."""
    ready = {"type": "Ready", "status": "True", "reason": "Declared", "message": "by the benchmark"}
    status = {"allocatable": ROOM, "capacity": ROOM, "conditions": [ready]}
    plane.request("POST", "/api/v1/nodes", {"metadata": {"name": "room"}, "status": status})
