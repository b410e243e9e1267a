"""HTTP as it is on the wire, for promises that a well-behaved client cannot test: half a body, no body, a vanished
client, what arrives before what."""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 60.0
BOUNDARY: Final = "a-boundary-of-the-tests"
FORM_TYPE: Final = f"multipart/form-data; boundary={BOUNDARY}"
PCM_TYPE: Final = "audio/pcm;rate=16000"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, in which NaN is no number."""
        return json.loads(self.body, parse_constant=_no_number)

    @property
    def error(self) -> dict[str, str | None]:
        """The error object; fails unless it has exactly OpenAI's four fields."""
        document = self.json()
        assert set(document) == {"error"}, document
        error = document["error"]
        assert set(error) == {"message", "type", "param", "code"}, document
        return dict(error)


def ask(
    base_url: str,
    path: str,
    *,
    method: str | None = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request over a connection of its own; POST when there is a body."""
    parts = urlsplit(base_url)
    assert parts.hostname
    connection = HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
        return _whole(connection.getresponse())
    finally:
        connection.close()


def ask_form(
    base_url: str,
    fields: Sequence[tuple[str, str]],
    file: bytes | None,
    *,
    path: str = "/v1/audio/transcriptions",
) -> Answer:
    """One multipart request, with *file* as the part `file` unless it is None."""
    return ask(base_url, path, body=multipart(fields, file), headers={"content-type": FORM_TYPE})


def ask_pcm(base_url: str, query: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """One request to the fast path."""
    return ask(
        base_url, f"/v1/transcribe?{query}", body=body, headers={"content-type": PCM_TYPE, **(headers or {})}
    )


def multipart(fields: Sequence[tuple[str, str]], file: bytes | None) -> bytes:
    """A form body of *fields* and a file part."""
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    if file is not None:
        head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="speech.flac"\r\n\r\n'
        parts.append(head.encode() + file + b"\r\n")
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


@contextmanager
def begun_request(base_url: str, path: str, headers: Mapping[str, str]) -> Iterator[socket.socket]:
    """A POST whose head is sent and whose body is the caller's to send; the connection is closed at the end."""
    parts = urlsplit(base_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S) as connection:
        lines = [f"POST {path} HTTP/1.1", f"host: {parts.netloc}", *(f"{n}: {v}" for n, v in headers.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        yield connection


def read_answer(connection: socket.socket) -> Answer:
    """The answer that comes on *connection*."""
    response = HTTPResponse(connection)
    response.begin()
    return _whole(response)


def _no_number(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def _whole(response: HTTPResponse) -> Answer:
    with response:
        return Answer(
            response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        )
