"""What `bench tune` advises, and what speaks for it."""

import pytest

from bench.throughput import Burst
from bench.tune import Shared, even_shares, why_batch, why_slots


def shared(slots: int, *, lone_s: float, many_per_s: float) -> Shared:
    return Shared(slots, 1, Burst([lone_s], lone_s), Burst([1.0] * 10, 10 / many_per_s))


@pytest.mark.parametrize(("cpus", "slots"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 6]), (7, [1, 7])])
def test_slots_leave_no_core_over(cpus: int, slots: list[int]) -> None:
    assert even_shares(cpus) == slots


def test_slots_that_are_best_for_one_and_for_many_are_advised_without_more_ado() -> None:
    (advice,) = why_slots([shared(1, lone_s=0.2, many_per_s=5), shared(2, lone_s=0.1, many_per_s=20)])
    assert advice.startswith("Take `slots: 2`: it answers both")


def test_what_is_best_for_many_is_weighed_against_what_one_waits() -> None:
    (advice,) = why_slots([shared(1, lone_s=0.1, many_per_s=10), shared(2, lone_s=0.15, many_per_s=20)])
    assert "Take `slots: 2` where several speak at once: 2 x the answers of `slots: 1`." in advice
    assert "with `slots: 2` that one waits 1.5 x as long" in advice


def test_batch_is_advised_only_where_it_saves_what_its_wait_costs() -> None:
    assert why_batch({1: [0.1], 2: [0.095]}).startswith("Leave `batch` at 1: a batch of 2 saves 5%")
    assert why_batch({1: [0.1], 4: [0.05], 8: [0.06]}).startswith(
        "Take `batch: 4` where requests queue: it saves 50%"
    )
    assert why_batch({1: [0.1], 2: [0.2]}).startswith("Leave `batch` at 1: no batch is quicker")
