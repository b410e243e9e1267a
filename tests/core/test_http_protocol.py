"""A request's head is bounded, in bytes and in seconds, whatever serves behind it."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from everwarm_core.http import protocol
from everwarm_core.http.connection import Message, Receive, Send
from everwarm_core.http.protocol import HEAD_BYTES, BoundedHttpProtocol
from tests.support.wire import read_answer

SLOW_S = 0.3


async def greet(scope: Message, receive: Receive, send: Send) -> None:
    """The application behind it."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """To a server that waits for a head no longer than SLOW_S."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", SLOW_S)
    config = uvicorn.Config(greet, http=BoundedHttpProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with socket.create_connection(listener.getsockname()[:2], timeout=10) as opened:
                yield opened
        finally:
            server.should_exit = True
            thread.join()


def test_an_honest_head_is_answered(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert read_answer(connection).status == 200


def test_a_head_that_is_too_large_is_answered_400(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"a" * (HEAD_BYTES + 1))
    assert read_answer(connection).status == 400


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nx: "], ids=["nothing", "a part of it"])
def test_a_connection_whose_head_does_not_come_is_closed(connection: socket.socket, begun: bytes) -> None:
    connection.sendall(begun)
    assert connection.recv(1) == b""


def test_a_kept_connection_whose_next_head_stops_is_closed(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert read_answer(connection).status == 200
    connection.sendall(b"GET / HTTP/1.1\r\nx: ")
    assert connection.recv(1) == b""
