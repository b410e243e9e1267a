"""What a reader concludes from what it reads, from outages and from departures; pure, so no Redis in here."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.registry.records import VOLATILE_FIELDS, Lease, PodRecord, Snapshot
from everwarm_core.registry.view import (
    BACKOFF_CAP_S,
    GRACE_S,
    JITTER,
    REFRESH_S,
    Reading,
    View,
    after_departures,
    after_loss,
    after_reading,
    backoff_s,
    latest_expiries,
    refresh_pause_s,
    renewed,
)
from tests.fixtures.records import FEW_IDS, few_records, ids, pod_record

UNITS = st.floats(0, 1)
NOW_MS = 1_000_000.0


def reading(*pods: PodRecord, at: float = 100.0, epoch: str = "one", left_s: float = 5.0) -> Reading:
    """A reading made at *at* in which each of *pods* has *left_s* seconds to go."""
    return Reading(
        asked_at=at,
        now_ms=NOW_MS,
        epoch=epoch,
        expiries={pod.id: NOW_MS + left_s * 1000 for pod in pods},
        hashes={pod.id: pod.to_hash() for pod in pods},
    )


def shown(view: View) -> Snapshot:
    """The snapshot of *view*, which has one."""
    assert view.snapshot is not None
    return view.snapshot


def pods_of(view: View) -> set[str]:
    """The ids in the snapshot of *view*."""
    return ids(shown(view))


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    pods = draw(st.lists(few_records(), max_size=3, unique_by=lambda pod: pod.id))
    return reading(*pods, at=draw(st.floats(0, 1000)), epoch=draw(st.sampled_from(["", "one", "two"])))


@st.composite
def views(draw: st.DrawFn) -> View:
    """Any view that readings, losses and departures can lead to; time never goes backwards."""
    view, now = View(), 0.0
    for step in draw(st.lists(st.one_of(readings(), st.none(), FEW_IDS), max_size=6)):
        now += draw(st.floats(0, 5))
        match step:
            case None:
                view = after_loss(view)
            case str():
                view = after_departures(view, {(step, step.replace("pod", "boot"))})
            case Reading():
                view = after_reading(view, replace(step, asked_at=now))
    return view


# --- Leases in a reading -------------------------------------------------------------------------------------------


@given(st.floats(0, 1e6), st.integers(-10_000, 10_000))
def test_lease_runs_on_the_readers_clock_for_as_long_as_it_had_left_on_redis(at: float, left_ms: int) -> None:
    leases = reading(pod_record(), at=at, left_s=left_ms / 1000).leases()
    if left_ms < 0:
        assert leases == ()
    else:
        assert leases[0].expires_at == pytest.approx(at + left_ms / 1000)


def test_reading_leaves_out_a_pod_whose_hash_is_gone() -> None:
    assert replace(reading(pod_record()), hashes={"pod-a": {}}).leases() == ()


def test_reading_leaves_out_a_pod_whose_hash_was_not_read() -> None:
    assert replace(reading(pod_record()), hashes={}).leases() == ()


def test_reading_leaves_out_a_pod_that_serves_no_followed_name_any_more() -> None:
    """Its process was replaced by one with other names while the index still listed it."""
    assert replace(reading(pod_record()), followed=frozenset({"tiny"})).leases() == ()


@given(st.lists(st.lists(st.tuples(FEW_IDS, st.floats(0, 1e13)))))
def test_latest_expiry_of_a_pod_is_the_greatest_of_any_set(sets: list[list[tuple[str, float]]]) -> None:
    every = [score for scores in sets for score in scores]
    assert latest_expiries(sets) == {p: max(at for q, at in every if q == p) for p, _ in every}


# --- Readings ------------------------------------------------------------------------------------------------------


@given(views(), readings())
def test_snapshot_holds_every_pod_that_was_just_read(view: View, news: Reading) -> None:
    snapshot = shown(after_reading(view, news))
    assert set(news.leases()) <= set(snapshot.leases)
    assert not snapshot.frozen


@given(views(), readings())
def test_snapshot_holds_each_pod_once(view: View, news: Reading) -> None:
    leases = shown(after_reading(view, news)).leases
    assert len({lease.pod.id for lease in leases}) == len(leases)


@given(views(), readings())
def test_snapshot_invents_no_pod(view: View, news: Reading) -> None:
    before = set() if view.snapshot is None else pods_of(view)
    assert pods_of(after_reading(view, news)) <= before | {lease.pod.id for lease in news.leases()}


@given(readings(), readings())
def test_snapshot_is_the_reading_alone_when_nothing_was_lost(first: Reading, second: Reading) -> None:
    second = replace(second, epoch=first.epoch)
    view = after_reading(after_reading(View(), first), second)
    assert shown(view).leases == second.leases()


@given(views())
def test_awaited_pods_are_exactly_the_carried_leases(view: View) -> None:
    carried = {lease.pod.id for lease in view.snapshot.leases if lease.carried} if view.snapshot else set()
    assert carried == set(view.awaited)


# --- Records that ride along --------------------------------------------------------------------------------------


@given(few_records(), few_records())
def test_known_hash_is_renewed_by_what_may_change_within_a_process(one: PodRecord, two: PodRecord) -> None:
    later = replace(two, id=one.id, boot=one.boot)
    volatile = [later.to_hash()[name] for name in VOLATILE_FIELDS]
    assert renewed(one.to_hash(), volatile) == later.to_hash()


def test_known_hash_is_read_anew_when_another_process_has_the_id() -> None:
    volatile = [pod_record(boot="second").to_hash()[name] for name in VOLATILE_FIELDS]
    assert renewed(pod_record().to_hash(), volatile) is None


@pytest.mark.parametrize("missing", VOLATILE_FIELDS)
def test_known_hash_is_read_anew_when_a_field_is_gone(missing: str) -> None:
    volatile = [None if name == missing else pod_record().to_hash()[name] for name in VOLATILE_FIELDS]
    assert renewed(pod_record().to_hash(), volatile) is None


# --- Outages -------------------------------------------------------------------------------------------------------


@given(readings())
def test_loss_keeps_the_pods_and_freezes_the_snapshot(news: Reading) -> None:
    view = after_reading(View(), news)
    lost = after_loss(view)
    assert shown(lost) == replace(shown(view), frozen=True)


@given(views())
def test_loss_is_no_news_when_redis_was_lost_already(view: View) -> None:
    lost = after_loss(view)
    assert after_loss(lost) is lost


def test_loss_shows_nothing_when_nothing_was_ever_read() -> None:
    assert after_loss(View()).snapshot is None


@pytest.mark.parametrize("epoch", ["one", "two", ""])
def test_pod_is_carried_when_redis_is_back_without_it(epoch: str) -> None:
    lost = after_loss(after_reading(View(), reading(pod_record(), at=100)))
    back = after_reading(lost, reading(at=200, epoch=epoch))
    assert shown(back).leases == (Lease(pod_record(), expires_at=200 + GRACE_S, carried=True),)


def test_pod_is_carried_when_redis_came_back_empty_between_two_readings() -> None:
    view = after_reading(View(), reading(pod_record(), epoch="one", at=100))
    assert pods_of(after_reading(view, reading(epoch="two", at=101))) == {"pod-a"}


def test_pod_is_dropped_when_it_stays_silent_through_the_grace() -> None:
    view = after_reading(after_loss(after_reading(View(), reading(pod_record()))), reading(at=200))
    assert pods_of(after_reading(view, reading(at=200 + GRACE_S - 0.1))) == {"pod-a"}
    assert pods_of(after_reading(view, reading(at=200 + GRACE_S))) == set()


def test_grace_is_not_prolonged_when_the_first_pod_sets_the_new_epoch() -> None:
    """An emptied Redis has no epoch until some pod writes one: one loss, seen twice."""
    view = after_reading(View(), reading(pod_record(), at=100, epoch="one"))
    view = after_reading(view, reading(at=101, epoch=""))
    view = after_reading(view, reading(pod_record("pod-b"), at=102, epoch="two"))
    assert pods_of(view) == {"pod-a", "pod-b"}
    assert view.awaited["pod-a"].expires_at == 101 + GRACE_S


def test_pod_is_not_carried_again_when_it_leaves_after_it_was_announced_again() -> None:
    view = after_reading(after_loss(after_reading(View(), reading(pod_record()))), reading(at=200))
    view = after_reading(view, reading(pod_record(), at=201))
    assert pods_of(after_reading(view, reading(at=202))) == set()


def test_announced_record_replaces_the_carried_one() -> None:
    view = after_reading(after_loss(after_reading(View(), reading(pod_record()))), reading(at=200))
    announced = pod_record(boot="second", inflight=1)
    assert [lease.pod for lease in shown(after_reading(view, reading(announced, at=201))).leases] == [
        announced
    ]


@given(views(), readings())
def test_no_pod_is_lost_when_redis_was_just_lost(view: View, news: Reading) -> None:
    lost = after_loss(view)
    before = set() if lost.snapshot is None else pods_of(lost)
    assert before <= pods_of(after_reading(lost, news))


# --- Departures ----------------------------------------------------------------------------------------------------


@given(views(), FEW_IDS)
def test_departure_removes_that_process_and_no_other(view: View, pod_id: str) -> None:
    if view.snapshot is None:
        return
    gone = {(lease.pod.id, lease.pod.boot) for lease in view.snapshot.leases if lease.pod.id == pod_id}
    assert pods_of(after_departures(view, gone)) == pods_of(view) - {pod_id}


def test_departure_removes_a_pod_that_is_carried() -> None:
    view = after_reading(after_loss(after_reading(View(), reading(pod_record()))), reading(at=200))
    view = after_departures(view, {("pod-a", "boot-a")})
    assert pods_of(view) == set()
    assert view.awaited == {}


def test_departure_is_believed_while_the_snapshot_is_frozen() -> None:
    lost = after_loss(after_reading(View(), reading(pod_record(), pod_record("pod-b"))))
    view = after_departures(lost, {("pod-a", "boot-a")})
    assert pods_of(view) == {"pod-b"}
    assert view.is_frozen


def test_departure_of_a_predecessor_leaves_its_successor() -> None:
    view = after_reading(View(), reading(pod_record(boot="second")))
    assert pods_of(after_departures(view, {("pod-a", "first")})) == {"pod-a"}


# --- Pauses --------------------------------------------------------------------------------------------------------


@given(UNITS)
def test_refresh_pause_stays_near_its_period(unit: float) -> None:
    assert REFRESH_S * (1 - JITTER) <= refresh_pause_s(unit) <= REFRESH_S * (1 + JITTER)


@given(UNITS, UNITS)
def test_refresh_pauses_differ_when_the_random_numbers_do(one: float, two: float) -> None:
    assert (one < two) <= (refresh_pause_s(one) <= refresh_pause_s(two))
    assert refresh_pause_s(0.0) < refresh_pause_s(1.0)


@given(st.integers(1, 10**9), UNITS)
def test_backoff_is_never_longer_than_a_heartbeat_nor_nothing(failures: int, unit: float) -> None:
    assert 0 < backoff_s(failures, unit) <= BACKOFF_CAP_S


@given(st.integers(1, 100), UNITS)
def test_backoff_never_shrinks_with_more_failures(failures: int, unit: float) -> None:
    assert backoff_s(failures, unit) <= backoff_s(failures + 1, unit)
