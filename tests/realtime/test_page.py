"""docs/how-to/realtime.md, done as a reader would do it."""

import json
import sys

import pytest

from everwarm_core.realtime.events import SessionUpdate, parse_event
from tests.support.pages import blocks, ran
from tests.support.platform import RunningPlatform
from tests.support.speech import clips, words

pytestmark = [pytest.mark.weights, pytest.mark.slow]

PAGE = "how-to/realtime.md"
CLIP = next(clip for clip in clips() if clip.path.stem == "appointment")


def test_the_example_shows_words_as_they_come_and_then_the_final(platform: RunningPlatform) -> None:
    (example,) = blocks(PAGE, "python", gateway=platform.url)
    deltas, final = ran([sys.executable, "-c", example]).splitlines()
    assert words(final.removeprefix("final:")) == words(CLIP.text)
    assert set(words(deltas)) & set(words(CLIP.text))


def test_the_update_that_the_page_shows_is_one() -> None:
    (update,) = blocks(PAGE, "json", gateway="http://unused")
    event = parse_event(json.dumps(json.loads(update)))
    assert isinstance(event, SessionUpdate)
    assert event.session.audio.input.transcription is not None
    assert event.session.audio.input.transcription.model == "tiny.en"
