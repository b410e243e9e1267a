"""A benchmark's results against those saved: what is noise, and what is a regression."""

import pytest

from bench.compare import NOISE, Change, changes


def a_change(before: float, now: float, limit: float = 1.0) -> Change:
    return Change("latency", "p50", "x", before, now, limit)


@pytest.mark.parametrize(
    ("change", "regressed"),
    [
        (a_change(0.50, 0.50), False),
        (a_change(0.50, 0.50 * (1 + NOISE) - 0.001), False),
        (a_change(0.50, 0.50 * (1 + NOISE) + 0.001), True),
        (a_change(0.99, 1.01), True),
        (a_change(1.20, 1.21), False),
        (a_change(0.50, 0.10), False),
        (a_change(-0.60, -0.62, 0.3), False),
    ],
    ids=[
        "the same",
        "worse within noise",
        "worse beyond noise",
        "broken now, and held before",
        "broken before too",
        "better",
        "a difference below zero",
    ],
)
def test_regression_is_worse_than_noise_or_newly_broken(change: Change, regressed: bool) -> None:  # noqa: FBT001
    assert change.is_regression is regressed


def test_promises_that_only_one_side_knows_are_left_out() -> None:
    both = {"name": "p50", "unit": "x", "value": 0.5, "limit": 1.0}
    new = {**both, "name": "p99"}
    (change,) = changes("latency", {"promises": [both]}, {"promises": [both, new]})
    assert change.name == "p50"
