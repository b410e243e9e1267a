"""Deleting the CRD and the operator, in any order, on a control plane that nobody else uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.cluster.fixtures import pytest_collection_finish
from tests.operator.running import CRDS, World, grant, install_crd, running_operator, start_operator

__all__ = ["pytest_collection_finish"]

NAME = "whispermodels.everwarm.dev"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane whose CRD may be deleted."""
    with running_control_plane(tmp_path_factory.mktemp("own") / "plane") as plane:
        yield plane


def test_deleting_the_crd_under_a_running_operator_leaves_nothing_and_the_next_kind_is_served(
    own_plane: ControlPlane, redis_url: str, tmp_path: Path
) -> None:
    install_crd(own_plane)
    own_plane.create_namespace("crd-first")
    world = World(own_plane, "crd-first", redis_url)
    kubeconfig = grant(own_plane, world.namespace)
    operator = start_operator(kubeconfig, world.namespace, redis_url, tmp_path)
    try:
        _declare_where_owners_are_watched(world)
        _delete_crd(own_plane)
        assert operator.ended() == 1
    finally:
        operator.kill()
    assert "its CRD was deleted" in operator.log.read_text().splitlines()[-1]
    world.wait("nothing left", lambda: _is_empty(world))

    operator = start_operator(kubeconfig, world.namespace, redis_url, tmp_path)  # as the kubelet would
    try:
        world.wait("a word about the CRD", lambda: "kind.awaited" in operator.log.read_text())
        assert not operator.is_ready()
        assert operator.stop() == 0

        operator = start_operator(kubeconfig, world.namespace, redis_url, tmp_path)
        install_crd(own_plane)
        world.wait("a resource of the new kind", lambda: world.apply("second"))
        world.wait("its pod", world.pods)
        assert {pod["metadata"]["labels"]["app.kubernetes.io/instance"] for pod in world.pods()} == {"second"}
    finally:
        operator.kill()


def test_deleting_the_operator_first_and_the_crd_then_leaves_nothing(
    own_plane: ControlPlane, redis_url: str, tmp_path: Path
) -> None:
    install_crd(own_plane)
    own_plane.create_namespace("operator-first")
    world = World(own_plane, "operator-first", redis_url)
    with running_operator(own_plane, grant(own_plane, world.namespace), world.namespace, redis_url, tmp_path):
        _declare_where_owners_are_watched(world)
    _delete_crd(own_plane)
    world.wait("nothing left", lambda: _is_empty(world))


def _declare_where_owners_are_watched(world: World) -> None:
    """Apply a resource and wait for its pod, once the garbage collector is seen to follow the kind.

    It looks for new kinds every 30 s; a kind that comes and goes in between never has its dependents deleted, whoever
    made them.
    """
    world.apply("watched")
    world.wait("its objects", lambda: not _is_empty(world))
    world.delete("watched")
    world.wait("its objects collected", lambda: _is_empty(world))
    world.apply("first")
    world.wait("its pod", world.pods)


def _delete_crd(plane: ControlPlane) -> None:
    plane.request("DELETE", f"{CRDS}/{NAME}")
    plane.wait_for("the CRD gone", lambda: NAME not in _crds(plane))


def _crds(plane: ControlPlane) -> set[str]:
    return {item["metadata"]["name"] for item in plane.request("GET", CRDS)["items"]}


def _is_empty(world: World) -> bool:
    return not (world.deployments() or world.services() or world.disruption_budgets() or world.pods())
