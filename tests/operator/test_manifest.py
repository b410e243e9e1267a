"""When an object is applied, and when the cluster is left alone."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_operator.desired import desired_objects
from everwarm_operator.manifest import Manifest, digest, is_subset, needs_apply
from everwarm_operator.naming import APPLIED_ANNOTATION
from everwarm_operator.quantities import parse_quantity
from tests.operator.worlds import OWNER, PLATFORM, live, whisper_model

SERVICE, BUDGET, DEPLOYMENT = desired_objects(whisper_model(), owner=OWNER, platform=PLATFORM)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=10,
)


def body(manifest: Manifest = DEPLOYMENT) -> dict[str, Any]:
    """The live object."""
    return live(manifest)


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    """Its only container."""
    only = deployment["spec"]["template"]["spec"]["containers"][0]
    assert isinstance(only, dict)
    return only


def test_an_object_that_is_not_there_is_applied() -> None:
    assert needs_apply(DEPLOYMENT, None)


@pytest.mark.parametrize("manifest", [SERVICE, BUDGET, DEPLOYMENT], ids=lambda each: each.kind)
def test_an_object_that_stands_as_applied_is_left_alone(manifest: Manifest) -> None:
    """Whatever the API server has filled in."""
    assert not needs_apply(manifest, live(manifest))


def test_an_object_of_another_digest_is_applied() -> None:
    """So that fields which are no longer wanted go, too."""
    standing = body()
    standing["metadata"]["annotations"][APPLIED_ANNOTATION] = "another"
    assert needs_apply(DEPLOYMENT, standing)


def test_an_object_that_was_never_applied_by_us_is_applied() -> None:
    standing = body()
    del standing["metadata"]["annotations"]
    assert needs_apply(DEPLOYMENT, standing)


OURS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("replicas", lambda live: live["spec"].update(replicas=9)),
    ("image", lambda live: container(live).update(image="other")),
    ("a variable's value", lambda live: container(live)["env"][5].update(value="x")),
    ("a variable, removed", lambda live: container(live)["env"].pop(5)),
    ("the gate", lambda live: live["spec"]["template"]["spec"].pop("readinessGates")),
    ("a label", lambda live: live["metadata"]["labels"].pop("app.kubernetes.io/instance")),
    ("the owner", lambda live: live["metadata"].pop("ownerReferences")),
    ("memory", lambda live: container(live)["resources"]["limits"].update(memory="1Mi")),
    ("token of the cluster", lambda live: live["spec"]["template"]["spec"].pop("automountServiceAccountToken")),
]  # fmt: skip


@pytest.mark.parametrize("change", [change for _, change in OURS], ids=[name for name, _ in OURS])
def test_a_foreign_change_of_a_field_of_ours_is_corrected(change: Callable[[dict[str, Any]], object]) -> None:
    standing = body()
    change(standing)
    assert needs_apply(DEPLOYMENT, standing)


FOREIGN: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("an annotation", lambda live: live["metadata"]["annotations"].update({"kubectl.kubernetes.io/restartedAt": "now"})),
    ("a label", lambda live: live["metadata"]["labels"].update(team="speech")),
    ("a sidecar", lambda live: live["spec"]["template"]["spec"]["containers"].insert(0, {"name": "mesh"})),
    ("a variable", lambda live: container(live)["env"].insert(0, {"name": "INJECTED", "value": "1"})),
    ("a volume", lambda live: live["spec"]["template"]["spec"]["volumes"].append({"name": "certificates"})),
    ("a status", lambda live: live.update(status={"replicas": 3})),
]  # fmt: skip


@pytest.mark.parametrize("change", [change for _, change in FOREIGN], ids=[name for name, _ in FOREIGN])
def test_a_foreign_field_is_left_alone(change: Callable[[dict[str, Any]], object]) -> None:
    standing = body()
    change(standing)
    assert not needs_apply(DEPLOYMENT, standing)


def test_quantities_are_compared_by_value() -> None:
    standing = body()
    container(standing)["resources"] = {
        "requests": {"cpu": "1000m", "memory": "0.875Gi"},
        "limits": {"memory": "917504Ki"},
    }
    assert not needs_apply(DEPLOYMENT, standing)


def test_texts_that_are_no_quantities_are_compared_as_texts() -> None:
    assert not is_subset({"annotations": {"version": "1.0"}}, {"annotations": {"version": "1"}})


def test_what_is_empty_may_be_missing() -> None:
    """The API server leaves empty texts, lists and mappings out of its answers."""
    assert is_subset({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]})
    assert is_subset({"drop": [], "emptyDir": {}}, {})


def test_what_is_false_may_not_be_missing() -> None:
    """It would mean true: a token of the cluster in every pod, say."""
    assert not is_subset({"automountServiceAccountToken": False}, {})


def test_lists_that_are_not_merged_must_be_equal() -> None:
    assert not is_subset({"drop": ["ALL"]}, {"drop": ["ALL", "KILL"]})
    assert not is_subset({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]})


@pytest.mark.parametrize("given", [{"a": "x"}, ["x"], "x", 1, True])
def test_another_kind_of_value_is_a_change(given: object) -> None:
    others: list[object] = [{"a": "y"}, ["y"], "y", 2]
    assert not any(is_subset({"field": given}, {"field": other}) for other in others)


@given(JSON)
def test_everything_is_a_subset_of_itself(value: object) -> None:
    assert is_subset(value, value)


@given(st.dictionaries(st.sampled_from("abcd"), JSON), st.dictionaries(st.sampled_from("efgh"), JSON))
def test_what_others_add_beside_ours_never_matters(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert is_subset(ours, {**ours, **theirs})


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_manifest_carries_the_digest_of_what_it_is_made_of() -> None:
    made_of = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "b"}}
    manifest = Manifest.of(made_of)
    assert manifest.body["metadata"]["annotations"] == {APPLIED_ANNOTATION: digest(made_of)}
    assert manifest.digest == digest(made_of)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"), ("0.5", "0.5"), (2, "2"), ("1Gi", "1073741824"), ("1024Mi", "1073741824"), ("1e3", "1000"),
        ("1k", "1000"), ("1.5G", "1500000000"), ("2E", "2000000000000000000"), ("12e-1", "1.2"), (".5", "0.5"),
    ],
)  # fmt: skip
def test_quantity_is_read_as_the_number_it_means(text: object, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "--1", None, True, [], "1Mi5"])
def test_what_is_no_quantity_reads_as_none(text: object) -> None:
    assert parse_quantity(text) is None
