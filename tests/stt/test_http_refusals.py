"""Bad input: each kind is answered by its status and a whole error object, and the pod stays warm."""

import asyncio
import io
import random
import time
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from everwarm_core.errors import InvalidRequest
from everwarm_stt.server.body import ClientLeft, Form, open_form
from tests.stt.conftest import AUDIO_LIMIT_S, BODY_TIMEOUT_S, UPLOAD_LIMIT_BYTES
from tests.support.pods import PodProcess
from tests.support.speech import clips
from tests.support.wire import (
    BOUNDARY,
    FORM_TYPE,
    PCM_TYPE,
    Answer,
    ask,
    ask_form,
    ask_pcm,
    begun_request,
    multipart,
    read_answer,
)

MODEL = ("model", "tiny.en")
FORM_PATH = "/v1/audio/transcriptions"
SECOND = bytes(32_000)  # of silence, as s16le samples


def speech() -> bytes:
    return clips()[0].path.read_bytes()


def long_silence() -> bytes:
    """More seconds than the limit in a WAV file smaller than the upload limit: 8 kHz, 8 bit."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(1)
        wav.setframerate(8000)
        wav.writeframes(b"\x80" * int(8000 * (AUDIO_LIMIT_S + 10)))
    assert len(file.getvalue()) < UPLOAD_LIMIT_BYTES
    return file.getvalue()


REFUSALS: dict[str, tuple[int, str, str | None]] = {
    "a form without a file": (400, "invalid_parameter", "file"),
    "a file that is no audio": (400, "invalid_audio", "file"),
    "an empty file": (400, "invalid_audio", "file"),
    "a file sent as text": (400, "invalid_parameter", "file"),
    "no model": (400, "invalid_parameter", "model"),
    "an unknown model": (404, "model_not_found", "model"),
    "an unknown format": (400, "invalid_parameter", "response_format"),
    "words without verbose_json": (400, "invalid_parameter", "timestamp_granularities[]"),
    "a temperature that is no number": (400, "invalid_parameter", "temperature"),
    "an infinite temperature": (400, "invalid_parameter", "temperature"),
    "subtitles as a stream": (400, "invalid_parameter", "response_format"),
    "an unknown language": (400, "unsupported_language", "language"),
    "a language the weights lack": (400, "unsupported_language", "language"),
    "JSON instead of a form": (400, "invalid_parameter", "content-type"),
    "a form without boundary": (400, "invalid_parameter", "content-type"),
    "a broken form": (400, "invalid_request", None),
    "a form that breaks off": (400, "invalid_request", None),
    "a hundred fields": (400, "invalid_request", None),
    "two files": (400, "invalid_request", None),
    "a field of a megabyte": (400, "invalid_request", None),
    "hours in few bytes": (413, "audio_too_long", "file"),
    "a file over the limit": (413, "upload_too_large", "file"),
    "thirty megabytes": (413, "upload_too_large", "file"),
    "samples of no known type": (400, "invalid_parameter", "content-type"),
    "samples in two channels": (400, "invalid_parameter", "content-type"),
    "samples at no rate": (400, "invalid_parameter", "content-type"),
    "no samples": (400, "invalid_audio", "file"),
    "half a sample": (400, "invalid_audio", "file"),
    "samples beyond the limit": (413, "audio_too_long", "file"),
    "samples for no model": (400, "invalid_parameter", "model"),
    "samples for an unknown model": (404, "model_not_found", "model"),
    "a deadline that is no number": (400, "invalid_parameter", "x-everwarm-deadline-ms"),
    "a negative deadline": (400, "invalid_parameter", "x-everwarm-deadline-ms"),
    "a deadline that is over": (504, "deadline_exceeded", None),
    "an unknown path": (404, "route_not_found", None),
    "a wrong method": (405, "method_not_allowed", None),
}


def send(url: str, what: str) -> Answer:
    """Make the request called *what*."""
    form = {"content-type": FORM_TYPE}
    file_as_text = (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"\r\n\r\nabc\r\n--{BOUNDARY}--\r\n'
    )
    second_file = multipart([MODEL], b"one").removesuffix(f"--{BOUNDARY}--\r\n".encode()) + multipart(
        [], b"two"
    )
    match what:
        case "a form without a file":
            return ask_form(url, [MODEL], None)
        case "a file that is no audio":
            return ask_form(url, [MODEL], random.Random(1).randbytes(5000))
        case "an empty file":
            return ask_form(url, [MODEL], b"")
        case "a file sent as text":
            return ask(url, FORM_PATH, body=file_as_text.encode(), headers=form)
        case "no model":
            return ask_form(url, [], speech())
        case "an unknown model":
            return ask_form(url, [("model", "other")], speech())
        case "an unknown format":
            return ask_form(url, [MODEL, ("response_format", "xml")], speech())
        case "words without verbose_json":
            return ask_form(url, [MODEL, ("timestamp_granularities[]", "word")], speech())
        case "a temperature that is no number":
            return ask_form(url, [MODEL, ("temperature", "nan")], speech())
        case "an infinite temperature":
            return ask_form(url, [MODEL, ("temperature", "inf")], speech())
        case "subtitles as a stream":
            return ask_form(url, [MODEL, ("stream", "true"), ("response_format", "srt")], speech())
        case "an unknown language":
            return ask_form(url, [MODEL, ("language", "tlh")], speech())
        case "a language the weights lack":
            return ask_form(url, [MODEL, ("language", "de")], speech())
        case "JSON instead of a form":
            return ask(
                url, FORM_PATH, body=b'{"model": "tiny.en"}', headers={"content-type": "application/json"}
            )
        case "a form without boundary":
            return ask(url, FORM_PATH, body=b"x", headers={"content-type": "multipart/form-data"})
        case "a broken form":
            return ask(url, FORM_PATH, body=b"no form at all", headers=form)
        case "a form that breaks off":
            return ask(url, FORM_PATH, body=multipart([MODEL], speech())[:-5000], headers=form)
        case "a hundred fields":
            return ask_form(url, [MODEL, *((f"field{n}", "x") for n in range(100))], speech())
        case "two files":
            return ask(url, FORM_PATH, body=second_file, headers=form)
        case "a field of a megabyte":
            return ask_form(url, [MODEL, ("prompt", "x" * 1_000_000)], speech())
        case "hours in few bytes":
            return ask_form(url, [MODEL], long_silence())
        case "a file over the limit":
            return ask_form(url, [MODEL], bytes(UPLOAD_LIMIT_BYTES + 1))
        case "thirty megabytes":
            return ask_form(url, [MODEL], bytes(30_000_000))
        case "samples of no known type":
            return ask(
                url, "/v1/transcribe?model=tiny.en", body=SECOND, headers={"content-type": "audio/wav"}
            )
        case "samples in two channels":
            headers = {"content-type": "audio/pcm;rate=16000;channels=2"}
            return ask(url, "/v1/transcribe?model=tiny.en", body=SECOND, headers=headers)
        case "samples at no rate":
            headers = {"content-type": "audio/pcm;rate=fast"}
            return ask(url, "/v1/transcribe?model=tiny.en", body=SECOND, headers=headers)
        case "no samples":
            return ask_pcm(url, "model=tiny.en", b"")
        case "half a sample":
            return ask_pcm(url, "model=tiny.en", SECOND + b"x")
        case "samples beyond the limit":
            return ask_pcm(url, "model=tiny.en", bytes(int(32_000 * AUDIO_LIMIT_S) + 2))
        case "samples for no model":
            return ask_pcm(url, "language=en", SECOND)
        case "samples for an unknown model":
            return ask_pcm(url, "model=other", SECOND)
        case "a deadline that is no number":
            return ask_pcm(url, "model=tiny.en", SECOND, {"x-everwarm-deadline-ms": "soon"})
        case "a negative deadline":
            return ask_pcm(url, "model=tiny.en", SECOND, {"x-everwarm-deadline-ms": "-1"})
        case "a deadline that is over":
            return ask_pcm(url, "model=tiny.en", SECOND, {"x-everwarm-deadline-ms": "0"})
        case "an unknown path":
            return ask(url, "/v2/audio", body=b"x")
        case "a wrong method":
            return ask(url, FORM_PATH, method="GET")
    raise LookupError(what)


@pytest.mark.parametrize("what", REFUSALS)
def test_bad_request_is_answered_by_its_error_and_leaves_the_pod_ready(pod: PodProcess, what: str) -> None:
    answer = send(pod.url, what)
    error = answer.error
    assert (answer.status, error["code"], error["param"]) == REFUSALS[what]
    assert error["type"] == ("server_error" if answer.status >= 500 else "invalid_request_error")
    assert answer.headers["x-request-id"]
    assert ask(pod.url, "/readyz").status == 200


def test_error_of_a_wrong_method_names_the_right_ones(pod: PodProcess) -> None:
    assert send(pod.url, "a wrong method").headers["allow"] == "POST"


def test_bad_requests_load_nothing_again(pod: PodProcess) -> None:
    send(pod.url, "a file that is no audio")
    assert len(pod.events("model.loaded")) == 1


def test_defects_are_none_of_the_answers(pod: PodProcess) -> None:
    """Whatever the table above sent, nothing was answered 500 or ended in a trace."""
    assert pod.events("request.failed") == []


# --- Bytes and time -------------------------------------------------------------------------------------------------


def test_declared_length_over_the_limit_is_refused_before_the_body(pod: PodProcess) -> None:
    headers = {"content-type": PCM_TYPE, "content-length": "30000000", "expect": "100-continue"}
    with begun_request(pod.url, "/v1/transcribe?model=tiny.en", headers) as connection:
        answer = read_answer(connection)  # would be `100 Continue` if the pod wanted the body
        assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_undeclared_length_is_counted_while_it_comes(pod: PodProcess) -> None:
    headers = {"content-type": PCM_TYPE, "transfer-encoding": "chunked"}
    chunk = b"%x\r\n" % 65_536 + bytes(65_536) + b"\r\n"
    with begun_request(pod.url, "/v1/transcribe?model=tiny.en", headers) as connection:
        for _ in range(UPLOAD_LIMIT_BYTES // 65_536 + 1):
            connection.sendall(chunk)
        answer = read_answer(connection)
    assert (answer.status, answer.error["code"]) == (413, "upload_too_large")


def test_body_that_does_not_come_is_given_up(pod: PodProcess) -> None:
    headers = {"content-type": PCM_TYPE, "content-length": "32000"}
    with begun_request(pod.url, "/v1/transcribe?model=tiny.en", headers) as connection:
        connection.sendall(SECOND[:100])
        answer = read_answer(connection)
        assert (answer.status, answer.error["code"]) == (408, "upload_too_slow")
        assert answer.headers["connection"] == "close"


def test_deadline_ends_the_wait_for_a_body(pod: PodProcess) -> None:
    headers = {"content-type": PCM_TYPE, "content-length": "32000", "x-everwarm-deadline-ms": "50"}
    with begun_request(pod.url, "/v1/transcribe?model=tiny.en", headers) as connection:
        began = time.monotonic()
        answer = read_answer(connection)
    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - began < BODY_TIMEOUT_S / 2


def test_head_that_never_ends_is_refused(pod: PodProcess) -> None:
    with begun_request(pod.url, "/v1/transcribe", {}) as connection:
        pass  # a whole head, closed: the pod lives
    with begun_request(pod.url, "/v1/models", {"a": "b" * 200_000}) as connection:
        assert read_answer(connection).status == 400


def test_connection_survives_a_refused_small_body(pod: PodProcess) -> None:
    """A client that was refused may go on over the same connection: the unread body is swallowed."""
    headers = {"content-type": PCM_TYPE, "content-length": str(len(SECOND))}
    with begun_request(pod.url, "/v1/transcribe?model=other", headers) as connection:
        connection.sendall(SECOND)
        assert read_answer(connection).status == 404
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: pod\r\n\r\n")
        assert read_answer(connection).status == 200


# --- Fuzz -----------------------------------------------------------------------------------------------------------


async def _open(body: bytes, content_type: str) -> Form | None:
    """What `open_form` makes of a request; None when it refuses it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return unread.pop() if unread else {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"content-type", content_type.encode())],
    }
    try:
        async with open_form(Request(scope, receive), limit_bytes=10_000) as form:
            assert form.file.read(1)
            return form
    except (InvalidRequest, ClientLeft):
        return None


GOOD = multipart([MODEL, ("prompt", "Ada")], b"RIFF some audio")
EDITS = st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.binary(max_size=12)), max_size=6)


@settings(deadline=None)
@given(edits=EDITS)
def test_damaged_form_is_read_or_refused_but_never_a_defect(edits: list[tuple[int, int, bytes]]) -> None:
    body = GOOD
    for at, cut, put in edits:
        body = body[:at] + put + body[at + cut :]
    asyncio.run(_open(body, FORM_TYPE))


@settings(deadline=None)
@given(content_type=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_strange_content_type_is_refused_but_never_a_defect(content_type: str) -> None:
    assert (
        asyncio.run(_open(GOOD, f"multipart/form-data; {content_type}")) is None or "boundary" in content_type
    )


def test_undamaged_form_is_read_whole() -> None:
    """The two tests above would pass if nothing could ever be read."""
    form = asyncio.run(_open(GOOD, FORM_TYPE))
    assert form is not None
    assert form.fields == (MODEL, ("prompt", "Ada"))
