"""Key names are a contract: programs that never import this one read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.registry.names import KeyNames
from tests.fixtures.records import languages, model_names


def test_keys_are_spelt_as_the_contract_says() -> None:
    keys = KeyNames("local")
    assert keys.pods == "everwarm:{local}:pods"
    assert keys.epoch == "everwarm:{local}:epoch"
    assert keys.changes == "everwarm:{local}:changes"
    assert keys.pod("a-1") == "everwarm:{local}:pod:a-1"
    assert keys.warm("base.en", "en") == "everwarm:{local}:warm:base.en:en"
    assert keys.pods_of("base.en") == "everwarm:{local}:pods:base.en"
    assert keys.wanted("base.en") == "everwarm:{local}:wanted:base.en"


@pytest.mark.parametrize(
    "namespace", ["", "a b", "{a}", "a}b", "a:b", "-a", "a-", "ä", "a\n", "*", "a" * 254], ids=repr
)
def test_namespace_is_refused_when_it_could_move_or_match_other_keys(namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        KeyNames(namespace)


@pytest.mark.parametrize("namespace", ["local", "a", "Team_1.dev-x", "a" * 253])
def test_namespace_is_accepted_when_it_is_a_plain_name(namespace: str) -> None:
    assert KeyNames(namespace).pods == f"everwarm:{{{namespace}}}:pods"


@given(st.tuples(model_names(), languages()), st.tuples(model_names(), languages()))
def test_keys_differ_when_names_or_languages_do(one: tuple[str, str], two: tuple[str, str]) -> None:
    keys = KeyNames("local")
    assert (keys.warm(*one) == keys.warm(*two)) == (one == two)
    assert (keys.pods_of(one[0]) == keys.pods_of(two[0])) == (one[0] == two[0])


@given(model_names(), languages())
def test_every_key_of_a_namespace_hashes_to_the_same_slot(name: str, language: str) -> None:
    keys = KeyNames("team-a")
    for key in (keys.pods, keys.pod(name), keys.warm(name, language), keys.pods_of(name), keys.wanted(name)):
        tag = key[key.index("{") + 1 : key.index("}")]  # the part a Cluster hashes
        assert tag == "team-a"
