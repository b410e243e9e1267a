"""Events: each turn of a pod and of a resource is told once."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.registry.records import Lease, PodState
from everwarm_operator.events import Event, EventType, Judged, Memory, pod_events, resource_events
from everwarm_operator.gate import Keys, RegistryHealth, judge
from everwarm_operator.observed import ObservedPod, Waiting
from tests.operator.worlds import (
    NOW,
    SECOND_CONTAINER,
    TRUSTED,
    UNREACHABLE,
    failed,
    lease,
    pod,
    resource,
    waiting_pod,
    warm_pod,
)

KEEPING = Memory(is_fresh=False)
CREATED = waiting_pod("ContainerCreating")
RESTARTED: dict[str, Any] = {"container_id": SECOND_CONTAINER, "terminated": failed("x"), "restart_count": 1}


def judged(of: ObservedPod, held: Lease | None = None, health: RegistryHealth = TRUSTED) -> Judged:
    """The pod with its verdict."""
    verdict = judge(of, held, health, keys=Keys(("base.en",), ("en",)), now=NOW.monotonic_s)
    is_warm = held is not None and held.pod.state is PodState.WARM
    return Judged(of, verdict, held.pod if held and is_warm else None)


def told(*steps: Judged, memory: Memory = KEEPING) -> list[str]:
    """`Reason: message` of the events of one pod's life."""
    texts: list[str] = []
    for each in steps:
        events, memory = pod_events([each], memory)
        texts += [f"{event.reason}: {event.message}" for event in events]
    return texts


# --- Pods ----------------------------------------------------------------------------------------------------------

LOADING = judged(pod(), lease(state=PodState.LOADING))
WARM = judged(warm_pod(), lease(load_s=1.5, warm_s=2.25))
DRAINING = judged(warm_pod(), lease(state=PodState.DRAINING))


def test_a_pods_life_is_told_in_turns() -> None:
    gone = judged(warm_pod(is_deleting=True), None)
    assert told(judged(CREATED), LOADING, LOADING, WARM, WARM, DRAINING, gone) == [
        "Loading: loading its weights",
        "Warm: warm in 3.8 s (load 1.5, proof 2.2)",
        "Draining: draining: finishing what it holds",
    ]


def test_a_failure_is_told_with_the_reason_of_its_last_line_and_then_the_next_try() -> None:
    words = failed(
        '{"event": "pod.failed", "reason": "weights of model \'x\': gone", "error": "WeightsUnavailable"}'
    )
    looping: dict[str, Any] = {
        "is_running": False,
        "waiting": Waiting("CrashLoopBackOff", ""),
        "terminated": words,
    }
    tries_again: dict[str, Any] = {**RESTARTED, "terminated": words}
    assert told(LOADING, judged(pod(**looping)), judged(pod(**tries_again)), judged(pod(**tries_again))) == [
        "Loading: loading its weights",
        "Failed: failed: weights of model 'x': gone",
        "Loading: loading its weights",
    ]


def test_a_restart_that_was_too_quick_to_be_seen_is_told_all_the_same() -> None:
    assert told(WARM, judged(warm_pod(**RESTARTED), lease()))[1:] == [
        "Failed: failed: exit code 1: x",
        "Loading: loading its weights",
    ]


def test_a_process_that_is_no_longer_warm_is_told_and_so_is_its_return() -> None:
    lapsed = judged(warm_pod(), None)
    lost, back = told(WARM, lapsed, lapsed, WARM)[1:]
    assert lost.startswith("NoLongerWarm: no longer warm: the registry does not hold this pod")
    assert back == "Warm: warm in 3.8 s (load 1.5, proof 2.2)"


def test_a_pod_that_became_warm_in_an_outage_is_told_without_its_seconds() -> None:
    assert told(judged(pod(are_containers_ready=True), None, UNREACHABLE)) == [
        "Warm: warm by its own word; the registry is out of reach"
    ]


def test_an_outage_is_no_turn_of_a_pod() -> None:
    assert told(WARM, judged(warm_pod(), None, UNREACHABLE), WARM)[1:] == []


def test_failures_are_warnings() -> None:
    events, _ = pod_events([judged(pod(**RESTARTED))], KEEPING)
    assert [event.type for event in events] == [EventType.WARNING, EventType.NORMAL]


def test_events_of_a_pod_name_it_by_uid() -> None:
    (event,), _ = pod_events([replace(LOADING, pod=pod("pod-x", uid="uid-x"))], KEEPING)
    assert (event.kind, event.name, event.uid) == ("Pod", "pod-x", "uid-x")


def test_a_new_operator_tells_nothing_of_the_pods_it_finds() -> None:
    assert told(WARM, WARM, memory=Memory()) == []
    assert told(judged(pod(**RESTARTED), None), memory=Memory()) == []


def test_a_new_operator_tells_what_it_changes_itself() -> None:
    assert told(judged(pod(), lease(load_s=1.0, warm_s=1.0)), memory=Memory()) == [
        "Warm: warm in 2.0 s (load 1.0, proof 1.0)"
    ]


def test_a_new_operator_tells_the_next_turn() -> None:
    assert told(WARM, DRAINING, memory=Memory()) == ["Draining: draining: finishing what it holds"]


def test_memory_forgets_pods_that_are_gone() -> None:
    _, memory = pod_events([WARM], KEEPING)
    _, memory = pod_events([], memory)
    assert memory.told == {}


STEPS = st.sampled_from(
    [
        judged(CREATED),
        LOADING,
        WARM,
        DRAINING,
        judged(warm_pod(), None),
        judged(warm_pod(**RESTARTED), lease()),
    ]
)


@given(st.lists(STEPS, max_size=6), st.booleans())
def test_what_was_told_is_not_told_again(steps: list[Judged], is_fresh: bool) -> None:  # noqa: FBT001 - drawn
    """The same world twice in a row makes no second event."""
    twice = [step for step in steps for _ in range(2)]
    memory = Memory(is_fresh=is_fresh)
    for number, step in enumerate(twice):
        events, memory = pod_events([step], memory)
        is_opening = step.verdict.is_open and not (step.pod.gate and step.pod.gate.is_open)
        assert number % 2 == 0 or not events or is_opening


# --- Resources -----------------------------------------------------------------------------------------------------


def conditions(ready: tuple[str, str], stalled: tuple[str, str]) -> dict[str, Any]:
    """A status with these conditions, each (status, reason)."""
    return {
        "conditions": [
            {"type": kind, "status": status, "reason": reason, "message": f"about {reason}"}
            for kind, (status, reason) in (("Ready", ready), ("Stalled", stalled))
        ]
    }


FINE = conditions(("True", "AllPodsWarm"), ("False", "NotStalled"))
WAITING = conditions(("False", "WaitingForWarmPods"), ("False", "NotStalled"))
UNPLACED = conditions(("False", "Unschedulable"), ("False", "NotStalled"))
STALLED = conditions(("False", "ImageNotPulled"), ("True", "ImageNotPulled"))
OTHERWISE = conditions(("False", "WeightsNotFound"), ("True", "WeightsNotFound"))
EMPTY = conditions(("True", "ScaledToZero"), ("False", "NotStalled"))


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        ({}, WAITING, []),
        ({}, FINE, [("Normal", "AllPodsWarm")]),
        (WAITING, FINE, [("Normal", "AllPodsWarm")]),
        (FINE, EMPTY, [("Normal", "ScaledToZero")]),
        (FINE, WAITING, [("Normal", "WaitingForWarmPods")]),
        (FINE, UNPLACED, [("Warning", "Unschedulable")]),
        (FINE, STALLED, [("Warning", "ImageNotPulled")]),
        (WAITING, STALLED, [("Warning", "ImageNotPulled")]),
        (STALLED, OTHERWISE, [("Warning", "WeightsNotFound")]),
        (STALLED, WAITING, [("Normal", "Recovered")]),
        (STALLED, FINE, [("Normal", "Recovered"), ("Normal", "AllPodsWarm")]),
        (FINE, FINE, []),
        (STALLED, STALLED, []),
    ],
)
def test_turns_of_a_resource_are_told(
    before: dict[str, Any], after: dict[str, Any], events: list[tuple[str, str]]
) -> None:
    found: list[Event] = list(resource_events(resource(status=before), after))
    assert [(event.type.value, event.reason) for event in found] == events
    assert all(
        (event.kind, event.name, event.uid) == ("WhisperModel", "base.en", "uid-resource") for event in found
    )
