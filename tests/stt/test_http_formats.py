"""Every way to ask for a transcript and to get it, by the public `openai` client and by plain HTTP."""

import json
from collections.abc import Iterator

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.audio import TranscriptionVerbose

from everwarm_core.transcript import parse_verbose_json
from tests.support.pods import PodProcess
from tests.support.speech import Clip, clips, recording, words
from tests.support.wire import ask, ask_form, ask_pcm

MODEL = ("model", "tiny.en")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return clips()[0]


@pytest.fixture(scope="module")
def client(pod: PodProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{pod.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


# --- The openai client ----------------------------------------------------------------------------------------------


def test_json_carries_the_words_that_were_said(client: OpenAI, clip: Clip) -> None:
    answer = client.audio.transcriptions.create(file=clip.path, model="tiny.en")
    assert words(answer.text) == words(clip.text)


@pytest.mark.parametrize("name", ["tiny.en", "english", "whisper-1"])
def test_every_name_of_the_pod_is_served(client: OpenAI, clip: Clip, name: str) -> None:
    assert client.audio.transcriptions.create(file=clip.path, model=name).text


def test_verbose_json_has_every_field_of_a_segment(client: OpenAI, clip: Clip) -> None:
    answer = client.audio.transcriptions.create(
        file=clip.path, model="tiny.en", response_format="verbose_json"
    )
    assert isinstance(answer, TranscriptionVerbose)
    assert answer.language == "english"
    assert float(answer.duration) == pytest.approx(clip.seconds, abs=0.05)
    assert answer.words is None
    assert answer.segments
    segment = answer.segments[0]
    assert 0 <= segment.start < segment.end <= clip.seconds + 0.5
    assert segment.tokens
    for figure in (
        segment.avg_logprob,
        segment.compression_ratio,
        segment.no_speech_prob,
        segment.temperature,
    ):
        assert isinstance(figure, float)


def test_word_granularity_alone_gives_words_and_no_segments(client: OpenAI, clip: Clip) -> None:
    answer = client.audio.transcriptions.create(
        file=clip.path, model="tiny.en", response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert answer.segments is None
    assert answer.words
    assert [w for spoken in answer.words for w in words(spoken.word)] == words(clip.text)
    assert all(a.start <= b.start for a, b in zip(answer.words, answer.words[1:], strict=False))


def test_text_is_the_bare_transcript(client: OpenAI, clip: Clip) -> None:
    answer = client.audio.transcriptions.create(file=clip.path, model="tiny.en", response_format="text")
    assert words(answer) == words(clip.text)


def test_subtitles_come_as_srt_and_vtt(client: OpenAI, clip: Clip) -> None:
    srt = client.audio.transcriptions.create(file=clip.path, model="tiny.en", response_format="srt")
    vtt = client.audio.transcriptions.create(file=clip.path, model="tiny.en", response_format="vtt")
    assert srt.startswith("1\n00:00:0")
    assert " --> " in srt
    assert vtt.startswith("WEBVTT\n\n00:00:0")


async def test_asynchronous_client_is_served_as_well(pod: PodProcess, clip: Clip) -> None:
    async with AsyncOpenAI(base_url=f"{pod.url}/v1", api_key="unused", max_retries=0) as client:
        answer = await client.audio.transcriptions.create(file=clip.path, model="tiny.en", language="en")
    assert words(answer.text) == words(clip.text)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's opinion of its own method
def test_translation_on_english_weights_is_a_bad_request(client: OpenAI, clip: Clip) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.translations.create(file=clip.path, model="tiny.en")
    assert refused.value.param == "model"


def test_unknown_model_is_not_found_and_the_names_that_exist_are_told(client: OpenAI, clip: Clip) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.audio.transcriptions.create(file=clip.path, model="large-v3")
    assert refused.value.code == "model_not_found"
    assert "tiny.en" in refused.value.message


def test_models_are_listed_and_found_by_name(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [
        "tiny.en", "english", "whisper-1", "gpt-4o-transcribe",
    ]  # fmt: skip
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("owner/unknown")


# --- Streaming ------------------------------------------------------------------------------------------------------


def test_streamed_deltas_joined_are_the_text_of_the_end(client: OpenAI) -> None:
    spoken = recording()
    stream = client.audio.transcriptions.create(file=spoken.path, model="gpt-4o-transcribe", stream=True)
    events = list(stream)
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert len(deltas) > 1
    assert "".join(deltas) == done.text
    assert len(set(words(done.text)) & set(words(spoken.text))) > 0.8 * len(set(words(spoken.text)))


def test_stream_ends_with_the_whole_text_and_no_usage(pod: PodProcess, clip: Clip) -> None:
    """OpenAI's type for this event knows a usage in tokens alone, and strict clients refuse any other."""
    answer = ask_form(pod.url, [MODEL, ("stream", "true")], clip.path.read_bytes())
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    last = json.loads(answer.body.decode().strip().split("\n\n")[-1].removeprefix("data: "))
    assert set(last) == {"type", "text", "languages"}
    assert words(last["text"]) == words(clip.text)


def test_stream_of_bad_audio_is_refused_by_its_status(pod: PodProcess) -> None:
    """Nothing was sent yet, so there is no need for an event that only some clients understand."""
    answer = ask_form(pod.url, [MODEL, ("stream", "true")], b"no audio at all")
    assert (answer.status, answer.error["code"]) == (400, "invalid_audio")


# --- The fast path --------------------------------------------------------------------------------------------------


def test_raw_samples_are_answered_in_verbose_json_that_agents_read_back(pod: PodProcess, clip: Clip) -> None:
    answer = ask_pcm(pod.url, "model=tiny.en&language=en", clip.pcm())
    transcript = parse_verbose_json(answer.body)
    assert words(transcript.text) == words(clip.text)
    assert transcript.language == "en"
    assert transcript.duration == pytest.approx(clip.seconds, abs=0.01)


def test_raw_samples_at_another_rate_are_resampled(pod: PodProcess, clip: Clip) -> None:
    halved = clip.samples()[::2].astype("<i2").tobytes()
    answer = ask(
        pod.url, "/v1/transcribe?model=tiny.en", body=halved, headers={"content-type": "audio/pcm; rate=8000"}
    )
    assert parse_verbose_json(answer.body).duration == pytest.approx(clip.seconds, abs=0.01)


# --- What every answer carries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("json", "application/json"),
        ("verbose_json", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("srt", "application/x-subrip; charset=utf-8"),
        ("vtt", "text/vtt; charset=utf-8"),
    ],
)
def test_format_has_its_content_type(pod: PodProcess, clip: Clip, form: str, content_type: str) -> None:
    answer = ask_form(pod.url, [MODEL, ("response_format", form)], clip.path.read_bytes())
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)


def test_answer_tells_pod_load_and_timing(pod: PodProcess, clip: Clip) -> None:
    headers = ask_pcm(pod.url, "model=tiny.en", clip.pcm()).headers
    assert headers["x-everwarm-pod"] == pod.events("pod.listening")[0]["pod"]
    assert (headers["x-everwarm-inflight"], headers["x-everwarm-slots"]) == ("0", "1")
    timing = dict(part.strip().split(";dur=") for part in headers["server-timing"].split(","))
    assert set(timing) == {"queue", "decode", "total"}
    assert 0 < float(timing["decode"]) <= float(timing["total"])


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/nowhere"])
def test_answer_carries_its_request_id_whatever_it_is(pod: PodProcess, path: str) -> None:
    assert ask(pod.url, path).headers["x-request-id"]


def test_sane_request_id_of_the_caller_comes_back(pod: PodProcess) -> None:
    answer = ask(pod.url, "/v1/models", headers={"x-request-id": "call-7:turn.3"})
    assert answer.headers["x-request-id"] == "call-7:turn.3"


@pytest.mark.parametrize("strange", ["a b", "x" * 129, 'quote"'])
def test_strange_request_id_is_replaced(pod: PodProcess, strange: str) -> None:
    """It ends up in logs and in somebody else's headers."""
    answer = ask(pod.url, "/v1/models", headers={"x-request-id": strange})
    assert answer.headers["x-request-id"] != strange


def test_server_does_not_name_its_software(pod: PodProcess) -> None:
    assert "server" not in ask(pod.url, "/livez").headers


def test_no_cross_origin_access_is_granted(pod: PodProcess) -> None:
    answer = ask(pod.url, "/v1/models", headers={"origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
