"""What was shown of a transcript is never taken back, and adds up to the final one where that agrees."""

from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.realtime.agreement import Agreement

words = st.lists(st.sampled_from(["one", "two,", "three", "Two", "four."]), max_size=8)


def test_words_that_two_decodes_agree_on_are_shown_but_never_the_last_one() -> None:
    agreement = Agreement()
    shown = [agreement.hear(text) for text in ("Could you", "Could you move my", "Could you move my app")]
    assert shown == ["", "Could", " you move"]
    assert agreement.finish("Could you move my appointment?") == " my appointment?"


def test_punctuation_and_case_do_not_matter_to_the_agreement() -> None:
    agreement = Agreement()
    agreement.hear("well I would like")
    assert agreement.hear("Well, I would like to") == "Well, I would"


def test_final_that_says_something_else_adds_nothing() -> None:
    agreement = Agreement()
    agreement.hear("turn of the lights")
    agreement.hear("turn of the lights please")
    assert agreement.shown == "turn of the"
    assert agreement.finish("turn off the lights, please") == ""


@given(texts=st.lists(words, max_size=6))
def test_what_is_shown_only_grows(texts: list[list[str]]) -> None:
    agreement, whole = Agreement(), ""
    for text in texts:
        whole += agreement.hear(" ".join(text))
        assert agreement.shown == whole


@given(texts=st.lists(words, max_size=6), final=words)
def test_all_that_was_shown_is_the_final_text_or_the_rest_is_kept(
    texts: list[list[str]], final: list[str]
) -> None:
    agreement = Agreement()
    for text in texts:
        agreement.hear(" ".join(text))
    before = agreement.shown
    rest = agreement.finish(" ".join(final))
    assert before + rest == " ".join(final) or not rest
