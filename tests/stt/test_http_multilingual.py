"""What only weights that know many languages can show: detection, translation, languages nobody had proven."""

from collections.abc import Iterator

import pytest

from tests.support.pods import PodProcess, running_pod
from tests.support.speech import clips, words
from tests.support.wire import ask, ask_form

pytestmark = [pytest.mark.weights, pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = ("model", "base")
VERBOSE = ("response_format", "verbose_json")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcess]:
    """A pod of multilingual weights, proven for English; greedy, as only its manners are of interest."""
    environment = {"EVERWARM_MODEL": "base", "EVERWARM_LANGUAGES": "en", "EVERWARM_BEAM_SIZE": "1"}
    with running_pod(environment, folder=tmp_path_factory.mktemp("base")) as warm:
        yield warm


def test_request_without_language_means_the_only_one_of_the_spec(base: PodProcess) -> None:
    answer = ask_form(base.url, [MODEL, VERBOSE], clips()[0].path.read_bytes()).json()
    assert (answer["language"], words(answer["text"])) == ("english", words(clips()[0].text))


def test_unproven_language_is_served_logged_and_then_proven(base: PodProcess) -> None:
    answer = ask_form(base.url, [MODEL, VERBOSE, ("language", "auto")], clips()[0].path.read_bytes()).json()
    assert answer["languages"] == [{"code": "en"}]
    assert "auto" in ask(base.url, "/readyz").json()["languages"]
    assert "auto" in [event["language"] for event in base.events("key.unproven")]


def test_translation_is_a_transcript_in_english(base: PodProcess) -> None:
    answer = ask_form(base.url, [MODEL, VERBOSE], clips()[0].path.read_bytes(), path="/v1/audio/translations")
    assert (answer.status, answer.json()["task"]) == (200, "translate")
    assert words(answer.json()["text"])


def test_language_the_weights_have_no_token_for_is_refused(base: PodProcess) -> None:
    """Cantonese came with large-v3; older weights would make noise of it, on a slot of others, for minutes."""
    answer = ask_form(base.url, [MODEL, ("language", "yue")], clips()[0].path.read_bytes())
    assert (answer.status, answer.error["code"]) == (400, "unsupported_language")
