"""Languages as callers spell them."""

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import UnsupportedLanguage
from everwarm_core.languages import AUTO, LANGUAGE_NAMES, language_name, parse_language

CODES = st.sampled_from(sorted(LANGUAGE_NAMES))


def test_table_has_exactly_the_languages_of_whisper() -> None:
    """The decoder we ship is the judge: a code it does not know would fail inside a decode."""
    assert set(LANGUAGE_NAMES) == set(_LANGUAGE_CODES)


def test_names_are_unique_so_that_each_leads_back_to_its_code() -> None:
    assert len(set(LANGUAGE_NAMES.values())) == len(LANGUAGE_NAMES)


@given(CODES)
def test_language_is_found_by_its_code_and_by_its_name(code: str) -> None:
    assert parse_language(code) == code
    assert parse_language(language_name(code)) == code


@given(CODES, st.sampled_from(["US", "br", "Hant", "Latn-RS", "419"]), st.sampled_from("-_"))
def test_language_is_found_when_a_region_or_script_follows(code: str, region: str, separator: str) -> None:
    assert parse_language(f"{code}{separator}{region}") == code


@given(CODES, st.sampled_from([str.upper, str.title, lambda text: f"  {text}\t"]))
def test_language_is_found_in_any_case_and_with_space_around_it(code: str, spell: "type[str]") -> None:
    assert parse_language(spell(code)) == code
    assert parse_language(spell(LANGUAGE_NAMES[code])) == code


@pytest.mark.parametrize("text", ["auto", "AUTO", " Auto "])
def test_auto_is_accepted_though_it_is_no_language(text: str) -> None:
    assert parse_language(text) == AUTO
    assert AUTO not in LANGUAGE_NAMES


@pytest.mark.parametrize(
    ("text", "code"),
    [("jv", "jw"), ("nb", "no"), ("nb-NO", "no"), ("iw", "he"), ("fil-PH", "tl"), ("cmn-Hans-CN", "zh")],
)
def test_language_is_found_by_an_iso_code_that_whisper_spells_otherwise(text: str, code: str) -> None:
    assert parse_language(text) == code


@pytest.mark.parametrize(
    "text", ["", " ", "-", "_", "e", "eng", "klingon", "auto-US", "e n", "en;", "日本語"]
)
def test_language_is_refused_with_what_was_written_when_whisper_does_not_know_it(text: str) -> None:
    with pytest.raises(UnsupportedLanguage) as caught:
        parse_language(text)
    assert caught.value.language == text
    assert repr(text) in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_a_known_code_or_refused(text: str) -> None:
    try:
        code = parse_language(text)
    except UnsupportedLanguage:
        return
    assert code in {AUTO, *LANGUAGE_NAMES}
    assert parse_language(code) == code


def test_name_of_a_code_that_is_no_language_is_the_code() -> None:
    assert language_name("xx") == "xx"
