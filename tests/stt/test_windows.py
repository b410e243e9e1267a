"""Windows: room for the speech and its margin, never below the floor, and no larger than they must be."""

from hypothesis import given
from hypothesis import strategies as st

from everwarm_stt.engine.windows import FRAMES_PER_S, FULL_WINDOW, LONGEST_S, MARGIN, WINDOWS, window_for

FRAMES = st.integers(1, FULL_WINDOW)


@given(frames=FRAMES)
def test_window_has_room_for_the_speech_and_its_margin_or_is_the_full_one(frames: int) -> None:
    window = window_for(frames)
    assert window == FULL_WINDOW or window >= frames + MARGIN


@given(frames=FRAMES)
def test_no_smaller_window_would_do(frames: int) -> None:
    window = window_for(frames)
    assert all(smaller < frames + MARGIN for smaller in WINDOWS if smaller < window)


@given(one=FRAMES, other=FRAMES)
def test_more_speech_never_gets_a_smaller_window(one: int, other: int) -> None:
    assert window_for(min(one, other)) <= window_for(max(one, other))


def test_the_longest_utterance_for_a_short_window_gets_the_last_of_them() -> None:
    longest = round(LONGEST_S * FRAMES_PER_S)
    assert (window_for(longest), window_for(longest + 1)) == (WINDOWS[-1], FULL_WINDOW)
