"""A full pod refuses before it reads, and whoever leaves makes room: for others, and for the pod itself."""

import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import pytest

from tests.stt.conftest import BODY_TIMEOUT_S
from tests.support.pods import PodProcess
from tests.support.speech import clips, recording
from tests.support.wire import (
    FORM_TYPE,
    PCM_TYPE,
    Answer,
    ask,
    ask_pcm,
    begun_request,
    multipart,
    read_answer,
)

PCM_PATH = "/v1/transcribe?model=tiny.en"
DEADLINE_HEADER = "x-everwarm-deadline-ms"
LONG_UTTERANCE_S = 29  # one second more than that would be a recording's second window
BYTES_PER_S = 2 * 16_000
PLACES = 2  # of the shared pod: one slot, one that waits
TRIES = 10

T = TypeVar("T")


def inflight(pod: PodProcess) -> int:
    return int(ask(pod.url, "/livez").headers["x-everwarm-inflight"])


def metric(pod: PodProcess, name: str) -> float:
    page = ask(pod.url, "/metrics").body.decode()
    found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return once *condition* holds; fails when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def idle(pod: PodProcess) -> None:
    """Each test begins with an empty pod."""
    eventually(lambda: inflight(pod) == 0)


@contextmanager
def decoding_recording(pod: PodProcess) -> Iterator[socket.socket]:
    """A client whose long recording is being decoded, window by window."""
    with decoding(pod, recording().pcm()) as connection:
        yield connection


@contextmanager
def decoding(pod: PodProcess, body: bytes) -> Iterator[socket.socket]:
    """A client whose PCM *body* is being decoded, unless it `is_answered` by now."""
    headers = {"content-type": PCM_TYPE, "content-length": str(len(body))}
    with begun_request(pod.url, PCM_PATH, headers) as connection:
        connection.sendall(body)
        eventually(lambda: metric(pod, "everwarm_slot_usage") == 1 or is_answered(connection))
        yield connection


def is_answered(client: socket.socket) -> bool:
    """Whether there is something for *client* to read."""
    return bool(select.select([client], [], [], 0)[0])


def in_time(pod: PodProcess, attempt: Callable[[], T | None]) -> T:
    """What *attempt* gives, made again after None: the decode that it wanted to last was over.

    A decode takes a second or a few, and a busy machine may stop us for as long.
    """
    for _ in range(TRIES):
        if (result := attempt()) is not None:
            return result
        eventually(lambda: inflight(pod) == 0)
    raise AssertionError(f"{TRIES} decodes were over too soon")


def beside_a_long_utterance(pod: PodProcess, act: Callable[[socket.socket], T]) -> T:
    """What *act* gives while another holds the slot without a break: an utterance is one window, however long."""
    body = recording().pcm()[: LONG_UTTERANCE_S * BYTES_PER_S]

    def attempt() -> T | None:
        with decoding(pod, body) as patient:
            result = act(patient)
            if is_answered(patient):
                return None
            assert read_answer(patient).status == 200
            return result

    return in_time(pod, attempt)


@contextmanager
def full(pod: PodProcess) -> Iterator[None]:
    """All places taken by clients who have not sent their bodies yet."""
    with ExitStack() as clients:
        for _ in range(PLACES):
            headers = {"content-type": PCM_TYPE, "content-length": "32000"}
            clients.enter_context(begun_request(pod.url, PCM_PATH, headers))
        eventually(lambda: inflight(pod) == PLACES)
        yield


def test_full_pod_refuses_before_it_asks_for_the_body(pod: PodProcess) -> None:
    headers = {"content-type": PCM_TYPE, "content-length": "32000", "expect": "100-continue"}
    with full(pod), begun_request(pod.url, PCM_PATH, headers) as connection:
        first_bytes = connection.recv(len(b"HTTP/1.1 503"))
    assert first_bytes == b"HTTP/1.1 503"  # and not `HTTP/1.1 100`


def test_pod_with_room_asks_for_the_body(pod: PodProcess) -> None:
    """Otherwise the test above would prove nothing."""
    headers = {"content-type": PCM_TYPE, "content-length": "32000", "expect": "100-continue"}
    with begun_request(pod.url, PCM_PATH, headers) as connection:
        assert connection.recv(len(b"HTTP/1.1 100")) == b"HTTP/1.1 100"


def test_glance_is_refused_where_it_would_have_to_wait_and_answered_where_not(pod: PodProcess) -> None:
    headers = {"content-type": PCM_TYPE, "x-everwarm-idle-only": "1"}

    def glance() -> Answer:
        return ask(pod.url, PCM_PATH, body=clips()[0].pcm(), headers=headers)

    refused = beside_a_long_utterance(pod, lambda _: glance())
    assert (refused.status, refused.error["code"]) == (503, "no_idle_slot")
    eventually(lambda: inflight(pod) == 0)
    assert glance().status == 200


@pytest.mark.parametrize("path", [PCM_PATH, "/v1/audio/transcriptions"])
def test_full_pod_says_when_to_come_back(pod: PodProcess, path: str) -> None:
    content_type = PCM_TYPE if path == PCM_PATH else FORM_TYPE
    with full(pod):
        answer = ask(pod.url, path, body=b"x" * 1000, headers={"content-type": content_type})
    assert (answer.status, answer.error["code"]) == (503, "pod_full")
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_full_pod_still_answers_its_probes(pod: PodProcess) -> None:
    """A probe that waits behind audio makes the kubelet kill a pod for being busy."""

    def probe() -> bool | None:
        with decoding_recording(pod) as patient, full_queue(pod, patient):
            began = time.monotonic()
            statuses = [ask(pod.url, path).status for path in ("/livez", "/readyz")]
            took_s = time.monotonic() - began
            assert statuses == [200, 200]
            is_quick = took_s < 1.0  # the limit of most probes; but a busy machine may stop us for longer
            return (is_quick and not is_answered(patient)) or None

    assert in_time(pod, probe)


@contextmanager
def full_queue(pod: PodProcess, patient: socket.socket) -> Iterator[None]:
    """The waiting place taken as well, unless *patient* is answered by now."""
    headers = {"content-type": PCM_TYPE, "content-length": "32000"}
    with begun_request(pod.url, PCM_PATH, headers):
        eventually(lambda: inflight(pod) == PLACES or is_answered(patient))
        yield


def test_refusals_are_counted_by_reason(pod: PodProcess) -> None:
    with full(pod):
        ask_pcm(pod.url, "model=tiny.en", b"xx")
    page = ask(pod.url, "/metrics").body.decode()
    assert re.search(r'everwarm_refusals_total\{.*everwarm_refusal="pod_full".*\} [1-9]', page)


def test_client_that_leaves_before_its_body_frees_its_place(pod: PodProcess) -> None:
    with full(pod):
        pass
    eventually(lambda: inflight(pod) == 0, timeout_s=BODY_TIMEOUT_S / 2)  # and not by the end of that


def test_client_that_leaves_the_queue_frees_its_place_while_another_decodes(pod: PodProcess) -> None:
    body = clips()[0].pcm()
    headers = {"content-type": PCM_TYPE, "content-length": str(len(body))}

    def leave_the_queue(patient: socket.socket) -> int:
        with begun_request(pod.url, PCM_PATH, headers) as leaving:
            leaving.sendall(body)
            eventually(lambda: metric(pod, "everwarm_queue_usage") == 1 or is_answered(patient))
        eventually(lambda: inflight(pod) == 1 or is_answered(patient))
        return inflight(pod)

    assert beside_a_long_utterance(pod, leave_the_queue) == 1


def test_deadline_ends_the_wait_for_a_slot(pod: PodProcess) -> None:
    def wait_for_a_slot(_: socket.socket) -> Answer:
        return ask_pcm(pod.url, "model=tiny.en", clips()[0].pcm(), {DEADLINE_HEADER: "100"})

    answer = beside_a_long_utterance(pod, wait_for_a_slot)
    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")


def test_client_that_leaves_in_a_decode_is_noticed_and_its_slot_comes_back(pod: PodProcess) -> None:
    def leave() -> bool | None:
        before = len(pod.events("request.abandoned"))
        with decoding_recording(pod):
            pass
        eventually(lambda: inflight(pod) == 0)
        return len(pod.events("request.abandoned")) == before + 1 or None

    assert in_time(pod, leave)
    assert metric(pod, "everwarm_slot_usage") == 0


def test_reader_that_leaves_a_stream_stops_its_decode(pod: PodProcess) -> None:
    body = multipart([("model", "tiny.en"), ("stream", "true")], recording().path.read_bytes())
    headers = {"content-type": FORM_TYPE, "content-length": str(len(body))}

    def leave() -> bool | None:
        before = len(pod.events("request.abandoned"))
        with begun_request(pod.url, "/v1/audio/transcriptions", headers) as connection:
            connection.sendall(body)
            seen = b""
            while b"transcript.text.delta" not in seen:
                piece = connection.recv(4096)
                assert piece, seen
                seen += piece
        eventually(lambda: inflight(pod) == 0)
        is_noticed = len(pod.events("request.abandoned")) == before + 1
        return (is_noticed and b"transcript.text.done" not in seen) or None

    assert in_time(pod, leave)
