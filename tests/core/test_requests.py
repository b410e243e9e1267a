"""What a request says, field by field, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import InvalidParameter, InvalidRequest, UnsupportedLanguage
from everwarm_core.languages import LANGUAGE_NAMES
from everwarm_core.requests import (
    TranscriptionRequest,
    parse_transcribe_query,
    parse_transcription_fields,
    transcribe_query,
)
from everwarm_core.transcript import Granularities, ResponseFormat

Fields = list[tuple[str, str]]
MODEL = ("model", "tiny.en")


def parse(*fields: tuple[str, str]) -> TranscriptionRequest:
    return parse_transcription_fields((MODEL, *fields), task="transcribe")


def test_request_with_only_a_model_has_the_defaults_of_the_api() -> None:
    """OpenAI: json, no streaming, temperature left to the server."""
    assert parse() == TranscriptionRequest(model="tiny.en")


def test_request_carries_every_documented_field() -> None:
    """Nothing a caller sends is lost between the form and the decode."""
    fields: Fields = [
        ("language", "en-US"),
        ("prompt", "Ada Lovelace"),
        ("response_format", "verbose_json"),
        ("temperature", "0.4"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ]
    assert parse(*fields) == TranscriptionRequest(
        model="tiny.en",
        language="en",
        prompt="Ada Lovelace",
        response_format=ResponseFormat.VERBOSE_JSON,
        temperature=0.4,
        granularities=Granularities(segments=True, words=True),
    )


def test_word_granularity_alone_gives_no_segments() -> None:
    """OpenAI answers `["word"]` without segments."""
    request = parse(("response_format", "verbose_json"), ("timestamp_granularities[]", "word"))
    assert request.granularities == Granularities(segments=False, words=True)


@pytest.mark.parametrize("stream", ["true", "True", "1"])
def test_streaming_is_asked_for_by_a_true_value(stream: str) -> None:
    """The openai client writes `true`; other clients write their own language's booleans."""
    assert parse(("stream", stream)).stream


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("response_format", "xml")], "response_format"),
        ([("temperature", "nan")], "temperature"),
        ([("temperature", "inf")], "temperature"),
        ([("temperature", "-0.1")], "temperature"),
        ([("temperature", "1.01")], "temperature"),
        ([("temperature", "warm")], "temperature"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities[]"),
        ([("timestamp_granularities[]", "syllable")], "timestamp_granularities[]"),
        ([("stream", "true"), ("response_format", "srt")], "response_format"),
        ([("stream", "true"), ("response_format", "vtt")], "response_format"),
        ([("stream", "true"), ("response_format", "verbose_json")], "response_format"),
        ([("stream", "maybe")], "stream"),
        ([("language", "klingon")], "language"),
        ([("language", "e" * 65)], "language"),
        ([("model", "other")], "model"),
        ([("prompt", "x" * 16_385)], "prompt"),
    ],
)
def test_bad_field_is_refused_by_its_name(fields: Fields, param: str) -> None:
    """The caller reads in `param` which field to repair."""
    with pytest.raises(InvalidRequest) as refused:
        parse(*fields)
    assert refused.value.param == param


@pytest.mark.parametrize("fields", [[], [("model", "")], [("model", "m" * 254)]])
def test_request_without_a_usable_model_is_refused(fields: Fields) -> None:
    """A pod could guess; a gateway in front of many could not."""
    with pytest.raises(InvalidParameter) as refused:
        parse_transcription_fields(fields, task="transcribe")
    assert refused.value.param == "model"


def test_empty_optional_fields_count_as_absent() -> None:
    """Browsers send every field of a form, filled in or not."""
    empty: Fields = [
        (name, "") for name in ("language", "prompt", "response_format", "temperature", "stream")
    ]
    assert parse(*empty, ("timestamp_granularities[]", "")) == parse()


@given(
    name=st.text().filter(lambda n: n not in TranscriptionRequest.__slots__ and "granularities" not in n),
    value=st.text(),
)
def test_unknown_fields_are_ignored(name: str, value: str) -> None:
    """OpenAI adds fields (`include[]`, `chunking_strategy`); old servers must not break new clients."""
    assert parse((name, value)) == parse()


@given(fields=st.lists(st.tuples(st.sampled_from(["model", "language", "prompt", "response_format", "temperature",
    "stream", "task", "timestamp_granularities[]"]), st.one_of(st.text(), st.sampled_from(["word", "true", "1", "en"])))))  # fmt: skip
def test_any_fields_are_a_request_or_a_refusal(fields: Fields) -> None:
    """Hostile input meets InvalidRequest, never a crash; what passes is within its bounds."""
    params: set[str | None] = set()
    for parse_fields in (lambda f: parse_transcription_fields(f, task="translate"), parse_transcribe_query):
        try:
            request = parse_fields(fields)
        except InvalidRequest as error:
            params.add(error.param)
        else:
            assert request.model
            assert request.temperature is None or 0 <= request.temperature <= 1
    assert None not in params


REQUESTS = st.builds(
    TranscriptionRequest,
    model=st.text(min_size=1, max_size=253),
    task=st.sampled_from(["transcribe", "translate"]),
    language=st.one_of(st.none(), st.sampled_from([*LANGUAGE_NAMES, "auto"])),
    prompt=st.one_of(st.none(), st.text(min_size=1)),
    response_format=st.just(ResponseFormat.VERBOSE_JSON),
    temperature=st.one_of(st.none(), st.floats(0, 1)),
    granularities=st.sampled_from(
        [Granularities(), Granularities(words=True), Granularities(segments=False, words=True)]
    ),
)


@given(request=REQUESTS)
def test_query_of_a_request_reads_back_as_the_same_request(request: TranscriptionRequest) -> None:
    """What an agent writes is what a pod reads, temperature to the last bit."""
    assert parse_transcribe_query(transcribe_query(request)) == request


def test_query_ignores_format_and_stream() -> None:
    """The fast path answers a whole verbose_json and nothing else."""
    request = parse_transcribe_query([MODEL, ("response_format", "srt"), ("stream", "true")])
    assert (request.response_format, request.stream) == (ResponseFormat.VERBOSE_JSON, False)


def test_unknown_language_is_told_from_other_bad_fields() -> None:
    """Agents treat it apart: another model may speak it."""
    with pytest.raises(UnsupportedLanguage):
        parse(("language", "tlh"))
