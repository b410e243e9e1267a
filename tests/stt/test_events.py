"""Server-sent events: deltas that add up, whatever the segments look like."""

import json

from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import PodDraining
from everwarm_core.transcript import Segment, Transcript, joined_text
from everwarm_stt.server.events import Deltas, delta_event, done_event, error_event


def segments(texts: list[str]) -> tuple[Segment, ...]:
    return tuple(Segment(id=n, seek=0, start=0.0, end=1.0, text=text) for n, text in enumerate(texts))


@given(texts=st.lists(st.one_of(st.text(), st.sampled_from([" Hello", "  ", " you. ", "\n"]))))
def test_deltas_joined_are_the_text_of_the_whole(texts: list[str]) -> None:
    deltas = Deltas()
    assert "".join(deltas.of(text) for text in texts) == joined_text(segments(texts))


@given(text=st.text())
def test_event_is_one_line_of_json_and_an_empty_one(text: str) -> None:
    """A line break inside would end the event too early."""
    event = delta_event(text).decode()
    assert event.startswith("data: ")
    assert event.endswith("\n\n")
    assert event.count("\n") == 2
    assert json.loads(event.removeprefix("data: "))["delta"] == text


def test_last_event_carries_text_and_languages() -> None:
    done = done_event(Transcript(language="en", duration=2.1, text="Hello you."))
    assert json.loads(done.decode().removeprefix("data: ")) == {
        "type": "transcript.text.done",
        "text": "Hello you.",
        "languages": [{"code": "en"}],
    }


def test_failure_in_the_middle_is_an_error_object() -> None:
    """OpenAI's client raises for any event that has one."""
    event = json.loads(error_event(PodDraining()).decode().removeprefix("data: "))
    assert event["error"]["code"] == "pod_draining"
