"""The moment at which a lease that nobody renews is told to be over."""

import math
from dataclasses import replace

from everwarm_core.registry.records import Lease, Snapshot
from everwarm_operator.registries import MARGIN_S, next_lapse
from tests.fixtures.records import pod_record

READ_AT = 100.0
SNAPSHOT = Snapshot(
    taken_at=READ_AT,
    epoch="one",
    leases=tuple(
        Lease(pod_record(f"pod-{n}"), expires_at=READ_AT + after) for n, after in enumerate((0.01, 5.0))
    ),
)


def test_a_lease_that_ends_between_the_reading_and_the_look_at_it_is_told() -> None:
    assert next_lapse(SNAPSHOT, SNAPSHOT.taken_at) == READ_AT + 0.01 + MARGIN_S


def test_once_told_the_next_one_is_waited_for() -> None:
    assert next_lapse(SNAPSHOT, READ_AT + 0.01 + MARGIN_S) == READ_AT + 5.0 + MARGIN_S


def test_nothing_lapses_while_redis_is_out_of_reach() -> None:
    assert next_lapse(replace(SNAPSHOT, frozen=True), READ_AT) == math.inf
