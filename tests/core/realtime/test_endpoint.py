"""Utterances begin, pause and end where the probabilities of speech say so."""

from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.realtime.endpoint import (
    CUT_AFTER_S,
    ONSET_WINDOWS,
    PAUSE_WINDOWS,
    Cut,
    Endpointer,
    Endpointing,
    Mark,
    Paused,
    Resumed,
    Started,
    Stopped,
)
from everwarm_core.realtime.speech import WINDOW, WINDOW_MS

SPEECH, SILENCE = 0.9, 0.05
HALF_A_SECOND = -(-500 // WINDOW_MS)

probabilities = st.lists(st.floats(0, 1), max_size=300)


def marks(given: list[float], rules: Endpointing | None = None) -> list[Mark]:
    endpointer = Endpointer(rules or Endpointing())
    return [mark for probability in given for mark in endpointer.feed(probability)]


def test_speech_between_silences_starts_pauses_and_stops_where_it_does() -> None:
    heard = marks([SILENCE] * 10 + [SPEECH] * 20 + [SILENCE] * HALF_A_SECOND)
    assert heard == [Started(10 * WINDOW), Paused((30 + PAUSE_WINDOWS) * WINDOW), Stopped(30 * WINDOW)]
    assert [type(mark) for mark in heard] == [Started, Paused, Stopped]


def test_click_starts_nothing() -> None:
    assert marks([SPEECH] * (ONSET_WINDOWS - 1) + [SILENCE] * 100) == []


def test_pause_shorter_than_the_silence_is_resumed_and_told_once() -> None:
    heard = marks([SPEECH] * 10 + [SILENCE] * (HALF_A_SECOND - 1) + [SPEECH] * 10)
    assert [type(mark) for mark in heard] == [Started, Paused, Resumed]


def test_what_is_neither_speech_nor_silence_goes_on_with_what_was() -> None:
    between = 0.4
    assert [type(m) for m in marks([SPEECH] * 10 + [between] * 100)] == [Started]
    assert [type(m) for m in marks([SPEECH] * 10 + [SILENCE] + [between] * 100)] == [Started, Paused, Stopped]


def test_nothing_stops_or_is_cut_where_somebody_else_says_when_utterances_end() -> None:
    heard = marks([SPEECH] * 2000 + [SILENCE] * 200, Endpointing(silence_ms=None))
    assert [type(mark) for mark in heard] == [Started, Paused]


def test_endless_speech_is_cut_at_its_quietest_moment_and_goes_on_there() -> None:
    windows = int(CUT_AFTER_S * 1000) // WINDOW_MS + 2
    speech = [SPEECH] * windows
    speech[windows - 40] = 0.6
    started, cut, again = marks(speech)[:3]
    assert (type(started), type(cut), type(again)) == (Started, Cut, Started)
    assert cut.at == again.at == (windows - 40) * WINDOW + WINDOW


@given(given=probabilities)
def test_every_utterance_that_stops_has_started_before_and_they_never_overlap(given: list[float]) -> None:
    end, is_open = 0, False
    for mark in marks(given):
        if isinstance(mark, Started):
            assert not is_open
            assert mark.at >= end
            is_open = True
        elif isinstance(mark, Stopped):
            assert is_open
            assert mark.at >= end
            end, is_open = mark.at, False
        else:
            assert is_open


@given(given=probabilities)
def test_end_of_the_pause_told_last_is_where_a_stopped_utterance_ends(given: list[float]) -> None:
    """The early decode and the final one hear the same samples."""
    paused = None
    for mark in marks(given):
        if isinstance(mark, Paused):
            paused = mark.at
        elif type(mark) is Stopped:
            assert paused == mark.at + PAUSE_WINDOWS * WINDOW
