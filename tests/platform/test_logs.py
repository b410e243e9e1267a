"""Lines of children: what they say, and what a pod died of."""

import json
import logging

from hypothesis import given
from hypothesis import strategies as st

from everwarm.platform.logs import last_words, parse_line


def line(event: str, level: str = "info", **attributes: object) -> str:
    return json.dumps({"event": event, "level": level, **attributes})


def test_line_of_json_keeps_its_event_level_and_attributes() -> None:
    parsed = parse_line(line("model.loaded", tag="[WHISPER-LOAD]", load_s=0.4))
    assert (parsed.event, parsed.level, parsed.attributes["load_s"]) == ("model.loaded", logging.INFO, 0.4)


@given(st.text())
def test_line_of_anything_is_parsed_without_an_error(text: str) -> None:
    assert parse_line(text).event is not None


def test_last_words_are_the_reason_of_the_last_error() -> None:
    lines = [
        line("a", "error", reason="early"),
        line("b", "error", reason="late", error="Class"),
        line("c"),
    ]
    assert last_words(lines) == "late"


def test_last_words_are_the_last_line_when_no_error_was_logged() -> None:
    assert last_words(["Traceback", "ValueError: no", ""]) == "ValueError: no"


def test_last_words_say_so_when_there_are_none() -> None:
    assert last_words([]) == "it wrote nothing"
