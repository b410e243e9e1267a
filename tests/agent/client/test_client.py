"""The client as a caller sees it: opening, arguments, the direct way, and what it leaves alone."""

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

import everwarm
from everwarm.errors import InvalidParameter, PodFailed, RegistryUnavailable, UnsupportedLanguage
from everwarm.settings import AgentSettings
from everwarm_core.errors import GatewayFull, RateLimited
from tests.fixtures.records import WAIT_S
from tests.support.faulty_pods import announce, die, faulty_pod, record_of, status, tell

SPEECH = np.zeros(16_000, dtype=np.int16)


def test_an_agent_loads_no_model_and_no_audio_library() -> None:
    """In a process of its own: this one has loaded all of them for other tests."""
    script = """
        import sys
        import everwarm, everwarm.dispatch, everwarm.sources
        client = everwarm.Client(redis_url="redis://127.0.0.1:1/0")
        heavy = {"ctranslate2", "faster_whisper", "onnxruntime", "av", "torch", "tokenizers", "numpy"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


def test_constructing_a_client_needs_no_loop_and_no_environment() -> None:
    everwarm.Client()
    everwarm.Client(base_url="http://nowhere.invalid")


async def test_opening_says_what_to_set_when_nothing_says_where_the_pods_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("REDIS_URL", "BASE_URL", "FALLBACK_URLS"):
        monkeypatch.delenv(f"EVERWARM_{name}", raising=False)
    with pytest.raises(InvalidParameter, match="EVERWARM_REDIS_URL"):
        await everwarm.Client().start()


async def test_a_closed_client_says_so() -> None:
    with pytest.raises(InvalidParameter, match="open"):
        await everwarm.Client(base_url="http://x").transcribe(SPEECH, model="base.en")


async def test_a_client_can_be_opened_and_closed_from_different_tasks(redis_url: str) -> None:
    """As plugins do, whose hosts start and end them wherever they like."""
    async with faulty_pod("pod-a") as pod:
        await announce(redis_url, [record_of(pod)])
        client = everwarm.Client(redis_url)
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                group.create_task(client.start())
            transcript = await client.transcribe(SPEECH, model="base.en")
            assert transcript.text == "pod-a"
            async with asyncio.TaskGroup() as group:
                group.create_task(client.aclose())


async def test_arguments_win_over_the_environment(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERWARM_REDIS_URL", "redis://127.0.0.1:1/0")
    async with faulty_pod("pod-a") as pod:
        async with everwarm.Client(base_url=pod.url) as client:
            assert client.router is None
            assert (await client.transcribe(SPEECH, model="base.en")).text == "pod-a"
        await announce(redis_url, [record_of(pod)])
        async with everwarm.Client(redis_url) as client:
            assert (await client.transcribe(SPEECH, model="base.en")).text == "pod-a"


def test_settings_read_lists_and_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERWARM_FALLBACK_URLS", "http://a:8000, http://b:8000,")
    monkeypatch.setenv("EVERWARM_API_KEY", "hush")
    settings = AgentSettings()
    assert settings.fallback_urls == ("http://a:8000", "http://b:8000")
    assert settings.api_key == SecretStr("hush")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"language": "klingon"}, UnsupportedLanguage),
        ({"temperature": 2.0}, InvalidParameter),
        ({"task": "sing"}, InvalidParameter),
        ({"model": ""}, InvalidParameter),
    ],
)
async def test_a_wrong_argument_costs_no_request(arguments: dict[str, str], error: type[Exception]) -> None:
    async with faulty_pod("pod-a") as pod, everwarm.Client(base_url=pod.url) as client:
        with pytest.raises(error):
            await client.transcribe(SPEECH, **({"model": "base.en"} | arguments))  # type: ignore[arg-type]  # that is the point
        assert pod.asked == 0


async def test_samples_go_the_fast_way_with_every_argument() -> None:
    async with faulty_pod("pod-a") as pod, everwarm.Client(base_url=pod.url) as client:
        await client.transcribe(
            SPEECH,
            model="org/base",
            language="pt-BR",
            prompt="a & b",
            temperature=0.2,
            word_timestamps=True,
            task="translate",
        )
        got = pod.received[0]
        assert got.path == "/v1/transcribe"
        assert set(got.query.replace("%5B%5D", "[]").split("&")) >= {
            "language=pt",
            "temperature=0.2",
            "task=translate",
        }
        assert got.body == SPEECH.tobytes()
        assert got.headers["content-type"] == "audio/pcm;rate=16000"


async def test_files_go_as_forms_with_the_file_last() -> None:
    async with faulty_pod("pod-a") as pod, everwarm.Client(base_url=pod.url) as client:
        await client.transcribe(b"ID3 some mp3", model="base", task="translate")
        got = pod.received[0]
        assert got.path == "/v1/audio/translations"
        assert (
            0
            < got.body.index(b'name="model"')
            < got.body.index(b'name="response_format"')
            < got.body.index(b"ID3")
        )


async def test_a_gateway_is_shown_the_api_key() -> None:
    async with faulty_pod("door") as door, everwarm.Client(base_url=door.url, api_key="secret") as client:
        await client.transcribe(SPEECH, model="base.en")
        assert door.received[0].headers["authorization"] == "Bearer secret"


async def test_pods_are_shown_the_internal_token_and_a_rotated_one_soon(
    redis_url: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    async with faulty_pod("pod-a") as pod:
        await announce(redis_url, [record_of(pod)])
        async with everwarm.Client(redis_url, token_file=token) as client:
            await client.transcribe(SPEECH, model="base.en")
            token.write_text("new\n")
            os.utime(token, ns=(0, 0))  # another version, though the file system's clock may not have ticked
            async with asyncio.timeout(20):
                while pod.received[-1].headers["authorization"] != "Bearer new":
                    await client.transcribe(SPEECH, model="base.en")
        assert pod.received[0].headers["authorization"] == "Bearer old"


@pytest.mark.parametrize(
    "fault",
    [
        tell(GatewayFull("9 requests", retry_after_s=1.0)),
        tell(RateLimited("1 utterance at a time", retry_after_s=1.0)),
        status(429),
        die,
        status(502),
    ],
)
async def test_the_one_address_is_asked_again(fault: object) -> None:
    async with faulty_pod("door", fault) as door, everwarm.Client(base_url=door.url) as client:  # type: ignore[arg-type]  # behaviours
        assert (await client.transcribe(SPEECH, model="base.en")).text == "door"
        assert door.asked == 2


async def test_the_one_address_is_not_asked_again_later_than_the_deadline() -> None:
    full = tell(GatewayFull("9 requests", retry_after_s=10 * WAIT_S))
    async with faulty_pod("door", *[full] * 9) as door:
        async with everwarm.Client(base_url=door.url) as client:
            began = time.monotonic()
            with pytest.raises(GatewayFull):
                await client.transcribe(SPEECH, model="base.en", deadline_s=WAIT_S)
            assert time.monotonic() - began < WAIT_S
        assert door.asked == 1


async def test_the_one_address_is_asked_again_no_sooner_than_it_said() -> None:
    async with faulty_pod("door", tell(RateLimited("1 utterance at a time", retry_after_s=2.0))) as door:
        async with everwarm.Client(base_url=door.url) as client:
            began = time.monotonic()
            await client.transcribe(SPEECH, model="base.en")
            assert time.monotonic() - began >= 2.0
        assert door.asked == 2


async def test_an_answer_that_is_no_transcript_is_a_failure_of_the_pod() -> None:
    async with faulty_pod("door", status(200)) as door, everwarm.Client(base_url=door.url) as client:
        with pytest.raises(PodFailed, match="no transcript"):
            await client.transcribe(SPEECH, model="base.en")


async def test_nobody_there_is_said_within_the_deadline() -> None:
    async with everwarm.Client(redis_url="redis://127.0.0.1:1/0", deadline_s=0.3) as client:
        with pytest.raises(RegistryUnavailable):
            await client.transcribe(SPEECH, model="base.en")
