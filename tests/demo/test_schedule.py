"""Who plays which clip when, and how words are counted."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from everwarm.demo.clips import Clip, load_clips, schedule
from everwarm.demo.run import WORKERS, scenes
from everwarm.demo.wer import word_error_rate, word_errors

TEXT = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join)


def clips(count: int) -> tuple[Clip, ...]:
    return tuple(Clip(Path(f"{number}.flac"), "text", 1.0) for number in range(count))


@given(workers=st.integers(1, 6), full_rounds=st.integers(0, 3))
def test_schedule_gives_every_worker_exactly_one_first_turn(workers: int, full_rounds: int) -> None:
    turns = schedule(clips(4), workers=workers, full_rounds=full_rounds)
    assert [turn.worker for turn in turns if turn.is_first] == [*range(workers)]
    assert len(turns) == len(schedule(clips(4), workers=workers, full_rounds=0)) + full_rounds * workers


@given(workers=st.integers(1, 6))
def test_schedule_puts_each_first_turn_among_later_ones_of_its_clip(workers: int) -> None:
    turns = schedule(clips(4), workers=workers, full_rounds=0)
    for first in (turn for turn in turns if turn.is_first):
        beside = [turn for turn in turns if turn.round == first.round and not turn.is_first]
        assert len(beside) >= 2
        assert {turn.clip for turn in beside} == {first.clip}


def test_scenes_play_base_only_when_its_weights_are_here_and_there_is_time() -> None:
    assert [scene.model for scene in scenes(is_quick=False, has_base=True)] == ["tiny.en", "base"]
    assert [scene.model for scene in scenes(is_quick=False, has_base=False)] == ["tiny.en"]
    assert [scene.model for scene in scenes(is_quick=True, has_base=True)] == ["tiny.en"]


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
