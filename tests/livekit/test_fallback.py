"""`fallback="local"`: one pod of this machine's own, only while no other can be had.

The local pod here is a real one, with a guardian of its own in the test's folder; it is gone after the test.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pytest
from livekit.agents import APIConnectOptions, APIStatusError
from livekit.agents.stt import SpeechEventType

from everwarm.livekit import STT
from tests.support.frames import frames
from tests.support.local_pods import end_guardians, local_pods
from tests.support.pods import PodProcess, free_port
from tests.support.speech import clips, words

pytestmark = pytest.mark.weights

PATIENT = APIConnectOptions(max_retry=0, timeout=60.0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local pods end soon after their last user, and at the end of the test in any case.

    A pod that is there is found, however long that takes on this machine.
    """
    monkeypatch.setenv("EVERWARM_LOCAL_POD_IDLE_SECONDS", "0.5")
    monkeypatch.setattr("everwarm.livekit.fallback.NO_POD_AFTER_S", 20.0)
    yield
    end_guardians(tmp_path)


async def test_a_pod_that_is_there_is_used_and_no_local_one_is_started(
    pod: PodProcess, valkey: str, tmp_path: Path
) -> None:
    clip = clips()[0]
    async with STT(model="tiny.en", redis_url=valkey, namespace="livekit", fallback="local") as stt:
        event = await stt.recognize(frames(clip.samples()), conn_options=PATIENT)
    assert words(event.alternatives[0].text) == words(clip.text)
    assert not _was_started(tmp_path)


@pytest.mark.slow
async def test_without_any_pod_a_local_one_answers_until_pods_are_back(
    pod: PodProcess, tmp_path: Path
) -> None:
    """The gateway's place is empty at first; then a pod listens there, and the local one is left and ends."""
    clip = clips()[0]
    port = free_port()
    async with STT(model="tiny.en", base_url=f"http://127.0.0.1:{port}", fallback="local") as stt:
        event = await stt.recognize(frames(clip.samples()), conn_options=PATIENT)
        assert words(event.alternatives[0].text) == words(clip.text)
        assert len(local_pods(tmp_path)) == 1
        async with _Forwarded(port, pod.url) as forwarded:
            await _until(lambda: not local_pods(tmp_path), timeout_s=30)
            await stt.recognize(frames(clip.samples()), conn_options=PATIENT)
            assert forwarded.is_used


@pytest.mark.slow
async def test_a_stream_is_heard_by_the_local_pod_while_there_is_no_other(tmp_path: Path) -> None:
    said = clips()[:2]
    finals: list[str] = []
    async with (
        STT(model="tiny.en", base_url=f"http://127.0.0.1:{free_port()}", fallback="local") as stt,
        stt.stream(conn_options=PATIENT) as stream,
    ):
        for clip in said:
            for frame in frames(np.concatenate((clip.samples(), np.zeros(16_000, np.int16)))):
                stream.push_frame(frame)
            async for event in stream:
                if event.type is SpeechEventType.FINAL_TRANSCRIPT:
                    finals.append(event.alternatives[0].text)
                    break
    assert [words(final) for final in finals] == [words(clip.text) for clip in said]
    assert _was_started(tmp_path)


async def test_a_request_that_a_pod_refuses_is_no_reason_for_a_local_one(
    pod: PodProcess, tmp_path: Path
) -> None:
    async with STT(model="tiny.en", base_url=pod.url, fallback="local") as stt:
        with pytest.raises(APIStatusError):
            await stt.recognize(frames(clips()[0].samples()), language="fr", conn_options=PATIENT)
    assert not _was_started(tmp_path)


def _was_started(runtime: Path) -> bool:
    return bool(list(runtime.rglob("guardian.lock")))


class _Forwarded:
    """A loopback port that leads to a pod inside `async with`: a gateway's place that comes to life."""

    def __init__(self, port: int, url: str) -> None:
        self._port = port
        self._target = int(url.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self.is_used = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Client and pod would keep their connections for longer than this event loop lives."""
        assert self._server is not None
        self._server.close()
        for writers in self._connections.values():
            for writer in writers:
                writer.close()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer, back
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, back))
            group.create_task(self._copy(there, writer))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await source.read(65_536):
                self.is_used |= b"/v1/transcribe" in piece
                sink.write(piece)
        sink.close()


async def _until(condition: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, [process.cmdline() for process in psutil.process_iter()]
        await asyncio.sleep(0.05)  # polls a condition in other processes
