"""Stock clients over REST, unchanged, and every answer held to the `openai` package's own types, strictly.

The package itself is lenient: it takes any JSON for an answer. Clients generated for other languages are not, so here
each body is validated as it came.
"""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import numpy as np
import openai
import pytest
from livekit.agents import APIStatusError, stt
from livekit.plugins import openai as livekit_openai
from livekit.plugins import silero
from openai.types import Model
from openai.types.audio import Transcription, TranscriptionStreamEvent, TranscriptionVerbose
from pydantic import BaseModel, TypeAdapter

from tests.support.frames import frames
from tests.support.pages import blocks, ran
from tests.support.platform import RunningPlatform, running_platform
from tests.support.speech import Clip, clips, recording, words

pytestmark = [pytest.mark.weights, pytest.mark.slow]

RESOURCES: Final = """
apiVersion: everwarm.dev/v1alpha1
kind: WhisperModel
metadata: {name: tiny}
spec: {model: tiny.en, aliases: [whisper-1, gpt-4o-transcribe], decode: {beamSize: 1}}
"""
PAGE: Final = "how-to/openai-clients.md"
SILENCE: Final = np.zeros(16_000, np.int16)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """`everwarm up` with one warm pod of tiny.en, under OpenAI's names too."""
    with running_platform(RESOURCES, folder=tmp_path_factory.mktemp("stock-clients")) as running:
        yield running


@pytest.fixture(scope="module")
def client(platform: RunningPlatform) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which refuses answers that are not what its types say."""
    with openai.OpenAI(
        base_url=f"{platform.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


@pytest.fixture
async def async_client(platform: RunningPlatform) -> AsyncIterator[openai.AsyncOpenAI]:
    """The asynchronous one."""
    async with openai.AsyncOpenAI(
        base_url=f"{platform.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


@pytest.fixture(scope="module")
def clip() -> Clip:
    return next(clip for clip in clips() if clip.path.stem == "opening_hours")


def _validated(kind: Any, body: str | bytes) -> Any:
    """*body* as *kind*, with every type as it is declared and no field that is not."""
    value = TypeAdapter(kind).validate_json(body, strict=True)
    assert isinstance(value, BaseModel)
    return value


def _strangers(value: object, path: str = "") -> list[str]:
    """Fields that the types do not know, anywhere in *value*."""
    if isinstance(value, list):
        return [name for item in value for name in _strangers(item, path)]
    if not isinstance(value, BaseModel):
        return []
    known = [
        name
        for field in type(value).model_fields
        for name in _strangers(getattr(value, field), f"{path}{field}.")
    ]
    return [f"{path}{name}" for name in value.model_extra or {}] + known


# --- The openai package ----------------------------------------------------------------------------------------------


def test_json_is_a_transcription(client: openai.OpenAI, clip: Clip) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(file=clip.path, model="whisper-1")
    found = _validated(Transcription, answer.content)
    assert words(found.text) == words(clip.text)
    assert [language.code for language in found.languages] == ["en"]
    assert found.usage.seconds == -int(-clip.seconds // 1)
    assert _strangers(found) == []


@pytest.mark.parametrize("granularities", [["segment"], ["word"], ["word", "segment"]])
def test_verbose_json_is_a_verbose_transcription(
    client: openai.OpenAI, clip: Clip, granularities: list[Any]
) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(
        file=clip.path,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=granularities,
    )
    found = _validated(TranscriptionVerbose, answer.content)
    assert (found.language, words(found.text)) == ("english", words(clip.text))
    assert (found.segments is not None, found.words is not None) == (
        "segment" in granularities,
        "word" in granularities,
    )
    # `task` is in OpenAI's own answers; `languages` is the code that `language` is not; confidence is for agents.
    ours = {"words.probability"} if "word" in granularities else set()
    assert set(_strangers(found)) == {"task", "languages"} | ours


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
async def test_both_clients_get_the_same_text_in_every_plain_format(
    client: openai.OpenAI, async_client: openai.AsyncOpenAI, clip: Clip, form: Any
) -> None:
    one = client.audio.transcriptions.create(file=clip.path, model="tiny.en", response_format=form)
    other = await async_client.audio.transcriptions.create(
        file=clip.path, model="tiny.en", response_format=form
    )
    assert one == other
    assert set(words(clip.text)) <= set(words(one))


async def test_the_asynchronous_client_gets_both_forms_of_json(
    async_client: openai.AsyncOpenAI, clip: Clip
) -> None:
    create = async_client.audio.transcriptions.create
    plain = await create(file=clip.path, model="tiny.en")
    verbose = await create(file=clip.path, model="tiny.en", response_format="verbose_json")
    assert isinstance(verbose, TranscriptionVerbose)
    assert words(plain.text) == words(verbose.text) == words(clip.text)


def test_every_event_of_a_stream_is_one_of_openai_s(client: openai.OpenAI) -> None:
    spoken = recording()
    with client.audio.transcriptions.with_streaming_response.create(
        file=spoken.path, model="gpt-4o-transcribe", stream=True
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    events = [
        _validated(TranscriptionStreamEvent, line.removeprefix("data: "))
        for line in lines
        if line != "data: [DONE]"
    ]
    kinds = [event.type for event in events]
    assert kinds == ["transcript.text.delta"] * (len(events) - 1) + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert [name for event in events for name in _strangers(event)] == []


async def test_the_asynchronous_client_reads_the_stream(async_client: openai.AsyncOpenAI, clip: Clip) -> None:
    stream = await async_client.audio.transcriptions.create(
        file=clip.path, model="gpt-4o-transcribe", stream=True
    )
    events = [event async for event in stream]
    assert events[-1].type == "transcript.text.done"
    assert words(events[-1].text) == words(clip.text)


def test_models_are_openai_s_models(client: openai.OpenAI) -> None:
    listed = json.loads(client.models.with_raw_response.list().content)
    assert listed["object"] == "list"
    for model in listed["data"]:
        _validated(Model, json.dumps(model))
    one = _validated(Model, client.models.with_raw_response.retrieve("whisper-1").content)
    assert one.id == "whisper-1"


# --- livekit-plugins-openai ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["whisper-1", "tiny.en"])
async def test_livekit_s_own_plugin_recognizes_over_rest(
    async_client: openai.AsyncOpenAI, clip: Clip, model: str
) -> None:
    """Under OpenAI's name it asks for verbose_json, under any other for json."""
    heard = livekit_openai.STT(model=model, client=async_client, use_realtime=False)
    event = await heard.recognize(frames(clip.samples(), 48_000))
    await heard.aclose()
    assert words(event.alternatives[0].text) == words(clip.text)
    assert event.alternatives[0].language == "en"


async def test_livekit_s_own_plugin_hears_live_audio_behind_a_vad(async_client: openai.AsyncOpenAI) -> None:
    said = [clip for clip in clips() if clip.path.stem in {"yes_please", "opening_hours"}]
    adapter = stt.StreamAdapter(
        stt=livekit_openai.STT(model="whisper-1", client=async_client, use_realtime=False),
        vad=silero.VAD.load(min_silence_duration=0.4),
    )
    async with adapter.stream() as stream:
        for frame in frames(
            np.concatenate([SILENCE, *(part for clip in said for part in (clip.samples(), SILENCE))])
        ):
            stream.push_frame(frame)
        stream.end_input()
        finals = [event.alternatives[0].text async for event in stream if event.alternatives]
    await adapter.aclose()
    assert [words(text) for text in finals] == [words(clip.text) for clip in said]


async def test_livekit_s_own_plugin_reads_why_it_was_refused(
    async_client: openai.AsyncOpenAI, clip: Clip
) -> None:
    heard = livekit_openai.STT(model="huge", client=async_client, use_realtime=False)
    with pytest.raises(APIStatusError) as refused:
        await heard.recognize(frames(clip.samples()))
    await heard.aclose()
    assert refused.value.status_code == 404
    assert "served models" in str(refused.value.message)


# --- docs/how-to/openai-clients.md -----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["sh", "python"])
def test_every_block_of_the_page_does_what_the_page_says(platform: RunningPlatform, language: str) -> None:
    spoken = next(clip for clip in clips() if clip.path.stem == "appointment")
    command = {"sh": ["sh", "-euc"], "python": [sys.executable, "-c"]}[language]
    told = [(block, ran([*command, block])) for block in blocks(PAGE, language, gateway=platform.url)]
    assert len(told) == 3
    for block, output in told:
        if language == "sh" or "print(" in block:
            assert set(words(spoken.text)) <= set(words(output)), block
