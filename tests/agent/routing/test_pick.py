"""Which pod gets an utterance."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm.routing.loads import FAILURES_TO_EJECT, Loads, Standing
from everwarm.routing.pick import SAMPLE, Reason, pick
from everwarm_core.registry.records import Lease, PodRecord
from tests.fixtures.records import pod_record

NOW = 100.0


def lease(number: int, **changes: object) -> Lease:
    return Lease(pod_record(f"pod-{number}", **changes), expires_at=NOW + 5)


@st.composite
def leases(draw: st.DrawFn, min_size: int = 0, max_size: int = 3 * SAMPLE) -> list[Lease]:
    """Different pods in any state of load, some of them lapsed."""
    return [
        Lease(
            pod_record(
                f"pod-{number}",
                slots=draw(st.integers(1, 4)),
                queue=draw(st.integers(0, 4)),
                inflight=draw(st.integers(0, 12)),
            ),
            expires_at=NOW + draw(st.sampled_from([-1.0, 1.0, 5.0, 5.0])),
        )
        for number in range(draw(st.integers(min_size, max_size)))
    ]


@st.composite
def histories(draw: st.DrawFn, candidates: list[Lease]) -> Loads:
    """Loads after any outcomes on any of *candidates*."""
    loads = Loads(lambda: NOW)
    for chosen in draw(st.lists(st.sampled_from(candidates), max_size=40)) if candidates else ():
        load = loads.started(chosen.pod, 2.0)
        match draw(st.integers(0, 5)):
            case 0:
                loads.succeeded(load, 2.0, service_s=0.3, inflight=draw(st.integers(0, 9)), slots=None)
            case 1:
                loads.refused(load, 2.0, inflight=None, slots=None)
            case 2:
                loads.failed(load, 2.0)
            case 3:
                loads.closed(load, 2.0)
            case 4:
                load.overdue += 1
            case _:
                pass  # still on its way
    return loads


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Lease], Loads, frozenset[str], Random]:
    candidates = draw(leases())
    boots = [candidate.pod.boot for candidate in candidates]
    exclude = frozenset(draw(st.lists(st.sampled_from(boots), max_size=len(boots)))) if boots else frozenset()
    return candidates, draw(histories(candidates)), exclude, Random(draw(st.integers(0, 1 << 32)))


def standing(candidate: Lease, loads: Loads) -> Standing:
    """As by *loads*, but for what its heartbeats say."""
    by_loads = loads.standing(candidate.pod, now=NOW)
    return Standing.EJECTED if by_loads is not Standing.CLOSED and candidate.is_silent(NOW) else by_loads


def usable(
    candidates: list[Lease], loads: Loads, exclude: frozenset[str]
) -> list[tuple[PodRecord, Standing]]:
    return [
        (candidate.pod, seen)
        for candidate in candidates
        if candidate.pod.boot not in exclude
        and candidate.expires_at > NOW
        and (seen := standing(candidate, loads)) is not Standing.CLOSED
    ]


@given(situation=situations())
def test_pick_returns_a_candidate_that_is_neither_excluded_nor_lapsed_nor_draining(
    situation: tuple[list[Lease], Loads, frozenset[str], Random],
) -> None:
    candidates, loads, exclude, rng = situation
    choice = pick(candidates, loads, exclude=exclude, rng=rng, audio_s=3.0, now=NOW)
    possible = usable(candidates, loads, exclude)
    if choice is None:
        assert not possible
    else:
        assert choice.pod in [pod for pod, _ in possible]
        assert choice.candidates == len(candidates)


@given(situation=situations())
def test_pick_takes_a_pod_with_an_idle_slot_when_there_is_a_healthy_one(
    situation: tuple[list[Lease], Loads, frozenset[str], Random],
) -> None:
    candidates, loads, exclude, rng = situation
    candidates = candidates[:SAMPLE]
    choice = pick(candidates, loads, exclude=exclude, rng=rng, audio_s=3.0, now=NOW)
    idle = [pod for pod, seen in usable(candidates, loads, exclude) if seen is Standing.IDLE]
    if idle:
        assert choice is not None
        assert choice.pod in idle or choice.reason is Reason.EJECTIONS_IGNORED


@given(situation=situations())
def test_pick_leaves_ejected_and_silent_pods_alone_unless_most_are(
    situation: tuple[list[Lease], Loads, frozenset[str], Random],
) -> None:
    candidates, loads, exclude, rng = situation
    choice = pick(candidates[:SAMPLE], loads, exclude=exclude, rng=rng, audio_s=3.0, now=NOW)
    possible = usable(candidates[:SAMPLE], loads, exclude)
    ejected = [pod for pod, seen in possible if seen is Standing.EJECTED]
    if choice is not None and choice.pod in ejected:
        assert choice.reason is Reason.EJECTIONS_IGNORED
        assert 2 * len(ejected) > len(possible)


@pytest.mark.parametrize("spare", [0, 1234, 4999])
def test_pick_finds_the_one_pod_left_among_thousands(spare: int) -> None:
    candidates = [lease(number) for number in range(5000)]
    exclude = {candidate.pod.boot for candidate in candidates} - {candidates[spare].pod.boot}
    choice = pick(candidates, Loads(lambda: NOW), exclude=exclude, rng=Random(1), audio_s=3.0, now=NOW)
    assert choice is not None
    assert choice.pod is candidates[spare].pod


def test_pick_keeps_lapsed_pods_when_the_registry_is_out_of_reach() -> None:
    lapsed = Lease(pod_record(), expires_at=NOW - 60)
    choice = pick(
        [lapsed], Loads(lambda: NOW), exclude=(), rng=Random(1), audio_s=3.0, now=NOW, keep_expired=True
    )
    assert choice is not None


def test_pick_prefers_the_faster_of_two_idle_pods() -> None:
    slow, fast = lease(1), lease(2)
    loads = Loads(lambda: NOW)
    for candidate, service_s in ((slow, 3.0), (fast, 0.3)):
        load = loads.started(candidate.pod, 2.0)
        loads.succeeded(load, 2.0, service_s=service_s, inflight=0, slots=2)
    choices = {
        pick([slow, fast], loads, exclude=(), rng=Random(seed), audio_s=2.0, now=NOW).pod.id  # type: ignore[union-attr]  # there is always one
        for seed in range(20)
    }
    assert choices == {"pod-2"}


def test_pick_counts_audio_seconds_and_not_requests() -> None:
    """One pod holds a recording of a minute, the other two short utterances: the shorter wait is with the latter."""
    long, short = lease(1, slots=1), lease(2, slots=1)
    loads = Loads(lambda: NOW)
    loads.started(long.pod, 60.0)
    loads.started(short.pod, 1.5)
    loads.started(short.pod, 1.5)
    choice = pick([long, short], loads, exclude=(), rng=Random(1), audio_s=2.0, now=NOW)
    assert choice is not None
    assert (choice.pod.id, choice.reason) == ("pod-2", Reason.TWO_CHOICES)


def test_pick_avoids_a_pod_that_just_failed_though_its_failures_were_fast() -> None:
    failing, busy = lease(1, slots=1), lease(2, slots=1, inflight=1)
    loads = Loads(lambda: NOW)
    for _ in range(FAILURES_TO_EJECT - 1):
        loads.failed(loads.started(failing.pod, 2.0), 2.0)
    loads.started(failing.pod, 2.0)
    choice = pick([failing, busy], loads, exclude=(), rng=Random(1), audio_s=2.0, now=NOW)
    assert choice is not None
    assert choice.pod.id == "pod-2"


def test_pick_spreads_utterances_over_equal_pods() -> None:
    candidates = [lease(number) for number in range(4)]
    rng = Random(7)
    chosen = [
        pick(candidates, Loads(lambda: NOW), exclude=(), rng=rng, audio_s=2.0, now=NOW).pod.id  # type: ignore[union-attr]  # there is always one
        for _ in range(400)
    ]
    assert all(chosen.count(f"pod-{number}") > 50 for number in range(4))
