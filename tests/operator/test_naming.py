"""Names and labels that a resource's objects get."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.spec import MAX_RESOURCE_NAME
from everwarm_operator.naming import (
    COMPONENT_LABEL,
    INSTANCE_LABEL,
    MANAGED_BY_LABEL,
    NAME_LABEL,
    object_labels,
    object_name,
    selector,
    selector_labels,
)

RESOURCE_NAMES = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?)?", fullmatch=True
).filter(lambda name: len(name) <= MAX_RESOURCE_NAME)
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@given(RESOURCE_NAMES)
def test_object_name_is_a_dns_label_that_starts_with_a_letter(name: str) -> None:
    assert DNS_1035.fullmatch(object_name(name))


@given(RESOURCE_NAMES, RESOURCE_NAMES)
def test_two_resources_never_share_an_object_name(one: str, other: str) -> None:
    assert (object_name(one) == object_name(other)) == (one == other)


@given(RESOURCE_NAMES)
def test_a_resource_named_like_another_ones_objects_gets_a_name_of_its_own(name: str) -> None:
    bent = object_name(name)
    assert bent == name or object_name(bent) != bent


@pytest.mark.parametrize("name", ["base", "whisper-large", "a"])
def test_a_name_that_fits_is_kept(name: str) -> None:
    assert object_name(name) == name


@pytest.mark.parametrize("name", ["base.en", "1st", "a" * 64, "base-0123abcd"])
def test_a_name_that_does_not_fit_is_bent_and_gets_a_hash(name: str) -> None:
    assert re.fullmatch(r"[a-z][-a-z0-9]*-[0-9a-f]{8}", object_name(name))


def test_names_of_objects_never_change() -> None:
    """A Deployment under another name would be a second one."""
    assert object_name("base.en") == "base-en-06c9d22c"


def test_selector_labels_are_these_three_for_ever() -> None:
    assert selector_labels("base.en") == {
        "app.kubernetes.io/name": "everwarm-stt",
        "app.kubernetes.io/instance": "base-en-06c9d22c",
        "app.kubernetes.io/component": "stt",
    }


def test_who_manages_an_object_is_said_of_it_but_selects_nothing() -> None:
    assert MANAGED_BY_LABEL in object_labels("base")
    assert MANAGED_BY_LABEL not in selector_labels("base")


def test_selector_of_the_scale_subresource_is_one_string() -> None:
    assert selector("base") == f"{COMPONENT_LABEL}=stt,{INSTANCE_LABEL}=base,{NAME_LABEL}=everwarm-stt"
