"""Who plays which clip when, and how words are counted."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm.demo.clips import Clip, load_clips, schedule
from everwarm.demo.run import WORKERS, scenes
from everwarm.demo.wer import word_error_rate, word_errors

TEXT = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join)


def clips(count: int) -> tuple[Clip, ...]:
    return tuple(Clip(Path(f"{number}.flac"), "text", 1.0) for number in range(count))


@given(workers=st.integers(1, 6), more=st.integers(0, 4), rounds=st.integers(2, 8))
def test_schedule_gives_every_worker_one_turn_a_round(workers: int, more: int, rounds: int) -> None:
    turns = schedule(clips(workers + more), workers=workers, rounds=rounds)
    assert [(turn.round, turn.worker) for turn in turns] == [
        (number, worker) for number in range(rounds) for worker in range(workers)
    ]


@pytest.mark.parametrize("is_quick", [True, False])
def test_scenes_play_every_first_clip_again_so_that_like_is_compared_with_like(*, is_quick: bool) -> None:
    for scene in scenes(is_quick=is_quick, has_base=True):
        first = {turn.clip.name for turn in scene.turns if turn.round == 0}
        later = {turn.clip.name for turn in scene.turns if turn.round > 0}
        assert len(first) == WORKERS
        assert first <= later


def test_schedule_refuses_a_play_that_compares_nothing() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        schedule(clips(4), workers=4, rounds=1)


def test_clips_are_there_with_what_is_said_in_them() -> None:
    found = load_clips()
    assert len(found) >= WORKERS
    assert all(clip.path.is_file() and clip.text and 0.5 <= clip.seconds <= 30 for clip in found)


@given(said=TEXT, heard=TEXT)
def test_word_errors_are_a_distance(said: str, heard: str) -> None:
    errors = word_errors(said, heard)
    assert (errors == 0) == (said.split() == heard.split())
    assert errors == word_errors(heard, said)
    assert errors <= max(len(said.split()), len(heard.split()))


def test_word_error_rate_ignores_case_and_punctuation() -> None:
    assert word_error_rate([("What time, please?", "what time please")]) == 0
    assert word_error_rate([("one two three four", "one two tree")]) == 0.5
