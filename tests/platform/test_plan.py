"""From resources to pods: how many, with how much CPU, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm.platform.plan import default_resources, plan
from everwarm_core.errors import SpecError
from everwarm_core.spec import WhisperModel


def resource(name: str = "speech", **spec: object) -> WhisperModel:
    return WhisperModel.from_document(
        {"metadata": {"name": name}, "spec": {"model": "tiny.en", **spec}}, source="test"
    )


def test_plan_serves_tiny_en_from_one_pod_when_no_resource_is_given() -> None:
    (pod,) = plan(default_resources(), cpus=8)
    assert (pod.name, pod.resource.spec.model, pod.cpus) == ("tiny.en-0", "tiny.en", 8)


def test_plan_makes_as_many_pods_as_replicas_with_unique_names() -> None:
    pods = plan([resource("a", replicas=2), resource("b", replicas=3)], cpus=4)
    assert [pod.name for pod in pods] == ["a-0", "a-1", "b-0", "b-1", "b-2"]


def test_plan_makes_no_pod_for_zero_replicas() -> None:
    assert plan([resource(replicas=0)], cpus=4) == ()


@given(cpus=st.floats(0.5, 512), replicas=st.integers(1, 64))
def test_plan_shares_the_cpus_and_gives_every_pod_at_least_one(cpus: float, replicas: int) -> None:
    shares = [pod.cpus for pod in plan([resource(replicas=replicas)], cpus=cpus)]
    assert min(shares) >= 1
    assert sum(shares) <= max(cpus, replicas) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"persistentVolumeClaim": {"claimName": "models"}}, "spec.source.persistentVolumeClaim"),
        ({"image": {"reference": "models:1"}}, "spec.source.image"),
        ({"hub": {"tokenSecret": {"name": "hub"}}}, "spec.source.hub.tokenSecret"),
    ],
)
def test_plan_refuses_what_only_kubernetes_has_and_names_the_field(
    source: dict[str, object], path: str
) -> None:
    with pytest.raises(SpecError) as refused:
        plan([resource(source=source)], cpus=2)
    assert [problem[0] for problem in refused.value.problems] == [path]


def test_plan_refuses_two_resources_with_one_name() -> None:
    with pytest.raises(SpecError, match="claimed"):
        plan([resource("a"), resource("b", aliases=["a"])], cpus=2)
