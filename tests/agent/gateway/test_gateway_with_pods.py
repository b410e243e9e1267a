"""The whole way with real Whisper pods: client or OpenAI's own client, gateway, registry, two pods of tiny.en."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import openai
import pytest

import everwarm
from everwarm.gateway import run_gateway
from everwarm.settings import GatewaySettings
from tests.fixtures.valkey import running_valkey
from tests.support.pods import PodProcess, start_pod
from tests.support.speech import Clip, clips, words
from tests.support.waiting import until

pytestmark = [pytest.mark.weights, pytest.mark.slow]

MODEL = "tiny.en"


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """A Valkey for the pods of this module."""
    with running_valkey() as server:
        yield server.url


ENVIRONMENT = {"EVERWARM_LANGUAGES": "en", "EVERWARM_BEAM_SIZE": "1"}


@pytest.fixture(scope="module")
def pods(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[PodProcess]]:
    """Three warm pods of tiny.en; the last one is for a test to kill."""
    folder = tmp_path_factory.mktemp("pods")
    started = [start_pod({**ENVIRONMENT, "EVERWARM_REDIS_URL": registry}, folder=folder) for _ in range(3)]
    try:
        for pod in started:
            pod.wait_until_ready()
        yield started
    finally:
        for pod in started:
            pod.process.terminate()
        for pod in started:
            pod.stop()


@asynccontextmanager
async def openai_client(redis_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client in front of a gateway."""
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings = GatewaySettings(redis_url=redis_url, gateway_port=0)
    async with asyncio.TaskGroup() as group:
        group.create_task(run_gateway(settings, ready=up.set_result, stop=stop))
        async with openai.AsyncOpenAI(base_url=f"{await up}/v1", api_key="none", max_retries=0) as client:
            yield client
        stop.set()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return clips()[0]


async def test_openai_s_client_gets_every_format_through_the_gateway(
    registry: str, pods: list[PodProcess], clip: Clip
) -> None:
    async with openai_client(registry) as client:
        create = client.audio.transcriptions.create
        plain = await create(file=clip.path, model=MODEL)
        text = await create(file=clip.path, model=MODEL, response_format="text")
        srt = await create(file=clip.path, model=MODEL, response_format="srt")
        vtt = await create(file=clip.path, model=MODEL, response_format="vtt", language="en")
        verbose = await create(
            file=clip.path,
            model=MODEL,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            prompt="A call to a shop.",
            temperature=0.0,
        )
    assert words(plain.text) == words(clip.text)
    assert words(text) == words(clip.text)
    assert srt.startswith("1\n00:00:0")
    assert vtt.startswith("WEBVTT")
    assert verbose.language == "english"
    assert verbose.segments
    assert verbose.words
    assert [words(w.word) for w in verbose.words] == [[word] for word in words(clip.text)]


async def test_openai_s_client_gets_events_through_the_gateway(
    registry: str, pods: list[PodProcess], clip: Clip
) -> None:
    async with openai_client(registry) as client:
        stream = await client.audio.transcriptions.create(file=clip.path, model=MODEL, stream=True)
        events = [event async for event in stream]
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert events[-1].type == "transcript.text.done"
    assert deltas == events[-1].text
    assert words(deltas) == words(clip.text)


async def test_openai_s_client_reads_errors_of_the_gateway_and_of_pods(
    registry: str, pods: list[PodProcess], clip: Clip
) -> None:
    async with openai_client(registry) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.audio.transcriptions.create(file=clip.path, model="whisper-9")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as damaged:
            await client.audio.transcriptions.create(file=("a.mp3", b"no sound at all"), model=MODEL)
        assert damaged.value.code == "invalid_audio"
        with pytest.raises(openai.BadRequestError) as language:
            await client.audio.transcriptions.create(file=clip.path, model=MODEL, language="de")
        assert language.value.code == "unsupported_language"
        assert [model.id async for model in client.models.list()] == [MODEL]


@pytest.mark.parametrize("file_first", [True, False], ids=["file first", "file last"])
def test_curl_gets_its_transcript_in_either_order_of_fields(
    registry: str, pods: list[PodProcess], clip: Clip, *, file_first: bool
) -> None:
    fields = ["-F", f"file=@{clip.path}", "-F", f"model={MODEL}"]
    ordered = fields if file_first else fields[2:] + fields[:2]

    async def scene() -> str:
        async with openai_client(registry) as client:
            url = f"{str(client.base_url).rstrip('/')}/audio/transcriptions"
            curl = await asyncio.create_subprocess_exec(
                "curl", "-sS", url, *ordered, "-F", "response_format=text", stdout=subprocess.PIPE
            )
            out, _ = await curl.communicate()
            return out.decode()

    assert words(asyncio.run(scene())) == words(clip.text)


def as_floats(clip: Clip) -> npt.NDArray[np.float32]:
    """The samples of *clip* in [-1, 1]."""
    return clip.samples().astype(np.float32) / np.float32(32_768)


async def test_the_client_gets_the_same_words_from_samples_and_from_files(
    registry: str, pods: list[PodProcess], clip: Clip
) -> None:
    async with everwarm.Client(registry) as client:
        heard = [
            await client.transcribe(audio, model=MODEL, word_timestamps=True)
            for audio in (clip.path, clip.path.read_bytes(), clip.samples(), as_floats(clip))
        ]
    assert {" ".join(words(transcript.text)) for transcript in heard} == {" ".join(words(clip.text))}
    assert all(transcript.words and transcript.language == "en" for transcript in heard)


async def test_no_utterance_is_lost_when_one_pod_is_killed_and_another_stopped(
    registry: str, pods: list[PodProcess], clip: Clip
) -> None:
    """SIGKILL: connections break. SIGSTOP: they stay open and nothing comes, until the registry has lost the pod."""
    _, stopped, killed = pods
    async with everwarm.Client(registry, deadline_s=60) as client:
        try:
            async with asyncio.TaskGroup() as group:
                utterances = [
                    group.create_task(client.transcribe(clip.samples(), model=MODEL)) for _ in range(9)
                ]
                await until(lambda: any(task.done() for task in utterances), within_s=60)
                killed.process.kill()
                os.kill(stopped.process.pid, signal.SIGSTOP)
        finally:
            os.kill(stopped.process.pid, signal.SIGCONT)
    assert [words(task.result().text) for task in utterances] == [words(clip.text)] * 9
