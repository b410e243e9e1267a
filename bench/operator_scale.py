"""A hundred and a thousand WhisperModels of three pods each: time, writes and memory of the operator.

A real control plane, and the operator with the rights of its Role. No pod runs: what a kubelet and the pods would say is
said for them, all at once when every pod is there. A node with room for all of them is declared, so that the scheduler
has its share of the work as in a cluster.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from bench.memory import pss_mib
from bench.report import Figure, Promise, Report
from everwarm_core.registry.connection import connect
from everwarm_core.registry.writer import RegistryWriter
from tests.cluster.binaries import Part
from tests.cluster.control_plane import running_control_plane
from tests.fixtures.valkey import OwnedValkey
from tests.operator.running import (
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
NOT_COUNTED: Final = ("Pod/status", "Event")  # a pod's gate and what is told of it belong to the pod


def run() -> Report:
    """Both counts, each on a control plane of its own."""
    small, large = (_measure(count) for count in COUNTS)
    per_small, per_large = small["seconds"] / COUNTS[0], large["seconds"] / COUNTS[1]
    figures = [
        Figure(f"{name}, {count} resources", found[name], unit)
        for count, found in zip(COUNTS, (small, large), strict=True)
        for name, unit in (
            ("seconds", "s"),
            ("writes per resource", ""),
            ("gates per pod", ""),
            ("events per pod", ""),
            ("memory", "MiB"),
            ("CPU seconds", "s"),
        )
    ]
    return Report(
        title="The operator with a thousand resources",
        promises=(
            Promise(
                "writes to create a resource, gates and Events aside", large["writes per resource"], 8, ""
            ),
            Promise("writes of two resyncs when nothing changed", large["idle writes"], 0, ""),
            Promise("time per resource at 1,000 over that at 100", per_large / per_small, 1.5, "x"),
        ),
        figures=tuple(figures),
    )


def _measure(count: int) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="scale") as folder,
        _valkey() as valkey,
        running_control_plane(Path(folder) / "plane", flags=FLAGS) as plane,
    ):
        install_crd(plane)
        plane.create_namespace("scale")
        plane.request("POST", "/api/v1/nodes", _node())
        world = World(plane, "scale", valkey.url)
        kubeconfig = grant(plane, "scale")
        resync = {"EVERWARM_OPERATOR_RESYNC_SECONDS": f"{RESYNC_S:g}"}
        with running_operator(plane, kubeconfig, "scale", valkey.url, Path(folder), **resync) as operator:
            return _drive(world, operator, count)


def _drive(world: World, operator: RunningOperator, count: int) -> dict[str, float]:
    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(lambda n: world.apply(f"speech-{n}", replicas=PODS), range(count)))
        world.wait("all pods", lambda: len(world.pods()) == count * PODS, within_s=SETTLE_S)
        pods = world.pods()
        list(callers.map(world.run_container, pods))
    asyncio.run(_register(world, pods))
    world.wait("all warm", lambda: _warm(world) == count, within_s=SETTLE_S)
    seconds = time.perf_counter() - began
    world.wait("quiet", lambda: _is_quiet(operator), within_s=SETTLE_S)
    writes = _writes(operator)
    looks = _looks(operator)
    world.wait("two resyncs", lambda: _looks(operator) >= looks + 2 * count, within_s=SETTLE_S)
    idle = sum(_writes(operator).values()) - sum(writes.values())
    user, system = _cpu(operator.process.pid)
    return {
        "seconds": seconds,
        "writes per resource": sum(n for what, n in writes.items() if what not in NOT_COUNTED) / count,
        "gates per pod": writes.get("Pod/status", 0) / count / PODS,
        "events per pod": writes.get("Event", 0) / count / PODS,
        "idle writes": idle,
        "memory": pss_mib(operator.process.pid),
        "CPU seconds": user + system,
    }


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
        time.sleep(0.5)  # polls a condition
    return True


def _writes(operator: RunningOperator) -> dict[str, float]:
    found = {}
    for line in operator.metrics().splitlines():
        if line.startswith("everwarm_api_writes_total{"):
            found[line.split('"')[1]] = float(line.split()[-1])
    return found


def _looks(operator: RunningOperator) -> float:
    return sum(
        float(line.split()[-1])
        for line in operator.metrics().splitlines()
        if line.startswith("everwarm_reconcile_duration_seconds_count")
    )


def _cpu(pid: int) -> tuple[float, float]:
    times = psutil.Process(pid).cpu_times()
    return times.user, times.system


def _node() -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "reason": "Declared", "message": "by the benchmark"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "room"},
        "status": {"allocatable": ROOM, "capacity": ROOM, "conditions": [ready]},
    }


@contextmanager
def _valkey() -> Iterator[OwnedValkey]:
    valkey = OwnedValkey()
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.close()
