"""The order in which LiveKit is told of a stream, whatever the order in which finals come."""

import pytest
from livekit.agents.stt import SpeechEvent, SpeechEventType

from everwarm.errors import PodFailed
from everwarm.livekit.narration import Moment, Narrator
from everwarm_core.realtime.listener import (
    Committed,
    Completed,
    Failed,
    Foreseen,
    Happening,
    Interim,
    SpeechStarted,
    SpeechStopped,
)
from everwarm_core.transcript import Segment, Transcript, Word

START = SpeechEventType.START_OF_SPEECH
INTERIM = SpeechEventType.INTERIM_TRANSCRIPT
PREFLIGHT = SpeechEventType.PREFLIGHT_TRANSCRIPT
FINAL = SpeechEventType.FINAL_TRANSCRIPT
END = SpeechEventType.END_OF_SPEECH
USAGE = SpeechEventType.RECOGNITION_USAGE

SAID = Transcript(
    language="en",
    duration=2.0,
    text="Yes, please.",
    segments=(Segment(id=0, seek=0, start=0.5, end=1.5, text=" Yes, please."),),
    words=(Word(word=" Yes,", start=0.5, end=0.9), Word(word=" please.", start=1.0, end=1.5)),
)


def begun(item: str, at_ms: int = 0) -> list[Happening]:
    return [SpeechStarted(item, at_ms), Interim(item, "Yes", ""), Foreseen(item, SAID, at_ms)]


def ended(item: str, at_ms: int = 1500) -> list[Happening]:
    return [SpeechStopped(item, at_ms), Committed(item, None)]


def told(
    happenings: list[Happening], moment: Moment | None = None, narrator: Narrator | None = None
) -> list[SpeechEvent]:
    narrator = narrator or Narrator()
    moment = moment or Moment(now=1000.0, heard_s=2.0)
    return [event for happening in happenings for event in narrator.events(happening, moment)]


def kinds(events: list[SpeechEvent]) -> list[tuple[str, SpeechEventType]]:
    return [(event.request_id, event.type) for event in events]


def test_an_utterance_has_its_end_behind_its_final() -> None:
    events = told([*begun("a"), *ended("a"), Completed("a", SAID, "", 0)])
    assert [event.type for event in events] == [START, INTERIM, PREFLIGHT, FINAL, END, USAGE]


def test_who_speaks_again_before_the_final_has_ended_first() -> None:
    events = told(
        [
            *begun("a"),
            *ended("a"),
            SpeechStarted("b", 2000),
            Completed("a", SAID, "", 0),
            *ended("b", 3000),
            Completed("b", SAID, "", 2000),
        ]
    )
    assert kinds(events)[3:] == [
        ("a", END),
        ("b", START),
        ("a", FINAL),
        ("a", USAGE),
        ("b", FINAL),
        ("b", END),
        ("b", USAGE),
    ]


def test_nothing_of_an_utterance_is_shown_before_the_final_of_the_last_one() -> None:
    events = told([*begun("a"), *ended("a"), *begun("b", 2000), Completed("a", SAID, "", 0), *begun("b")])
    shown = [kind for kind in kinds(events) if kind[1] in (INTERIM, PREFLIGHT, FINAL)]
    assert shown == [("a", INTERIM), ("a", PREFLIGHT), ("a", FINAL), ("b", INTERIM), ("b", PREFLIGHT)]


def test_an_utterance_that_failed_has_ended() -> None:
    narrator = Narrator()
    events = told([*begun("a"), *ended("a"), Failed("a", PodFailed("pod-1", "died"))], narrator=narrator)
    assert kinds(events)[-1] == ("a", END)
    assert narrator.is_idle


def test_an_utterance_that_a_flush_ended_ends_now() -> None:
    events = told([*begun("a"), Committed("a", None), Completed("a", SAID, "", 0)])
    (end,) = [event for event in events if event.type is END]
    assert end.speech_end_time == 1000.0


def test_the_end_of_speech_is_told_with_the_moment_it_was() -> None:
    events = told(
        [*begun("a"), *ended("a", 1500), Completed("a", SAID, "", 0)], Moment(now=1000.0, heard_s=2.0)
    )
    assert [event.speech_end_time for event in events if event.type in (FINAL, END)] == [999.5, 999.5]


def test_times_are_on_the_clock_of_the_stream() -> None:
    moment = Moment(now=1000.0, heard_s=9.0, offset_s=100.0)
    events = told([*begun("a", 7000), *ended("a", 8500), Completed("a", SAID, "", 7000)], moment)
    interim, preflight, final = (event.alternatives[0] for event in events if event.alternatives)
    assert (interim.start_time, interim.end_time) == (107.0, 109.0)
    assert (preflight.start_time, preflight.end_time) == (final.start_time, final.end_time) == (107.5, 108.5)
    assert [(word.start_time, word.end_time) for word in final.words or []] == [
        (107.5, 107.9),
        (108.0, 108.5),
    ]


def test_usage_is_the_audio_of_the_utterance() -> None:
    usage = told([*begun("a"), *ended("a"), Completed("a", SAID, "", 0)])[-1].recognition_usage
    assert usage is not None
    assert usage.audio_duration == 2.0


def test_without_interim_results_a_pause_is_still_told() -> None:
    events = told(begun("a"), narrator=Narrator(interim_results=False))
    assert [event.type for event in events] == [START, PREFLIGHT]


@pytest.mark.parametrize(
    "kind",
    [Interim("a", "", ""), Foreseen("a", Transcript(language="en", duration=1.0, text=""), 0)],
    ids=repr,
)
def test_nothing_that_is_empty_is_shown(kind: Happening) -> None:
    assert [event.type for event in told([SpeechStarted("a", 0), kind])] == [START]


def test_an_utterance_in_which_nothing_was_said_has_an_empty_final() -> None:
    silence = Transcript(language="en", duration=1.0, text="")
    events = told([SpeechStarted("a", 0), *ended("a"), Completed("a", silence, "", 0)])
    assert [event.type for event in events] == [START, FINAL, END, USAGE]
    assert events[1].alternatives[0].text == ""
