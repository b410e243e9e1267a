"""Errors on the wire: four fields always, and the same class again at the other end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core import errors as e
from everwarm_core.openai_errors import error_body, error_from_response, error_headers, error_json

EXAMPLES: tuple[e.EverwarmError, ...] = (
    e.InvalidAudio("no audio stream"),
    e.InvalidParameter("temperature", "'nan' is no number"),
    e.UnsupportedLanguage("tlh"),
    e.UploadTooLarge(10),
    e.AudioTooLong(1800.0),
    e.UploadTooSlow(30.0),
    e.Unauthorized(),
    e.ModelNotFound("nope", known=("tiny.en",)),
    e.PodFull(slots=1, queue=4, retry_after_s=2.3),
    e.PodDraining(),
    e.RateLimited("60 s of audio a minute", retry_after_s=41.0),
    e.ModelNotWarm("base", retry_after_s=4.0),
    e.DeadlineExceeded(deadline_s=1.0, waiting_for="a slot"),
    e.PodFailed("pod-a", "connection reset"),
    e.RegistryUnavailable("refused"),
    e.InternalError("see the log"),
)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_body_has_all_four_fields(error: e.EverwarmError) -> None:
    """A client that reads `code` or `param` must never meet a missing key."""
    body = json.loads(error_json(error))
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert body["error"]["code"]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_comes_back_as_its_class_and_message(error: e.EverwarmError) -> None:
    """`except PodFull` means the same in an agent as in the pod."""
    again = error_from_response(e.http_error(error).status, error_json(error), error_headers(error))
    assert type(again) is type(error)
    assert (str(again), again.param) == (str(error), error.param)


def test_retry_after_is_whole_seconds_rounded_up_and_comes_back() -> None:
    """A client that returns too early is refused again; zero would be a busy loop."""
    assert error_headers(e.PodFull(slots=1, queue=1, retry_after_s=2.3))["retry-after"] == "3"
    assert error_headers(e.PodFull(slots=1, queue=1, retry_after_s=0.01))["retry-after"] == "1"
    assert error_headers(e.RateLimited("60 s of audio a minute", retry_after_s=40.2))["retry-after"] == "41"
    again = error_from_response(503, error_json(e.PodDraining()), {"retry-after": "7"})
    assert again.retry_after_s == 7.0


def test_caller_errors_name_no_retry_time() -> None:
    """The same request would fail again."""
    assert "retry-after" not in error_headers(e.AudioTooLong(1.0))


def test_unauthorized_answers_name_the_scheme() -> None:
    """RFC 9110 wants a challenge with each 401."""
    assert error_headers(e.Unauthorized())["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, e.InvalidRequest),
        (401, e.Unauthorized),
        (404, e.InvalidRequest),
        (413, e.UploadTooLarge),
        (418, e.InvalidRequest),
        (429, e.RateLimited),
        (500, e.PodFailed),
        (502, e.PodFailed),
        (503, e.CapacityError),
        (504, e.PodFailed),
        (302, e.PodFailed),
    ],
)
def test_foreign_answer_is_judged_by_its_status(status: int, expected: type[e.EverwarmError]) -> None:
    """A proxy's HTML page says nothing but its number."""
    error = error_from_response(status, b"<html>oops</html>", {})
    assert type(error) is expected
    assert str(status) in str(error)


def test_known_code_under_a_foreign_status_is_not_believed() -> None:
    """An intermediary that rewrites the status decides whether another try makes sense."""
    assert type(error_from_response(500, error_json(e.InvalidAudio("x")), {})) is e.PodFailed


def test_foreign_error_page_names_the_pod_it_came_from() -> None:
    """Whoever reads the log must know which pod to look at."""
    assert "pod-7" in str(error_from_response(500, b"", {"x-everwarm-pod": "pod-7"}))


@given(
    status=st.integers(300, 599),
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.one_of(st.none(), st.integers(), st.text(), st.floats()),
            lambda inner: st.dictionaries(st.sampled_from(["error", "code", "message", "param"]), inner),
        ).map(lambda document: json.dumps(document).encode()),
    ),
    retry_after=st.text(max_size=8),
)
def test_any_answer_becomes_an_error_of_the_tree(status: int, body: bytes, retry_after: str) -> None:
    """Whatever a broken server says, the agent's retry logic sees its own classes."""
    error = error_from_response(status, body, {"retry-after": retry_after})
    assert isinstance(error, e.EverwarmError)
    assert str(error)


def test_deeply_nested_answer_does_not_break_the_reader() -> None:
    """Python's JSON parser raises RecursionError, which is no ValueError."""
    assert isinstance(error_from_response(500, b"[" * 200_000, {}), e.PodFailed)


def test_lone_surrogates_in_a_message_survive_encoding() -> None:
    """A hostile field value repeated in a message must not turn a 400 into a 500."""
    assert error_body(e.InvalidAudio("\udcff"))["error"]["message"] == "\udcff"
    assert json.loads(error_json(e.InvalidAudio("\udcff")))["error"]["message"] == "\udcff"
