"""The operator on a real control plane, with exactly the rights of its Role: what it makes, says, corrects and leaves.

No kubelet runs here: tests say of pods what one would, and tell the registry what the pods would.
"""

import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from everwarm_core.registry.records import PodState
from tests.cluster.control_plane import ControlPlane, Refused
from tests.operator.running import (
    LOOKS,
    RunningOperator,
    World,
    grant,
    install_crd,
    running_operator,
    start_operator,
    wait_until_ready,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KOPF_WAITS_S = 5.0  # at its end, when it finds tasks that are not ended
NEWS_S = 60.0  # for what follows from news: the resync (300 s) and the end of a lease (120 s) come later


@pytest.fixture
def world(control_plane: ControlPlane, namespace: str, redis_url: str) -> World:
    install_crd(control_plane)
    return World(control_plane, namespace, redis_url)


@pytest.fixture
def kubeconfig(world: World) -> Path:
    return grant(world.control_plane, world.namespace)


@pytest.fixture
def operator(world: World, kubeconfig: Path, tmp_path: Path) -> Iterator[RunningOperator]:
    with running_operator(
        world.control_plane, kubeconfig, world.namespace, world.redis_url, tmp_path
    ) as running:
        yield running


def pods(world: World, count: int) -> list[dict[str, Any]]:
    world.wait(f"{count} pods", lambda: len(world.pods()) == count)
    return sorted(world.pods(), key=lambda pod: str(pod["metadata"]["name"]))


async def test_a_resource_gets_its_objects_and_they_are_its_own(
    operator: RunningOperator, world: World
) -> None:
    uid = world.apply("speech", replicas=2)["metadata"]["uid"]
    pods(world, 2)
    world.wait("a Service", world.services)
    world.wait("a disruption budget", world.disruption_budgets)
    for listed in (world.deployments(), world.services(), world.disruption_budgets()):
        (made,) = listed
        assert made["metadata"]["ownerReferences"][0]["uid"] == uid
        assert "finalizers" not in made["metadata"]
    world.wait("a status", lambda: world.status("speech").get("replicas") == 2)
    assert world.condition("speech", "Ready")["status"] == "False"
    assert "finalizers" not in world.control_plane.request("GET", f"{world.models}/speech")["metadata"]


async def test_the_gate_opens_when_the_registry_holds_the_pod_and_closes_when_it_drains(
    operator: RunningOperator, world: World
) -> None:
    world.apply("speech")
    (pod,) = pods(world, 1)
    name = pod["metadata"]["name"]
    world.run_container(pod)
    await world.register(pod, state=PodState.LOADING, languages=())
    world.wait("a closed gate", lambda: world.gate(name) == "False")
    await world.register(pod)
    world.wait("an open gate", lambda: world.gate(name) == "True", within_s=NEWS_S)
    world.wait("a warm replica", lambda: world.status("speech").get("warmReplicas") == 1)
    status = world.status("speech")
    assert (status["loadSeconds"], status["warmSeconds"]) == (1.5, 2.5)
    await world.register(pod, state=PodState.DRAINING)
    world.wait("a closed gate", lambda: world.gate(name) == "False", within_s=NEWS_S)


async def test_a_pod_that_is_warm_for_some_of_its_keys_only_stays_closed(
    operator: RunningOperator, world: World
) -> None:
    world.apply("speech", model="base", languages=["en", "de"])
    (pod,) = pods(world, 1)
    world.run_container(pod)
    await world.register(pod, model="base", languages=("en",))
    name = pod["metadata"]["name"]
    # Before the registry was read once, a ready pod's own word may open the gate.
    world.wait("a verdict on its keys", lambda: world.gate_reason(name) == "KeysMissing")
    assert world.gate(name) == "False"
    await world.register(pod, model="base")
    world.wait("an open gate", lambda: world.gate(name) == "True")


async def test_a_ready_resource_says_so_by_kubectl_s_own_means(
    operator: RunningOperator, world: World
) -> None:
    """The rest of the kubelet's rule: Ready once containers and gate are."""
    world.apply("speech")
    (pod,) = pods(world, 1)
    world.run_container(pod)
    await world.register(pod)
    name = pod["metadata"]["name"]
    world.wait("an open gate", lambda: world.gate(name) == "True")
    body = world.control_plane.request("GET", f"{world.pods_path}/{name}")
    conditions = [c for c in body["status"]["conditions"] if c["type"] != "Ready"]
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    world.control_plane.request(
        "PATCH", f"{world.pods_path}/{name}/status", {"status": {"conditions": [*conditions, ready]}}
    )
    world.wait("Ready", lambda: world.condition("speech", "Ready").get("status") == "True")
    assert world.condition("speech", "Stalled")["status"] == "False"


async def test_an_outage_of_redis_turns_no_warm_pod(
    control_plane: ControlPlane, namespace: str, own_valkey: Any, tmp_path: Path
) -> None:
    install_crd(control_plane)
    world = World(control_plane, namespace, own_valkey.url)
    kubeconfig = grant(control_plane, namespace)
    with running_operator(control_plane, kubeconfig, namespace, own_valkey.url, tmp_path):
        world.apply("speech")
        (pod,) = pods(world, 1)
        world.run_container(pod)
        await world.register(pod)
        world.wait("an open gate", lambda: world.gate(pod["metadata"]["name"]) == "True")
        own_valkey.kill()
        world.change("speech", replicas=2)
        _, born = sorted(
            pods(world, 2), key=lambda each: bool(each["metadata"]["uid"] != pod["metadata"]["uid"])
        )
        world.run_container(born)
        world.wait("the gate of a pod born meanwhile", lambda: world.gate(born["metadata"]["name"]) == "True")
        assert world.gate(pod["metadata"]["name"]) == "True"


async def test_what_others_change_of_ours_is_corrected_and_what_is_theirs_is_left(
    operator: RunningOperator, world: World
) -> None:
    world.apply("speech")
    pods(world, 1)
    (made,) = world.deployments()
    path = f"/apis/apps/v1/namespaces/{world.namespace}/deployments/{made['metadata']['name']}"
    world.control_plane.request(
        "PATCH", path, {"metadata": {"annotations": {"team": "voice"}}, "spec": {"replicas": 5}}
    )
    world.wait("our replicas", lambda: world.control_plane.request("GET", path)["spec"]["replicas"] == 1)
    assert world.control_plane.request("GET", path)["metadata"]["annotations"]["team"] == "voice"


async def test_scale_of_the_resource_is_scale_of_its_pods(operator: RunningOperator, world: World) -> None:
    world.apply("speech")
    pods(world, 1)
    world.control_plane.request("PATCH", f"{world.models}/speech/scale", {"spec": {"replicas": 3}})
    pods(world, 3)
    world.change("speech", replicas=0)
    pods(world, 0)
    world.wait("Ready", lambda: world.condition("speech", "Ready").get("reason") == "ScaledToZero")


async def test_a_deleted_resource_leaves_nothing(operator: RunningOperator, world: World) -> None:
    world.apply("speech")
    pods(world, 1)
    world.delete("speech")
    world.wait(
        "nothing",
        lambda: not (world.deployments() or world.services() or world.disruption_budgets() or world.pods()),
    )


async def test_a_resource_can_be_deleted_while_no_operator_runs(
    world: World, kubeconfig: Path, tmp_path: Path
) -> None:
    with running_operator(world.control_plane, kubeconfig, world.namespace, world.redis_url, tmp_path):
        world.apply("speech")
        pods(world, 1)
    world.delete("speech")
    world.wait("nothing", lambda: not (world.deployments() or world.pods()))
    with pytest.raises(Refused):
        world.status("speech")


async def test_a_name_that_an_older_resource_has_stalls_the_younger_until_it_is_free(
    operator: RunningOperator, world: World
) -> None:
    made = world.apply("first", aliases=["whisper-1"])
    pods(world, 1)  # its objects are not those of the second, whose stall may be told before they are made
    born = datetime.fromisoformat(made["metadata"]["creationTimestamp"])
    # The API server tells ages by the second; of two of the same one nobody is older.
    world.wait("the next second", lambda: datetime.now(UTC) - born > timedelta(seconds=1.1))
    world.apply("second", model="base", aliases=["whisper-1"])
    world.wait("a stall", lambda: world.condition("second", "Stalled").get("status") == "True")
    assert "whisper-1" in world.condition("second", "Stalled")["message"]
    assert [made["metadata"]["name"] for made in world.deployments()] == ["first"]
    world.delete("first")
    world.wait("the second's pods", lambda: world.condition("second", "Stalled").get("status") == "False")
    world.wait("its Deployment", lambda: {m["metadata"]["name"] for m in world.deployments()} == {"second"})


async def test_nothing_is_written_when_nothing_changed(
    world: World, kubeconfig: Path, tmp_path: Path
) -> None:
    """Resyncs every half second; of all versions none moves once the resource is settled."""
    with running_operator(
        world.control_plane,
        kubeconfig,
        world.namespace,
        world.redis_url,
        tmp_path,
        EVERWARM_OPERATOR_RESYNC_SECONDS="0.2",
    ) as operator:
        world.apply("speech")
        (pod,) = pods(world, 1)
        world.run_container(pod)
        await world.register(pod)
        world.wait("a warm replica", lambda: world.status("speech").get("warmReplicas") == 1)
        world.wait("its last write", lambda: _versions_stand(world, operator, looks=5))
        before = _versions(world)
        world.wait("ten more looks", lambda: _versions_stand(world, operator, looks=10))
        assert _versions(world) == before


def _versions(world: World) -> dict[str, str]:
    made = [
        *world.deployments(), *world.services(), *world.disruption_budgets(), *world.pods(), *world.items(world.models)
    ]  # fmt: skip
    return {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in made}


def _versions_stand(world: World, operator: RunningOperator, *, looks: int) -> bool:
    """Whether no version moves while the operator looks *looks* times."""
    before, target = _versions(world), operator.metric(LOOKS) + looks
    world.wait("looks", lambda: operator.metric(LOOKS) >= target)
    return _versions(world) == before


async def test_a_killed_operator_is_replaced_by_one_that_goes_on_from_what_there_is(
    world: World, kubeconfig: Path, tmp_path: Path
) -> None:
    with running_operator(
        world.control_plane, kubeconfig, world.namespace, world.redis_url, tmp_path
    ) as first:
        world.apply("speech")
        (pod,) = pods(world, 1)
        world.run_container(pod)
        await world.register(pod)
        world.wait("an open gate", lambda: world.gate(pod["metadata"]["name"]) == "True")
        first.kill()
    world.change("speech", replicas=2)
    second = start_operator(kubeconfig, world.namespace, world.redis_url, tmp_path)
    try:
        wait_until_ready(world.control_plane, second)
        pods(world, 2)
        assert world.gate(pod["metadata"]["name"]) == "True"
        world.wait("its status", lambda: world.status("speech").get("replicas") == 2)
    finally:
        assert second.stop() == 0


async def test_an_outage_of_the_api_server_is_outlived(operator: RunningOperator, world: World) -> None:
    world.apply("speech")
    pods(world, 1)
    world.control_plane.stop_apiserver()
    world.control_plane.start_apiserver()
    world.change("speech", replicas=2)
    pods(world, 2)


def test_metrics_tell_how_many_pods_are_desired_and_warm(operator: RunningOperator, world: World) -> None:
    world.apply("speech", replicas=2)
    world.wait("two desired", lambda: operator.metric("everwarm_pods_desired") == 2)
    assert operator.metric("everwarm_pods_warm") == 0


async def test_the_end_by_sigterm_is_an_end_with_0(operator: RunningOperator, world: World) -> None:
    world.apply("speech")
    pods(world, 1)
    told = time.monotonic()
    operator.process.send_signal(signal.SIGTERM)
    assert operator.process.wait(20) == 0
    assert time.monotonic() - told < KOPF_WAITS_S
    last = operator.log.read_text().strip().splitlines()[-1]
    assert json.loads(last)["event"] == "operator.ended"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"EVERWARM_REDIS_URL": ""}, "EVERWARM_REDIS_URL: say where the registry is"),
        ({"EVERWARM_OPERATOR_VALKEY_ADDRESS": "valkey:6379"}, "EVERWARM_OPERATOR_PLATFORM_SECRET: "),
        ({"EVERWARM_OPERATOR_PLATFORM_SECRET": "platform"}, "EVERWARM_OPERATOR_NAMESPACE: say where"),
        ({"EVERWARM_OPERATOR_WORKERS": "none"}, "EVERWARM_OPERATOR_WORKERS: "),
    ],
    ids=["no registry", "Valkey without Secret", "Secret without namespace", "no number"],
)
def test_an_operator_with_wrong_settings_names_the_variable(
    tmp_path: Path, redis_url: str, variables: dict[str, str], words: str
) -> None:
    operator = start_operator(tmp_path / "no-kubeconfig", "speech", redis_url, tmp_path, **variables)
    assert operator.ended() == 1
    assert words in operator.log.read_text().splitlines()[-1]


def test_an_operator_without_a_cluster_says_what_to_do(tmp_path: Path, redis_url: str) -> None:
    nowhere = tmp_path / "kubeconfig"
    operator = start_operator(nowhere, "default", redis_url, tmp_path)
    assert operator.ended() == 1
    assert "KUBECONFIG" in json.loads(operator.log.read_text().strip().splitlines()[-1])["reason"]


async def test_what_the_api_server_refuses_is_told_and_heals_when_it_is_repaired(
    operator: RunningOperator, world: World
) -> None:
    """A label key that is none passes the schema, which cannot look at keys."""
    world.apply("speech", template={"labels": {"not a key": "x"}})
    world.wait("a stall", lambda: world.condition("speech", "Stalled").get("reason") == "ObjectRefused")
    assert "not a key" in world.condition("speech", "Stalled")["message"]
    world.wait("an Event", lambda: world.events("ObjectRefused"))
    world.change("speech", template=None)
    world.wait("the end of the stall", lambda: world.condition("speech", "Stalled")["status"] == "False")
    pods(world, 1)


async def test_an_image_that_cannot_be_pulled_is_told_and_heals_when_it_can(
    operator: RunningOperator, world: World
) -> None:
    world.apply("speech", image="registry.example/stt:none")
    (pod,) = pods(world, 1)
    world.cannot_pull(pod, "manifest unknown")
    world.wait("a stall", lambda: world.condition("speech", "Stalled").get("reason") == "ImageNotPulled")
    message = world.condition("speech", "Stalled")["message"]
    assert "registry.example/stt:none" in message
    assert "manifest unknown" in message
    world.wait("an Event", lambda: world.events("ImageNotPulled"))
    world.run_container(pod)
    world.wait("the end of the stall", lambda: world.condition("speech", "Stalled")["status"] == "False")


async def test_a_stranger_s_object_of_the_same_name_is_not_taken_over(
    operator: RunningOperator, world: World
) -> None:
    service = {"metadata": {"name": "speech"}, "spec": {"ports": [{"name": "http", "port": 9}]}}
    path = f"/api/v1/namespaces/{world.namespace}/services"
    world.control_plane.request("POST", path, service)
    world.apply("speech")
    world.wait("a stall", lambda: world.condition("speech", "Stalled").get("reason") == "ObjectRefused")
    assert "speech" in world.condition("speech", "Stalled")["message"]
    (standing,) = world.services()
    assert "ownerReferences" not in standing["metadata"]


async def test_a_new_pod_s_turns_are_events(operator: RunningOperator, world: World) -> None:
    world.apply("speech")
    (pod,) = pods(world, 1)
    # Before the registry was read once, the pod would be warm by its own word, and never loading.
    world.wait("a look at the registry", lambda: world.gate_reason(pod["metadata"]["name"]) == "Unregistered")
    world.run_container(pod)
    await world.register(pod, state=PodState.LOADING, languages=())
    world.wait("loading", lambda: world.events("Loading"))
    await world.register(pod)
    world.wait("warm", lambda: world.events("Warm"))
    assert "warm in" in world.events("Warm")[0]["message"]
