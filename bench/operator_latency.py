"""How long the operator itself takes, from `kubectl apply` to Ready and from the registry's word to a pod's gate.

A real control plane, and the operator with the rights of its Role. What the kubelet and the pod would say is said for
them at once, so that what is left is the operator's own: from the resource to its Deployment, from the registry to the
gate, from the last pod's Ready to the resource's. What the controller manager and the scheduler take in between is
measured too, and not counted.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.operator_scale import FLAGS, declare_node
from bench.report import Figure, Promise, Report
from everwarm_core.registry.records import PodState
from everwarm_core.registry.view import GRACE_S
from tests.cluster.control_plane import running_control_plane
from tests.fixtures.valkey import running_valkey
from tests.operator.running import World, grant, install_crd, running_operator

ROUNDS: Final = 30
SHORT_LEASE_S: Final = 2.0
NAMESPACE: Final = "latency"

Pod = dict[str, Any]


def run() -> Report:
    """One resource after the other, each through a pod's whole life in the registry."""
    with (
        tempfile.TemporaryDirectory(prefix="latency") as folder,
        running_valkey() as valkey,
        running_control_plane(Path(folder) / "plane", flags=FLAGS) as plane,
    ):
        install_crd(plane)
        plane.create_namespace(NAMESPACE)
        declare_node(plane)
        world = World(plane, NAMESPACE, valkey.url)
        with running_operator(plane, grant(plane, NAMESPACE), NAMESPACE, valkey.url, Path(folder)):
            # The operator follows the registries of namespaces with resources, and believes in an absence once it has
            # followed for so long.
            world.apply("anchor", replicas=0)
            time.sleep(GRACE_S + 1.0)
            rounds = [_round(world, number) for number in range(ROUNDS)]
    share = [sum(each[step] for step in SHARE) for each in rounds]
    flips = {step: [each[step] for each in rounds] for step in FLIPS}
    return Report(
        title="The operator's own time",
        promises=(
            Promise("apply to Ready, operator's share, p50", statistics.median(share), 1.0, "s"),
            *(Promise(f"{step}, slowest of {ROUNDS}", max(took), 1.0, "s") for step, took in flips.items()),
        ),
        figures=tuple(
            _figure(name, took)
            for name, took in {
                "apply to Ready, operator's share": share,
                **{step: [each[step] for each in rounds] for step in rounds[0]},
            }.items()
        ),
    )


SHARE: Final = ("resource to Deployment", "registered warm to gate True", "pod Ready to resource Ready")
FLIPS: Final = ("registered warm to gate True", "draining to gate False", "lease over to gate False")


def _round(world: World, number: int) -> dict[str, float]:
    """Each step's seconds in the life of one resource with one pod."""
    name = f"speech-{number}"
    took: dict[str, float] = {}
    world.apply(name)
    took["resource to Deployment"] = _until(lambda: _named(world.deployments(), name))
    took["Deployment to pod (not the operator)"] = _until(lambda: _named(world.pods(), name))
    pod = _named(world.pods(), name)[0]
    world.run_container(pod)
    asyncio.run(world.register(pod))
    took["registered warm to gate True"] = _until(lambda: world.gate(pod["metadata"]["name"]) == "True")
    _say_ready(world, pod)
    took["pod Ready to resource Ready"] = _until(lambda: world.condition(name, "Ready")["status"] == "True")
    asyncio.run(world.register(pod, state=PodState.DRAINING))
    took["draining to gate False"] = _until(lambda: world.gate(pod["metadata"]["name"]) == "False")
    asyncio.run(world.register(pod, lease_s=SHORT_LEASE_S))
    lease_ends = time.perf_counter() + SHORT_LEASE_S
    _until(lambda: world.gate(pod["metadata"]["name"]) == "True")
    _until(lambda: world.gate(pod["metadata"]["name"]) == "False")
    took["lease over to gate False"] = time.perf_counter() - lease_ends
    world.delete(name)
    return took


def _until(condition: Callable[[], object]) -> float:
    """Seconds until *condition* holds; asked for without a pause, so that none is measured."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > 60.0:
            raise TimeoutError("the operator did nothing for a minute")
    return time.perf_counter() - began


def _named(objects: Sequence[Pod], name: str) -> list[Pod]:
    return [each for each in objects if each["metadata"]["labels"]["app.kubernetes.io/instance"] == name]


def _say_ready(world: World, pod: Pod) -> None:
    """Say as the kubelet that the pod is Ready, as it does once its gate is open."""
    path = f"{world.pods_path}/{pod['metadata']['name']}/status"
    live = world.control_plane.request("GET", f"{world.pods_path}/{pod['metadata']['name']}")
    others = [each for each in live["status"]["conditions"] if each["type"] != "Ready"]
    ready = {"type": "Ready", "status": "True"}
    world.control_plane.request("PATCH", path, {"status": {"conditions": [*others, ready]}})


def _figure(name: str, took: Sequence[float]) -> Figure:
    return Figure(name, statistics.median(took), "s", f"{min(took):.3f} .. {max(took):.3f}")
