"""Records survive Redis unchanged, damaged ones are told from good ones, and snapshots answer who is warm."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.registry.records import (
    HEARTBEAT_S,
    MAX_COUNT,
    Lease,
    PodRecord,
    PodState,
    Snapshot,
)
from tests.fixtures.records import FEW_LANGUAGES, FEW_NAMES, pod_record, pod_records, snapshots


@given(pod_records())
def test_record_is_the_same_after_a_trip_through_its_hash(pod: PodRecord) -> None:
    assert PodRecord.from_hash(pod.id, pod.to_hash()) == pod


def test_hash_has_exactly_the_fields_of_the_contract() -> None:
    contract = (
        "schema url state model names languages slots queue inflight version node started load_s warm_s boot"
    )
    assert set(pod_record().to_hash()) == set(contract.split())


@given(pod_records(), st.data())
def test_record_is_none_when_a_field_is_missing(pod: PodRecord, data: st.DataObject) -> None:
    fields = replace(pod, traceparent="").to_hash()  # which only pods that are traced write
    del fields[data.draw(st.sampled_from(sorted(fields)))]
    assert PodRecord.from_hash(pod.id, fields) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "2"),
        ("schema", "x"),
        ("state", "asleep"),
        ("slots", "0"),
        ("slots", "1.5"),
        ("slots", ""),
        ("slots", str(MAX_COUNT + 1)),
        ("slots", "9" * 5000),
        ("queue", "-1"),
        ("inflight", "-1"),
        ("started", "nan"),
        ("load_s", "inf"),
        ("warm_s", "-0.1"),
        ("warm_s", "soon"),
    ],
)
def test_record_is_none_when_a_field_is_damaged(field: str, value: str) -> None:
    assert PodRecord.from_hash("pod-a", {**pod_record().to_hash(), field: value}) is None


@given(st.dictionaries(st.sampled_from(sorted(pod_record().to_hash())), st.text(max_size=30)))
def test_hash_of_anything_gives_a_record_with_sane_numbers_or_none(fields: dict[str, str]) -> None:
    record = PodRecord.from_hash("pod-a", {**pod_record().to_hash(), **fields})
    if record is not None:
        assert record.slots >= 1
        assert min(record.queue, record.inflight) >= 0
        assert all(math.isfinite(x) and x >= 0 for x in (record.started, record.load_s, record.warm_s))


def test_record_ignores_fields_that_a_newer_pod_adds() -> None:
    pod = pod_record()
    assert PodRecord.from_hash(pod.id, {**pod.to_hash(), "gpu": "1"}) == pod


@given(snapshots(), FEW_NAMES, FEW_LANGUAGES)
def test_by_key_lists_a_pod_exactly_when_it_is_warm_for_name_and_language(
    snapshot: Snapshot, name: str, language: str
) -> None:
    expected = [
        lease
        for lease in snapshot.leases
        if lease.pod.state is PodState.WARM and name in lease.pod.names and language in lease.pod.languages
    ]
    assert list(snapshot.by_key.get((name, language), ())) == expected


@given(snapshots(), FEW_NAMES)
def test_by_name_lists_a_pod_exactly_when_it_is_warm_for_the_name(snapshot: Snapshot, name: str) -> None:
    expected = [
        lease for lease in snapshot.leases if lease.pod.state is PodState.WARM and name in lease.pod.names
    ]
    assert list(snapshot.by_name.get(name, ())) == expected


@given(snapshots())
def test_names_include_those_of_pods_that_are_not_warm(snapshot: Snapshot) -> None:
    assert snapshot.names == {name for lease in snapshot.leases for name in lease.pod.names}


@given(snapshots(), st.floats(-20, 20))
def test_lease_is_held_until_it_expires_or_for_as_long_as_the_snapshot_is_frozen(
    snapshot: Snapshot, now: float
) -> None:
    for lease in snapshot.leases:
        assert snapshot.is_held(lease, now=now) == (snapshot.frozen or now < lease.expires_at)


def test_snapshot_covers_every_name_when_it_was_read_for_all() -> None:
    assert Snapshot(0.0, "e").covers("anything")


def test_snapshot_covers_only_the_names_it_was_read_for() -> None:
    snapshot = Snapshot(0.0, "e", followed=frozenset({"base.en"}))
    assert snapshot.covers("base.en")
    assert not snapshot.covers("tiny")


def test_lease_outlives_several_heartbeats() -> None:
    lease = Lease(pod_record(), expires_at=5.0)
    assert Snapshot(0.0, "e", (lease,)).is_held(lease, now=4 * HEARTBEAT_S)
