"""What the operator exports: a trace of its own for each reconcile, linked to whoever applied the resource."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.running import World, grant, install_crd, running_operator
from tests.support.otlp import OtlpReceiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def traced(
    control_plane: ControlPlane, namespace: str, redis_url: str, tmp_path: Path
) -> Iterator[tuple[World, OtlpReceiver]]:
    """A world with a running operator, and where that exports to."""
    install_crd(control_plane)
    kubeconfig = grant(control_plane, namespace)
    with (
        OtlpReceiver() as receiver,
        running_operator(control_plane, kubeconfig, namespace, redis_url, tmp_path, **receiver.environment),
    ):
        yield World(control_plane, namespace, redis_url), receiver


def test_a_reconcile_is_a_trace_of_its_own_that_says_what_it_changed(
    traced: tuple[World, OtlpReceiver],
) -> None:
    world, receiver = traced
    applied = {"traceparent": TRACEPARENT}
    world.apply("speech", annotations=applied)
    spans = receiver.wait_for(lambda seen: any("Deployment/speech" in str(span.attributes) for span in seen))
    receiver.wait_for_metric("everwarm.reconcile.duration")
    metadata = world.control_plane.request("GET", f"{world.models}/speech")["metadata"]
    first = next(span for span in spans if "Deployment/speech" in str(span.attributes))
    assert (first.service, first.name, first.parent) == ("everwarm-operator", "everwarm.reconcile", "")
    assert first.trace != TRACE
    assert first.links == (TRACE,)
    assert first.attributes["everwarm.resource"] == f"{world.namespace}/speech"
    assert metadata["annotations"] == applied


async def test_the_reconcile_that_lets_a_pod_in_links_to_the_trace_of_its_start(
    traced: tuple[World, OtlpReceiver],
) -> None:
    world, receiver = traced
    world.apply("speech")
    world.wait("a pod", world.pods)
    (pod,) = world.pods()
    world.run_container(pod)
    await world.register(pod, traceparent=TRACEPARENT)
    receiver.wait_for(lambda seen: any(span.links == (TRACE,) for span in seen))
