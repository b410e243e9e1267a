"""The retry budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm.routing.budget import CAPACITY, TOKENS_PER_REQUEST, TOKENS_PER_SECOND, RetryBudget


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_budget_lets_one_dying_pod_s_utterances_be_retried_at_once() -> None:
    budget = RetryBudget(Time())
    assert [budget.take() for _ in range(int(CAPACITY))] == [0.0] * int(CAPACITY)
    assert budget.take() > 0


def test_a_spent_budget_spreads_retries_over_time_instead_of_failing_them() -> None:
    budget = RetryBudget(Time())
    for _ in range(int(CAPACITY)):
        budget.take()
    waits = [budget.take() for _ in range(5)]
    assert waits == [pytest.approx(number / TOKENS_PER_SECOND) for number in range(1, 6)]


def test_a_token_given_back_is_there_for_the_next() -> None:
    budget = RetryBudget(Time())
    before = budget.tokens()
    budget.take()
    budget.give_back()
    assert budget.tokens() == before


@given(
    steps=st.lists(st.tuples(st.sampled_from(["request", "retry", "wait"]), st.floats(0, 5)), max_size=200)
)
def test_retries_never_exceed_a_fifth_of_the_requests_plus_ten_a_second(
    steps: list[tuple[str, float]],
) -> None:
    """Counted by when they may run: a retry promised for later counts later."""
    time = Time()
    budget = RetryBudget(time)
    requests, runs_at = 0, []
    for step, seconds in steps:
        match step:
            case "request":
                budget.deposit()
                requests += 1
            case "retry":
                runs_at.append(time.now + budget.take())
            case _:
                time.now += seconds
    by_now = sum(at <= time.now for at in runs_at)
    assert by_now <= CAPACITY + TOKENS_PER_REQUEST * requests + TOKENS_PER_SECOND * time.now + 1
    assert budget.tokens() <= CAPACITY
