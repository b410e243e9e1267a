"""When a pod's readiness gate is open: the registry's word, and what holds while the registry has none."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.registry.records import Lease, PodState, Snapshot
from everwarm_core.registry.view import GRACE_S
from everwarm_operator.gate import (
    UNKNOWN,
    GateReason,
    Grant,
    Keys,
    Registry,
    RegistryHealth,
    Verdict,
    gate_patch,
    judge,
)
from everwarm_operator.observed import Gate, ObservedPod, Waiting
from tests.operator.worlds import (
    FIRST_CONTAINER,
    FIRST_GRANT,
    JUST_BACK,
    NOW,
    SECOND_CONTAINER,
    TRUSTED,
    UNREACHABLE,
    closed_gate,
    lease,
    open_gate,
    pod,
    warm_pod,
)

KEYS = Keys(("base.en",), ("en",))


def verdict(
    of: ObservedPod, held: Lease | None = None, health: RegistryHealth = TRUSTED, now: float = NOW.monotonic_s
) -> Verdict:
    """The verdict on a pod for which the registry holds *held*."""
    return judge(of, held, health, keys=KEYS, now=now)


def as_written(before: ObservedPod, given: Verdict) -> ObservedPod:
    """The pod once its gate says *given*."""
    patch = gate_patch(before, given, now=NOW.wall)
    if patch is None:
        return before
    return replace(before, gate=Gate(given.is_open, str(given.reason), given.message, patch.since))


# --- The rules, one by one -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A pod, what the registry holds of it, and what its gate should say."""

    title: str
    pod: ObservedPod
    lease: Lease | None
    health: RegistryHealth
    is_open: bool
    reason: GateReason


MOVED: dict[str, Any] = {"container_id": SECOND_CONTAINER}
READY: dict[str, Any] = {"is_ready": True, "are_containers_ready": True}

CASES = [
    # The registry can be trusted: its word, and nothing else.
    Case("held warm for every key", pod(), lease(), TRUSTED, True, GateReason.WARM),
    Case("held warm for more than its keys", pod(), lease(names=("base.en", "x"), languages=("en", "de")), TRUSTED, True, GateReason.WARM),
    Case("not held for one of its names", pod(names=("base.en", "whisper-1")), lease(), TRUSTED, False, GateReason.KEYS_MISSING),
    Case("not held for one of its languages", pod(languages=("en", "auto")), lease(), TRUSTED, False, GateReason.KEYS_MISSING),
    Case("held as loading", pod(), lease(state=PodState.LOADING), TRUSTED, False, GateReason.LOADING),
    Case("held as warming", pod(), lease(state=PodState.WARMING), TRUSTED, False, GateReason.WARMING),
    Case("held as draining", warm_pod(), lease(state=PodState.DRAINING), TRUSTED, False, GateReason.DRAINING),
    Case("held as failed", warm_pod(), lease(state=PodState.FAILED), TRUSTED, False, GateReason.FAILED),
    Case("not held", warm_pod(), None, TRUSTED, False, GateReason.UNREGISTERED),
    Case("not held, never judged", pod(), None, TRUSTED, False, GateReason.UNREGISTERED),
    Case("its lease has expired", warm_pod(), lease(expires_at=NOW.monotonic_s), TRUSTED, False, GateReason.UNREGISTERED),
    Case("held warm, container stopped", warm_pod(is_running=False, waiting=Waiting("CrashLoopBackOff", "")), lease(), TRUSTED, False, GateReason.NOT_RUNNING),
    Case("held warm, nothing said of its container", pod(is_running=False, container_id=""), lease(), TRUSTED, True, GateReason.WARM),
    # A container was restarted.
    Case("another container, same boot", warm_pod(**MOVED), lease(), TRUSTED, False, GateReason.RESTARTED),
    Case("another container, not held", warm_pod(**MOVED), None, TRUSTED, False, GateReason.RESTARTED),
    Case("another container, another boot", warm_pod(**MOVED), lease(boot="boot-2"), TRUSTED, True, GateReason.WARM),
    Case("another container, another boot, loading", warm_pod(**MOVED), lease(boot="boot-2", state=PodState.LOADING), TRUSTED, False, GateReason.LOADING),
    Case("closed for a restart, same boot", pod(gate=closed_gate(f"x (last warm: {FIRST_GRANT})"), **MOVED), lease(), TRUSTED, False, GateReason.RESTARTED),
    Case("same container, another boot", warm_pod(), lease(boot="boot-2"), TRUSTED, True, GateReason.WARM),
    # The registry is out of reach.
    Case("outage: open stays open", warm_pod(), None, UNREACHABLE, True, GateReason.WARM),
    Case("outage: open stays open although unready", warm_pod(are_containers_ready=False), None, UNREACHABLE, True, GateReason.WARM),
    Case("outage: open stays open, last seen warm", warm_pod(), lease(expires_at=0), UNREACHABLE, True, GateReason.WARM),
    Case("outage: its own last word counts", warm_pod(), lease(state=PodState.DRAINING), UNREACHABLE, False, GateReason.DRAINING),
    Case("outage: a pod born in it that is ready", pod(**READY), None, UNREACHABLE, True, GateReason.CONTAINERS_READY),
    Case("outage: a pod born in it that is not ready", pod(), None, UNREACHABLE, False, GateReason.REGISTRY_UNREACHABLE),
    Case("outage: a pod that was loading is ready", pod(gate=closed_gate(), **READY), lease(state=PodState.LOADING), UNREACHABLE, True, GateReason.CONTAINERS_READY),
    Case("outage: a pod that was loading is not ready", pod(gate=closed_gate()), None, UNREACHABLE, False, GateReason.LOADING),
    Case("outage: restarted in it, not ready", warm_pod(are_containers_ready=False, **MOVED), None, UNREACHABLE, False, GateReason.RESTARTED),
    Case("outage: restarted in it, ready again", warm_pod(**MOVED), lease(), UNREACHABLE, True, GateReason.CONTAINERS_READY),
    Case("outage: closed, and on its way out", pod(gate=closed_gate(), is_deleting=True, **READY), None, UNREACHABLE, False, GateReason.LOADING),
    Case("never reached: open stays open", warm_pod(), None, RegistryHealth.never_reached(), True, GateReason.WARM),
    Case("never reached: a ready pod", pod(**READY), None, RegistryHealth.never_reached(), True, GateReason.CONTAINERS_READY),
    # The registry is back, for less than TTL + 2 s, or without its data.
    Case("just back: open stays open", warm_pod(), None, JUST_BACK, True, GateReason.WARM),
    Case("just back: closed stays closed", pod(gate=closed_gate(), **READY), None, JUST_BACK, False, GateReason.LOADING),
    Case("just back: a new pod waits", pod(**READY), None, JUST_BACK, False, GateReason.UNREGISTERED),
    Case("just back: who is there is judged", warm_pod(), lease(state=PodState.LOADING), JUST_BACK, False, GateReason.LOADING),
    Case("just back: who is there without a key", warm_pod(languages=("en", "de")), lease(), JUST_BACK, False, GateReason.KEYS_MISSING),
    Case("just back: restarted meanwhile", warm_pod(**MOVED), None, JUST_BACK, False, GateReason.RESTARTED),
    Case("came back empty: awaited pods stay open", warm_pod(), lease(carried=True), TRUSTED, True, GateReason.WARM),
    Case("came back empty: awaited for too long", warm_pod(), lease(carried=True, expires_at=0), TRUSTED, False, GateReason.UNREGISTERED),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_gate_follows_the_rules(case: Case) -> None:
    given = verdict(case.pod, case.lease, case.health)
    assert (given.is_open, given.reason) == (case.is_open, case.reason)


def test_a_pod_is_judged_by_the_keys_it_was_made_for() -> None:
    """A spec that asks for one more language must not close the gates of the pods it is to replace."""
    newer = Keys(("base.en",), ("en", "de"))
    assert judge(pod(), lease(), TRUSTED, keys=newer, now=NOW.monotonic_s).is_open
    assert not judge(pod(names=(), languages=()), lease(), TRUSTED, keys=newer, now=NOW.monotonic_s).is_open


def test_keys_that_are_missing_are_named() -> None:
    given = verdict(pod(names=("base.en", "whisper-1"), languages=("en", "de")), lease())
    assert given.message == "not yet warm for whisper-1, de"


# --- What the gate remembers ---------------------------------------------------------------------------------------


def test_an_open_gate_says_which_process_was_warm_in_which_container() -> None:
    assert verdict(pod(), lease()).message == f"warm: {FIRST_GRANT}"


def test_a_restarted_pod_is_told_from_its_predecessor_by_a_new_operator() -> None:
    """All it has is what stands on the pod."""
    restarted = as_written(warm_pod(), verdict(warm_pod(**MOVED), lease()))
    restarted = replace(restarted, **MOVED)
    assert not verdict(restarted, lease()).is_open
    assert verdict(restarted, lease(boot="boot-2")).is_open


def test_a_draining_pod_that_comes_back_needs_a_new_boot() -> None:
    """The record outlives the closed gate."""
    drained = as_written(warm_pod(), verdict(warm_pod(), lease(state=PodState.DRAINING)))
    assert Grant.parse(drained.gate.message if drained.gate else "") == Grant("boot-a", "1" * 12)
    assert not verdict(replace(drained, **MOVED), lease()).is_open


def test_a_pod_opened_in_an_outage_is_recorded_anew_once_it_registers() -> None:
    born = as_written(pod(**READY), verdict(pod(**READY), None, UNREACHABLE))
    assert Grant.parse(born.gate.message if born.gate else "") == Grant(UNKNOWN, "1" * 12)
    assert verdict(born, None, JUST_BACK).is_open
    assert verdict(born, lease(), JUST_BACK).message == f"warm: {FIRST_GRANT}"


def test_a_boot_that_would_not_stand_in_a_message_is_shortened_and_still_told_apart() -> None:
    odd = verdict(pod(), lease(boot="x, container y"))
    grant = Grant.parse(odd.message)
    assert grant is not None
    assert grant.container == "1" * 12
    assert Grant.parse(verdict(pod(), lease(boot="x, container z")).message) != grant


@given(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True), st.from_regex(r"[0-9a-f]{12}", fullmatch=True))
def test_record_of_a_gate_is_read_back_as_written(boot: str, container: str) -> None:
    grant = Grant(boot, container)
    assert Grant.parse(f"not yet warm for de (last warm: {grant})") == grant


@pytest.mark.parametrize("message", ["", "loading its weights", "boot , container "])
def test_a_message_without_a_record_has_none(message: str) -> None:
    assert Grant.parse(message) is None


# --- What is written -----------------------------------------------------------------------------------------------


def test_nothing_is_written_where_the_gate_says_so_already() -> None:
    assert gate_patch(warm_pod(), verdict(warm_pod(), lease()), now=NOW.wall) is None


def test_a_condition_carries_the_time_of_its_turn() -> None:
    patch = gate_patch(pod(gate=closed_gate()), verdict(pod(), lease()), now=NOW.wall)
    assert patch is not None
    assert patch.condition == {
        "type": "everwarm.dev/warm",
        "status": "True",
        "reason": "Warm",
        "message": f"warm: {FIRST_GRANT}",
        "lastTransitionTime": "2026-11-25T12:00:00Z",
    }


def test_a_condition_that_only_changes_its_reason_keeps_its_time() -> None:
    loading = pod(gate=closed_gate())
    patch = gate_patch(loading, verdict(loading, lease(state=PodState.WARMING)), now=NOW.wall)
    assert patch is not None
    assert patch.since == "2026-11-25T11:30:00Z"


def test_a_pod_that_has_ended_is_not_written_to() -> None:
    evicted = pod(phase="Failed")
    assert gate_patch(evicted, verdict(evicted), now=NOW.wall) is None


def test_a_patch_names_the_pod_it_was_made_for() -> None:
    patch = gate_patch(pod(uid="uid-1"), verdict(pod(uid="uid-1"), None), now=NOW.wall)
    assert patch is not None
    assert patch.pod_uid == "uid-1"


# --- The registry's health -----------------------------------------------------------------------------------------


def test_registry_that_was_never_read_is_out_of_reach() -> None:
    assert not Registry.of(None, reached_since=None, now=0.0).health.is_reached


def test_registry_whose_snapshot_is_frozen_is_out_of_reach() -> None:
    frozen = Snapshot(taken_at=10.0, epoch="one", frozen=True)
    assert not Registry.of(frozen, reached_since=0.0, now=10.0).health.is_reached


def test_registry_that_was_not_read_for_a_while_is_out_of_reach() -> None:
    """A reader that was stuck says as little about the pods as an outage."""
    old = Snapshot(taken_at=10.0, epoch="one")
    assert Registry.of(old, reached_since=0.0, now=11.0).health.is_reached
    assert not Registry.of(old, reached_since=0.0, now=14.0).health.is_reached


def test_registry_is_trusted_once_it_has_been_back_for_ttl_and_two_seconds() -> None:
    health = RegistryHealth.reached(10.0)
    assert not health.is_trusted(10.0 + GRACE_S - 0.01)
    assert health.is_trusted(10.0 + GRACE_S)
    assert not UNREACHABLE.is_trusted(1e9)


# --- What holds in every world -------------------------------------------------------------------------------------

LANGUAGES = st.lists(st.sampled_from(["en", "de", "auto"]), min_size=1, unique=True).map(tuple)
CONTAINERS = st.sampled_from(["", FIRST_CONTAINER, SECOND_CONTAINER])
GATES = st.sampled_from(
    [
        None,
        open_gate(),
        closed_gate(),
        open_gate("warm by its own word: boot unknown, container " + "1" * 12, "ContainersReady"),
        closed_gate(f"its container was restarted (last warm: {FIRST_GRANT})", "Restarted"),
        closed_gate("", ""),
    ]
)
PODS = st.builds(
    pod,
    languages=LANGUAGES,
    gate=GATES,
    container_id=CONTAINERS,
    is_running=st.booleans(),
    waiting=st.sampled_from([None, Waiting("CrashLoopBackOff", "")]),
    are_containers_ready=st.booleans(),
    is_deleting=st.booleans(),
)
LEASES = st.none() | st.builds(
    lease,
    state=st.sampled_from(PodState),
    languages=LANGUAGES,
    boot=st.sampled_from(["boot-a", "boot-b"]),
    expires_at=st.sampled_from([0.0, NOW.monotonic_s + 5]),
    carried=st.booleans(),
)
HEALTHS = st.sampled_from([TRUSTED, JUST_BACK, UNREACHABLE, RegistryHealth.never_reached()])


@given(PODS, LEASES, HEALTHS)
def test_a_verdict_once_written_is_the_same_verdict_again(
    of: ObservedPod, held: Lease | None, health: RegistryHealth
) -> None:
    given_first = verdict(of, held, health)
    assert verdict(as_written(of, given_first), held, health) == given_first


@given(PODS, LEASES)
def test_a_gate_is_never_open_without_every_key_while_the_registry_is_trusted(
    of: ObservedPod, held: Lease | None
) -> None:
    is_awaited = held is not None and held.carried and held.expires_at > NOW.monotonic_s
    holds_all = (
        held is not None
        and held.expires_at > NOW.monotonic_s
        and held.pod.state is PodState.WARM
        and set(of.languages) <= set(held.pod.languages)
    )
    assert is_awaited or holds_all or not verdict(of, held).is_open


@given(PODS, LEASES, st.sampled_from([UNREACHABLE, RegistryHealth.never_reached()]))
def test_an_outage_never_closes_the_gate_of_a_process_that_was_warm(
    of: ObservedPod, held: Lease | None, health: RegistryHealth
) -> None:
    was_warm = of.gate is not None and of.gate.is_open
    is_same = of.container_id in ("", FIRST_CONTAINER)
    has_said_goodbye = held is not None and held.pod.state in (PodState.DRAINING, PodState.FAILED)
    if was_warm and is_same and not has_said_goodbye:
        assert verdict(of, held, health).is_open


@given(PODS, LEASES)
def test_the_end_of_an_outage_closes_no_gate_before_pods_could_register(
    of: ObservedPod, held: Lease | None
) -> None:
    was_warm = of.gate is not None and of.gate.is_open
    is_same = of.container_id in ("", FIRST_CONTAINER)
    if was_warm and is_same and (held is None or held.carried):
        assert verdict(of, held, JUST_BACK).is_open


@given(PODS, LEASES, HEALTHS)
def test_a_dead_process_never_opens_the_gate_of_its_successor(
    of: ObservedPod, held: Lease | None, health: RegistryHealth
) -> None:
    """Same boot, another container: at most the kubelet's word counts, and that only in an outage."""
    grant = Grant.parse(of.gate.message) if of.gate else None
    if grant and held and held.pod.boot == grant.boot and grant.is_for_another_container(of):
        given_now = verdict(of, held, health)
        assert not given_now.is_open or (not health.is_reached and of.are_containers_ready)
