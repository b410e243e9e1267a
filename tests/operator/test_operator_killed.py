"""Killed at any moment, the operator leaves nothing half done that its successor would not finish in the same way."""

import random
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.running import (
    World,
    grant,
    install_crd,
    start_operator,
    wait_until_ready,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RESOURCES: Final = 10
KILLS: Final = 20
MOMENTS: Final = 4  # made, changed, scaled, deleted
LONGEST_LIFE_S: Final = 0.6  # an operator needs most of that to list everything


def work(world: World, moment: int) -> None:
    """The *moment*-th quarter of what is done to the resources: made, changed, scaled, and some of them deleted."""
    for number in range(RESOURCES):
        name = f"speech-{number}"
        match moment:
            case 0:
                world.apply(name, replicas=1 + number % 2)
            case 1:
                world.change(name, decode={"beamSize": 1 + number % 3})
            case 2:
                world.change(name, replicas=number % 3)
            case _ if number % 4 == 0:
                world.delete(name)


def settled(world: World) -> dict[str, Any]:
    """What there is, as far as the operator decides it."""
    return {
        "deployments": {made["metadata"]["name"]: made["spec"] for made in world.deployments()},
        "services": sorted(made["metadata"]["name"] for made in world.services()),
        "budgets": sorted(made["metadata"]["name"] for made in world.disruption_budgets()),
        "statuses": {
            made["metadata"]["name"]: {
                "generation": made["status"].get("observedGeneration") == made["metadata"]["generation"],
                "conditions": {c["type"]: (c["status"], c["reason"]) for c in made["status"].get("conditions", ())},
            }
            for made in world.items(world.models)
            if "status" in made
        },
        "resources": sorted(made["metadata"]["name"] for made in world.items(world.models)),
    }  # fmt: skip


def is_settled(world: World) -> bool:
    """Whether every resource has its objects and a last word on its last generation, and nothing is left of others.

    Nothing is said of pods: no node takes them, so how far a rollout gets is the controllers' affair.
    """
    found = settled(world)
    names = found["resources"]
    wanted = {m["metadata"]["name"]: m["spec"]["replicas"] for m in world.items(world.models)}
    return (
        sorted(found["deployments"]) == found["services"] == found["budgets"] == names
        and {name: spec["replicas"] for name, spec in found["deployments"].items()} == wanted
        and all(_is_last_word(found["statuses"].get(name), wanted[name]) for name in names)
    )


def _is_last_word(status: dict[str, Any] | None, replicas: int) -> bool:
    """Whether nothing follows *status*: the first one of a generation is told while its rollout has just begun."""
    last = ("True", "Unschedulable") if replicas else ("False", "Settled")
    return bool(status and status["generation"] and status["conditions"].get("Reconciling") == last)


def end_after(kills: int, control_plane: ControlPlane, redis_url: str, folder: Path) -> dict[str, Any]:
    """What there is in the end when the operator is killed *kills* times on the way."""
    rng = random.Random(kills)
    namespace = f"killed-{kills}-times-{rng.randrange(1 << 30):x}"
    control_plane.create_namespace(namespace)
    world = World(control_plane, namespace, redis_url)
    kubeconfig = grant(control_plane, namespace)
    operator = start_operator(kubeconfig, namespace, redis_url, folder)
    try:
        for moment in range(MOMENTS):
            work(world, moment)
            for _ in range(kills // MOMENTS):
                wait_until_ready(control_plane, operator)
                with suppress(subprocess.TimeoutExpired):
                    operator.process.wait(rng.uniform(0.0, LONGEST_LIFE_S))
                operator.kill()
                operator = start_operator(kubeconfig, namespace, redis_url, folder)
        world.wait("all settled", lambda: is_settled(world), within_s=120)
        return settled(world)
    finally:
        operator.kill()
        control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}")


def test_the_end_is_the_same_whenever_it_is_killed(
    control_plane: ControlPlane, redis_url: str, tmp_path: Path
) -> None:
    install_crd(control_plane)
    undisturbed = end_after(0, control_plane, redis_url, tmp_path)
    killed = end_after(KILLS, control_plane, redis_url, tmp_path)
    assert killed == undisturbed
