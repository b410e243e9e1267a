"""From what is observed to everything that is to be written, and to nothing when all is as it should be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import SpecError
from everwarm_core.registry.records import Lease, PodState
from everwarm_core.registry.view import GRACE_S
from everwarm_core.spec import WhisperModel
from everwarm_operator.crd import STATUS
from everwarm_operator.desired import Platform, object_keys
from everwarm_operator.events import Memory
from everwarm_operator.gate import Registry, RegistryHealth
from everwarm_operator.observed import ObservedPod, Waiting
from everwarm_operator.reconcile import Instant, Observed, Outcome, Rival, merge_patch, reconcile, reject
from tests.operator.worlds import (
    FIRST_CONTAINER,
    JUST_BACK,
    NOW,
    PLATFORM,
    SECOND_CONTAINER,
    TRUSTED,
    UNREACHABLE,
    after,
    closed_gate,
    failed,
    lease,
    live_objects,
    open_gate,
    pod,
    registry,
    resource,
    waiting_pod,
    warm_pod,
    whisper_model,
)

MODEL = whisper_model()
DEPLOYMENT = ("Deployment", "base-en-06c9d22c")


def outcome_of(
    observed: Observed,
    *leases: Lease,
    model: WhisperModel = MODEL,
    health: RegistryHealth = TRUSTED,
    platform: Platform = PLATFORM,
    now: Instant = NOW,
) -> Outcome:
    """What is to be written."""
    return reconcile(model, observed, platform, registry(*leases, health=health), now)


def settled(*pods: ObservedPod, model: WhisperModel = MODEL, **changes: Any) -> Observed:
    """A world in which the objects stand and these pods are there."""
    return Observed(resource(), live_objects(model, **changes), pods, memory=Memory(is_fresh=False))


def condition(outcome: Outcome, kind: str) -> tuple[str, str]:
    """Status and reason of a condition to be written."""
    assert outcome.status is not None
    found = next(each for each in outcome.status["conditions"] if each["type"] == kind)
    return found["status"], found["reason"]


# --- Objects -------------------------------------------------------------------------------------------------------


def test_a_new_resource_gets_all_its_objects_and_a_status() -> None:
    outcome = outcome_of(Observed(resource()))
    assert [each.key for each in outcome.apply] == list(object_keys("base.en"))
    assert condition(outcome, "Ready") == ("False", "WaitingForWarmPods")
    assert condition(outcome, "Reconciling") == ("True", "RollingOut")


def test_only_the_object_that_differs_is_applied() -> None:
    observed = settled()
    observed.objects[DEPLOYMENT]["spec"]["replicas"] = 9
    assert [each.key for each in outcome_of(observed).apply] == [DEPLOYMENT]


def test_an_object_that_was_deleted_is_made_again() -> None:
    observed = settled()
    objects = {key: body for key, body in observed.objects.items() if key != DEPLOYMENT}
    assert [each.key for each in outcome_of(replace(observed, objects=objects)).apply] == [DEPLOYMENT]


def test_another_image_of_the_installation_reaches_pods_that_name_none() -> None:
    newer = replace(PLATFORM, image="everwarm/stt:2.0.0")
    assert [each.key for each in outcome_of(settled(), platform=newer).apply] == [DEPLOYMENT]


# --- Gates and counts ----------------------------------------------------------------------------------------------


def test_a_pod_that_becomes_warm_gets_its_gate_opened_and_counted() -> None:
    outcome = outcome_of(settled(pod(are_containers_ready=True)), lease(load_s=1.0, warm_s=2.0))
    (patch,) = outcome.gates
    assert patch.condition["status"] == "True"
    assert outcome.status is not None
    assert outcome.status["warmReplicas"] == 1
    assert outcome.status["readyReplicas"] == 0, "that is the kubelet's word, which comes after ours"
    assert (outcome.status["loadSeconds"], outcome.status["warmSeconds"]) == (1.0, 2.0)


def test_a_resource_is_ready_once_its_pods_are_warm_and_ready() -> None:
    assert condition(outcome_of(settled(warm_pod()), lease()), "Ready") == ("True", "AllPodsWarm")


def test_pods_on_their_way_out_are_not_counted() -> None:
    pods = (warm_pod(), warm_pod("pod-b", is_deleting=True), pod("pod-c", phase="Failed"))
    outcome = outcome_of(settled(*pods), lease(), lease("pod-b"))
    assert outcome.status is not None
    assert [outcome.status[name] for name in ("replicas", "readyReplicas", "warmReplicas")] == [1, 1, 1]


def test_gates_are_written_only_where_they_change() -> None:
    pods = (warm_pod(), pod("pod-b"))
    assert [patch.pod_name for patch in outcome_of(settled(*pods), lease(), lease("pod-b")).gates] == [
        "pod-b"
    ]


def test_pods_of_the_last_generation_stay_open_while_a_new_language_is_rolled_out() -> None:
    newer = whisper_model(model="base", languages=["en", "de"])
    older = whisper_model(model="base", languages=["en"])
    old = warm_pod(model=older)
    outcome = outcome_of(settled(old, model=older), lease(names=("base", "base.en")), model=newer)
    assert outcome.gates == ()
    assert [each.key for each in outcome.apply if each.kind == "Deployment"] == [DEPLOYMENT]


def test_an_outage_of_the_registry_changes_nothing_that_is_warm() -> None:
    observed = settled(warm_pod())
    calm = after(observed, outcome_of(observed, lease()))
    assert outcome_of(calm, health=UNREACHABLE).writes == 0


def test_seconds_told_are_the_longest_among_the_warm_pods() -> None:
    pods = (warm_pod(), warm_pod("pod-b"), pod("pod-c"))
    leases = (lease(load_s=1.0), lease("pod-b", load_s=2.0), lease("pod-c", load_s=9.0, languages=()))
    outcome = outcome_of(settled(*pods), *leases)
    assert outcome.status is not None
    assert outcome.status["loadSeconds"] == 2.0


@pytest.mark.parametrize(
    "outcome", [outcome_of(Observed(resource())), outcome_of(settled(warm_pod()), lease())]
)
def test_status_is_one_that_the_definition_admits(outcome: Outcome) -> None:
    jsonschema.Draft202012Validator(dict(STATUS)).validate(outcome.status)
    assert set(outcome.status or {}) <= set(STATUS["properties"]), (
        "the API server would drop the rest, at each write"
    )


# --- Problems ------------------------------------------------------------------------------------------------------


def test_a_missing_image_stalls_and_heals() -> None:
    observed = settled(waiting_pod("ImagePullBackOff", "not found"))
    outcome = outcome_of(observed)
    assert condition(outcome, "Stalled") == ("True", "ImageNotPulled")
    assert "ImageNotPulled" in [event.reason for event in outcome.events]
    repaired = replace(after(observed, outcome), pods=(warm_pod(),))
    healed = outcome_of(repaired, lease())
    assert condition(healed, "Stalled") == ("False", "NotStalled")
    assert condition(healed, "Ready") == ("True", "AllPodsWarm")


def test_a_repair_is_not_stalled_by_the_pods_it_replaces() -> None:
    observed = settled(waiting_pod("ImagePullBackOff", "not found"))
    repaired = outcome_of(observed, model=whisper_model(image="everwarm/stt:right"))
    assert condition(repaired, "Stalled") == ("False", "NotStalled")
    assert condition(repaired, "Reconciling") == ("True", "RollingOut")


def test_conditions_of_a_deployment_count_once_they_are_of_its_newest_generation() -> None:
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota: x",
    }
    assert condition(outcome_of(settled(conditions=[failure])), "Stalled") == ("True", "QuotaExceeded")
    unseen = settled(conditions=[failure], observedGeneration=0)
    assert condition(outcome_of(unseen), "Stalled") == ("False", "NotStalled")


def test_a_resource_whose_name_is_taken_is_not_applied() -> None:
    """Pods of two models would answer to one name."""
    older = resource(name="a", uid="uid-a", created_at=datetime(2026, 11, 25, 10, 0, 0, tzinfo=UTC))
    rival = Rival(whisper_model("a", aliases=["base.en"]), older)
    outcome = outcome_of(Observed(resource(), rivals=(rival,)))
    assert outcome.apply == ()
    assert condition(outcome, "Stalled") == ("True", "NameTaken")
    assert outcome_of(Observed(resource())).apply != (), "and it heals once the name is free"


def test_objects_of_somebody_else_are_not_touched() -> None:
    observed = settled()
    observed.objects[DEPLOYMENT]["metadata"].update(ownerReferences=[], annotations={})
    outcome = outcome_of(observed)
    assert outcome.apply == ()
    assert condition(outcome, "Stalled") == ("True", "ObjectNotOurs")


def test_a_spec_that_means_nothing_is_said_and_what_stands_is_left() -> None:
    error = SpecError("base.en", (("spec.languages", "each at most once"),))
    outcome = reject(error, Observed(resource(), live_objects(MODEL), (warm_pod(),)), registry(lease()), NOW)
    assert (outcome.apply, outcome.gates) == ((), ())
    assert condition(outcome, "Stalled") == ("True", "InvalidSpec")
    assert outcome.status is not None
    assert outcome.status["warmReplicas"] == 1
    assert [event.reason for event in outcome.events] == ["InvalidSpec"]


def test_pods_of_a_spec_that_means_nothing_are_judged_by_what_they_were_made_for() -> None:
    error = SpecError("base.en", (("spec.languages", "each at most once"),))
    observed = Observed(resource(), pods=(warm_pod(container_id=SECOND_CONTAINER),))
    (patch,) = reject(error, observed, registry(lease(boot="boot-2")), NOW).gates
    assert patch.verdict.is_open


def test_a_spec_that_means_nothing_is_said_once() -> None:
    error = SpecError("base.en", (("spec.languages", "each at most once"),))
    observed = Observed(resource(), pods=(pod(),))
    first = reject(error, observed, registry(lease()), NOW)
    assert reject(error, after(observed, first), registry(lease()), NOW).writes == 0


# --- When to look again --------------------------------------------------------------------------------------------


def test_a_registry_that_is_just_back_is_looked_at_again_once_it_can_be_trusted() -> None:
    after_s = outcome_of(settled(warm_pod()), health=JUST_BACK).recheck_after_s
    assert after_s is not None
    later = Instant(NOW.wall, NOW.monotonic_s + after_s)
    (patch,) = outcome_of(settled(warm_pod()), health=JUST_BACK, now=later).gates
    assert patch.condition["reason"] == "Unregistered"
    assert after_s < GRACE_S


@pytest.mark.parametrize("health", [TRUSTED, UNREACHABLE])
def test_otherwise_only_news_can_change_anything(health: RegistryHealth) -> None:
    assert outcome_of(settled(warm_pod()), lease(), health=health).recheck_after_s is None


# --- Nothing to do -------------------------------------------------------------------------------------------------


def test_what_a_status_no_longer_has_is_removed_by_its_patch() -> None:
    assert merge_patch({"old": 1, "same": 2}, {"same": 2}) == {"old": None, "same": 2}
    assert merge_patch({"same": 2}, {"same": 2}) is None


SPECS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "replicas": st.integers(0, 3),
        "aliases": st.sampled_from([[], ["whisper-1"]]),
        "languages": st.sampled_from([["en"], ["en", "auto"]]),
        "device": st.sampled_from(["cpu", "cuda"]),
    }
)
PODS = st.lists(
    st.builds(
        pod,
        st.sampled_from(["pod-a", "pod-b", "pod-c"]),
        gate=st.sampled_from([None, open_gate(), closed_gate()]),
        container_id=st.sampled_from(["", FIRST_CONTAINER, SECOND_CONTAINER]),
        is_running=st.booleans(),
        waiting=st.sampled_from([None, Waiting("CrashLoopBackOff", "x"), Waiting("ErrImagePull", "y")]),
        terminated=st.sampled_from([None, failed("x"), failed(exit_code=0)]),
        restart_count=st.integers(0, 3),
        is_ready=st.booleans(),
        are_containers_ready=st.booleans(),
        is_deleting=st.booleans(),
        phase=st.sampled_from(["Pending", "Running", "Failed"]),
        unschedulable=st.sampled_from([None, "no node"]),
    ),
    max_size=3,
    unique_by=lambda each: each.uid,
).map(tuple)
LEASES = st.lists(
    st.builds(
        lease,
        st.sampled_from(["pod-a", "pod-b", "pod-c"]),
        state=st.sampled_from(PodState),
        names=st.sampled_from([("base.en",), ("base.en", "whisper-1")]),
        languages=st.sampled_from([(), ("en",), ("en", "auto")]),
        carried=st.booleans(),
    ),
    max_size=3,
)
HEALTHS = st.sampled_from([TRUSTED, JUST_BACK, UNREACHABLE, RegistryHealth.never_reached()])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[WhisperModel, Observed, Registry]:
    """Any resource in any state of its pods, objects and registry."""
    model = whisper_model(**draw(SPECS))
    objects = draw(
        st.sampled_from([{}, live_objects(model), live_objects(model, replicas=9), live_objects(MODEL)])
    )
    observed = Observed(resource(), objects, draw(PODS), memory=Memory(is_fresh=draw(st.booleans())))
    return model, observed, registry(*draw(LEASES), health=draw(HEALTHS))


@given(worlds())
def test_nothing_is_written_once_everything_has_been_written(
    world: tuple[WhisperModel, Observed, Registry],
) -> None:
    """The second look may still count what the first has applied; the third finds nothing, at any later time."""
    model, observed, held = world
    for seconds in (0, 1):
        now = Instant(NOW.wall + timedelta(seconds=seconds), NOW.monotonic_s)
        outcome = reconcile(model, observed, PLATFORM, held, now)
        observed = after(observed, outcome)
    later = Instant(NOW.wall + timedelta(hours=1), NOW.monotonic_s)
    last = reconcile(model, observed, PLATFORM, held, later)
    assert (last.apply, last.gates, last.status, last.events) == ((), (), None, ())


@given(worlds())
def test_the_same_world_makes_the_same_outcome(world: tuple[WhisperModel, Observed, Registry]) -> None:
    model, observed, held = world
    shuffled = replace(observed, pods=tuple(reversed(observed.pods)))
    one, other = (reconcile(model, each, PLATFORM, held, NOW) for each in (observed, shuffled))
    assert one.status == other.status
    assert set(one.gates) == set(other.gates)


@given(worlds())
def test_every_status_is_one_that_tools_can_read(world: tuple[WhisperModel, Observed, Registry]) -> None:
    """kstatus: never Stalled and Reconciling at once, never settled and not Ready."""
    model, observed, held = world
    status = reconcile(model, observed, PLATFORM, held, NOW).status
    assert status is not None
    states = {each["type"]: each["status"] for each in status["conditions"]}
    assert states.keys() == {"Ready", "Reconciling", "Stalled"}
    assert (states["Stalled"], states["Reconciling"]) != ("True", "True")
    assert states["Ready"] == "True" or "True" in (states["Stalled"], states["Reconciling"])
    assert 0 <= status["warmReplicas"] <= status["replicas"]
    assert status["observedGeneration"] == 1


@given(worlds())
def test_replicas_are_never_anything_but_the_resources(
    world: tuple[WhisperModel, Observed, Registry],
) -> None:
    model, observed, held = world
    for each in reconcile(model, observed, PLATFORM, held, NOW).apply:
        if each.kind == "Deployment":
            assert each.body["spec"]["replicas"] == model.spec.replicas
