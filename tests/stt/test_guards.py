"""What a short window gives is believed, unless it shows one of the faults that short windows have."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_stt.engine.guards import (
    GREEDY_LOG_PROBABILITY,
    GREEDY_NO_SPEECH,
    LOG_PROBABILITY,
    NO_SPEECH,
    Attempt,
    Doubt,
    deserves_beams,
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
        (replace(GOOD, text="", tokens=()), Doubt.WORDLESS),
        (replace(GOOD, text="...", tokens=(1,)), Doubt.WORDLESS),
    ],
)
def test_each_fault_is_a_doubt_of_its_own(attempt: Attempt, reason: Doubt) -> None:
    assert doubt(attempt) is reason


@pytest.mark.parametrize(
    ("attempt", "is_worth_it"),
    [
        (GOOD, False),
        (replace(GOOD, avg_logprob=LOG_PROBABILITY - 0.01), True),
        (replace(GOOD, avg_logprob=GREEDY_LOG_PROBABILITY - 0.01), False),
        (replace(GOOD, no_speech_prob=GREEDY_NO_SPEECH + 0.01), False),
        (
            replace(GOOD, avg_logprob=GREEDY_LOG_PROBABILITY - 0.01, no_speech_prob=GREEDY_NO_SPEECH + 0.01),
            True,
        ),
        (replace(GOOD, avg_logprob=LOG_PROBABILITY - 0.01, is_finished=False), False),
    ],
)
def test_greedy_search_that_is_unsure_and_half_hears_silence_is_worth_beams(
    attempt: Attempt,
    is_worth_it: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert deserves_beams(attempt) is is_worth_it


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
