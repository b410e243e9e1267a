"""What a short window gives is believed, unless it shows one of the faults that short windows have."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_stt.engine.guards import (
    LOG_PROBABILITY,
    LOG_PROBABILITY_OF_SILENCE,
    NO_SPEECH,
    Attempt,
    Doubt,
    doubt,
    has_loop,
    token_limit,
)

GOOD = Attempt(
    text="Could you move my appointment to Thursday at half past three?",
    tokens=(14, 3, 92, 65, 8, 77, 1, 40, 33, 21, 5, 2),
    audio_s=4.0,
    avg_logprob=-0.2,
    no_speech_prob=0.01,
    is_finished=True,
)


def test_ordinary_result_is_believed() -> None:
    assert doubt(GOOD) is None


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (replace(GOOD, is_finished=False), Doubt.UNFINISHED),
        (replace(GOOD, text="to the station " * 20), Doubt.REPETITION),
        (replace(GOOD, tokens=(1, 2, 3, 1, 2, 3, 1, 2, 3)), Doubt.REPETITION),
        (replace(GOOD, avg_logprob=LOG_PROBABILITY - 0.01), Doubt.UNSURE),
        (replace(GOOD, no_speech_prob=NO_SPEECH + 0.01), Doubt.SILENCE),
        (
            replace(GOOD, no_speech_prob=NO_SPEECH + 0.01, avg_logprob=LOG_PROBABILITY_OF_SILENCE - 0.01),
            Doubt.UNSURE,
        ),
        (replace(GOOD, avg_logprob=LOG_PROBABILITY_OF_SILENCE - 0.01), None),
        (replace(GOOD, text="", tokens=()), Doubt.WORDLESS),
        (replace(GOOD, text="...", tokens=(1,)), Doubt.WORDLESS),
    ],
)
def test_each_fault_is_a_doubt_of_its_own(attempt: Attempt, reason: Doubt | None) -> None:
    assert doubt(attempt) is reason


@given(phrase=st.lists(st.integers(0, 50), min_size=2, max_size=4), before=st.lists(st.integers(51, 99)))
def test_phrase_said_three_times_in_a_row_is_a_loop_wherever_it_stands(
    phrase: list[int], before: list[int]
) -> None:
    assert has_loop((*before, *phrase * 3))


@given(tokens=st.lists(st.integers(0, 10_000), unique=True))
def test_tokens_that_never_repeat_are_no_loop(tokens: list[int]) -> None:
    assert not has_loop(tokens)


def test_people_may_say_no_three_times() -> None:
    assert not has_loop((7, 7, 7))
    assert has_loop((7, 7, 7, 7))


@given(one=st.floats(0, 30), other=st.floats(0, 30))
def test_more_audio_may_hold_more_tokens(one: float, other: float) -> None:
    assert token_limit(min(one, other)) <= token_limit(max(one, other))
