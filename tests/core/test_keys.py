"""Model keys: written and read back, and what a request's language means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import UnsupportedLanguage
from everwarm_core.keys import ModelKey, default_languages, is_english_only, requested_language
from everwarm_core.languages import AUTO, LANGUAGE_NAMES
from tests.fixtures.records import languages, model_names

OTHER_THAN_ENGLISH = st.sampled_from([code for code in LANGUAGE_NAMES if code != "en"])


@given(model_names(), languages())
def test_key_is_the_same_after_it_was_written_and_parsed(model: str, language: str) -> None:
    assert ModelKey.parse(str(ModelKey(model, language))) == (model, language)


def test_key_is_written_as_the_model_an_underscore_and_the_language() -> None:
    assert str(ModelKey("base.en", "en")) == "base.en_en"


def test_last_underscore_separates_when_the_model_has_some() -> None:
    assert ModelKey.parse("my_own_model_de") == ModelKey("my_own_model", "de")


@pytest.mark.parametrize("text", ["", "_", "base", "base_", "_en"])
def test_text_is_refused_when_a_part_of_the_key_is_missing(text: str) -> None:
    with pytest.raises(ValueError, match=r"base\.en_en"):
        ModelKey.parse(text)


@pytest.mark.parametrize(
    "model", ["tiny.en", "owner/faster-whisper-base.en", "/models/small.en", "/models/small.en/"]
)
def test_model_is_english_only_when_its_name_ends_so(model: str) -> None:
    assert is_english_only(model)
    assert default_languages(model) == ("en",)


@pytest.mark.parametrize(
    "model", ["tiny", "large-v3", "owner/model", "tiny.enhanced", "tiny-en", "/models.en/tiny"]
)
def test_model_is_multilingual_when_its_name_does_not_end_so(model: str) -> None:
    assert not is_english_only(model)
    assert default_languages(model) == (AUTO,)


@pytest.mark.parametrize("language", [None, "auto", "en"])
def test_request_means_english_on_english_only_weights(language: str | None) -> None:
    assert requested_language(language, model="base.en", languages=("en", "auto")) == "en"


@given(OTHER_THAN_ENGLISH)
def test_request_for_another_language_is_refused_on_english_only_weights(language: str) -> None:
    with pytest.raises(UnsupportedLanguage, match="English only"):
        requested_language(language, model="base.en", languages=("en",))


@given(languages(), st.lists(languages(), max_size=3).map(tuple))
def test_request_means_the_language_it_names_on_multilingual_weights(
    language: str, proven: tuple[str, ...]
) -> None:
    """Also one that is not proven: weights know every language."""
    assert requested_language(language, model="base", languages=proven) == language


@given(languages())
def test_request_that_names_none_means_the_only_language_of_the_spec(language: str) -> None:
    assert requested_language(None, model="base", languages=(language,)) == language


@given(st.lists(languages(), min_size=2, max_size=4, unique=True).map(tuple))
def test_request_that_names_none_means_detection_when_the_spec_has_several(proven: tuple[str, ...]) -> None:
    assert requested_language(None, model="base", languages=proven) == AUTO
