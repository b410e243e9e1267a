"""The Role that ships: with it everything works (the other tests run with it), and without any verb of it something does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from everwarm_operator.access import CLUSTER_RULES, RULES, Rule, home_rules
from tests.cluster.control_plane import ControlPlane
from tests.operator.homes import DEPLOYMENT, NAME, settings_of
from tests.operator.running import World, grant, install_crd, start_operator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GRANTED = [(rule, verb) for rule in (*RULES, *CLUSTER_RULES) for verb in rule.verbs]


def without(rules: tuple[Rule, ...], rule: Rule, verb: str) -> tuple[Rule, ...]:
    """*rules* less *verb* of *rule*."""
    left = (
        replace(each, verbs=tuple(v for v in each.verbs if v != verb)) if each is rule else each
        for each in rules
    )
    return tuple(each for each in left if each.verbs)


HOME = home_rules(NAME, DEPLOYMENT)


@pytest.mark.parametrize(
    ("rule", "verb"),
    [(rule, verb) for rule in HOME for verb in rule.verbs],
    ids=[f"{verb} {rule.resource}" for rule in HOME for verb in rule.verbs],
)
def test_a_verb_that_is_missing_at_home_ends_the_operator_with_the_reason(
    control_plane: ControlPlane, home: str, redis_url: str, tmp_path: Path, rule: Rule, verb: str
) -> None:
    kubeconfig = grant(control_plane, home, rules=without((*RULES, *HOME), rule, verb))
    operator = start_operator(kubeconfig, home, redis_url, tmp_path, **settings_of(home))
    assert operator.ended() == 1
    last = operator.log.read_text().splitlines()[-1]
    assert "403 Forbidden" in last
    assert rule.resource in last


@pytest.mark.parametrize(("rule", "verb"), GRANTED, ids=[f"{verb} {rule.resource}" for rule, verb in GRANTED])
async def test_a_verb_that_is_missing_is_missed(
    control_plane: ControlPlane, namespace: str, redis_url: str, tmp_path: Path, rule: Rule, verb: str
) -> None:
    """The API server refuses a request of the operator, whose log says so."""
    install_crd(control_plane)
    world = World(control_plane, namespace, redis_url)
    kubeconfig = grant(
        control_plane,
        namespace,
        rules=without(RULES, rule, verb),
        cluster_rules=without(CLUSTER_RULES, rule, verb),
    )
    world.apply("speech")
    operator = start_operator(kubeconfig, namespace, redis_url, tmp_path)
    try:
        resource = rule.resource.partition("/")[0]

        def is_refused() -> bool:
            lines = operator.log.read_text().splitlines()
            return any("orbidden" in line and resource in line for line in lines)

        if rule.resource in ("pods/status", "events"):  # written once a pod is warm
            world.wait("a pod", world.pods)
            (pod,) = world.pods()
            world.run_container(pod)
            await world.register(pod)
        world.wait(f"refusal to {verb} {rule.resource}", is_refused)
    finally:
        operator.kill()
