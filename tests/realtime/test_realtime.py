"""Realtime sessions with real speech, real decodes and the protocol's own words, at the gateway and at a pod."""

import asyncio
import json
import signal
import socket
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np
import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State
from websockets.uri import parse_uri

from everwarm_core.realtime.events import MAX_EVENT_CHARS
from everwarm_core.realtime.session import ERRORS_IN_A_ROW
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import PodState
from tests.support.platform import RunningPlatform
from tests.support.realtime import SILENCE, at_24_khz, realtime
from tests.support.speech import Clip, clips, words
from tests.support.waiting import until

pytestmark = [pytest.mark.weights, pytest.mark.timeout(120)]

SERVER_EVENT = TypeAdapter[RealtimeServerEvent](RealtimeServerEvent)
FIRST, SECOND = clips()[0], clips()[1]


def assert_heard(text: str, clip: Clip) -> None:
    """*text* is what is said in *clip*, but for a word or two."""
    said, heard = words(clip.text), words(text)
    missing = [word for word in said if word not in heard]
    assert len(missing) <= len(said) // 5, (clip.text, text)


async def test_speech_is_cut_at_its_silences_and_each_utterance_has_its_whole_story(base_url: str) -> None:
    async with realtime(base_url) as client:
        await client.speak(SILENCE, at_24_khz(FIRST.samples()), SILENCE, at_24_khz(SECOND.samples()), SILENCE)
        assert_heard(await client.transcript(), FIRST)
        assert_heard(await client.transcript(), SECOND)
    stories: dict[str, list[str]] = {}
    for event in client.events:
        SERVER_EVENT.validate_python(event, strict=True)
        if item_id := event.get("item_id") or event.get("item", {}).get("id"):
            stories.setdefault(item_id, []).append(event["type"].removeprefix("conversation.item."))
    assert len(stories) == 2
    for item_id, story in stories.items():
        deltas = [kind for kind in story if kind == "input_audio_transcription.delta"]
        assert deltas
        assert [kind for kind in story if kind not in deltas] == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "added",
            "done",
            "input_audio_transcription.completed",
        ]
        final = next(e for e in client.events if e.get("item_id") == item_id and "transcript" in e)
        assert final["transcript"].startswith(client.deltas(item_id)) or client.deltas(item_id)
        assert final["usage"]["type"] == "duration"


async def test_spoken_at_its_own_pace_it_is_told_in_parts_before_it_ends(base_url: str) -> None:
    longest = max(clips(), key=lambda clip: clip.seconds)
    async with realtime(base_url) as client:
        await client.speak(at_24_khz(longest.samples()), SILENCE, pace=1.0)
        assert_heard(await client.transcript(), longest)
    kinds = client.kinds()
    first_delta = kinds.index("conversation.item.input_audio_transcription.delta")
    assert first_delta < kinds.index("input_audio_buffer.speech_stopped")


@pytest.mark.parametrize("form", ["audio/pcmu", "audio/pcma"])
async def test_telephone_formats_are_understood(base_url: str, form: str) -> None:
    from everwarm_core.realtime.audio import AudioFormat, _g711

    table = _g711(AudioFormat(form)).astype(np.int32)
    order = np.argsort(table)
    eight = at_24_khz(FIRST.samples())[::3]
    codes = order[np.clip(np.searchsorted(table[order], eight), 0, 255)].astype(np.uint8)
    async with realtime(base_url) as client:
        session = await client.update(format={"type": form})
        assert session["session"]["audio"]["input"]["format"] == {"type": form}
        for start in range(0, len(codes), 800):
            await client.append(codes[start : start + 800].tobytes())
        await client.send("input_audio_buffer.commit")
        text = await client.transcript()
    assert set(words(text)) & set(words(FIRST.text))


async def test_client_may_say_itself_when_an_utterance_ends(base_url: str) -> None:
    async with realtime(base_url, model=None) as client:
        await client.append(
            at_24_khz(FIRST.samples())[:2400].astype("<i2").tobytes()
        )  # before the model is known
        session = await client.update(
            transcription={"model": "tiny.en", "language": "en"}, turn_detection=None
        )
        assert session["session"]["audio"]["input"]["turn_detection"] is None
        await client.speak(at_24_khz(FIRST.samples())[2400:])
        await client.send("input_audio_buffer.commit")
        assert_heard(await client.transcript(), FIRST)
        await client.speak(at_24_khz(SECOND.samples()))
        await client.send("input_audio_buffer.commit")
        assert_heard(await client.transcript(), SECOND)
    assert "input_audio_buffer.speech_started" not in client.kinds()


async def test_beta_clients_are_understood(base_url: str) -> None:
    async with realtime(base_url, model=None) as client:
        await client.send(
            "transcription_session.update",
            session={"input_audio_transcription": {"model": "tiny.en"}, "input_audio_format": "pcm16"},
        )
        updated = await client.next("transcription_session.updated")
        assert updated["session"]["input_audio_transcription"] == {"model": "tiny.en"}
        await client.speak(at_24_khz(FIRST.samples()), SILENCE)
        assert_heard(await client.transcript(), FIRST)


async def test_client_may_clear_what_it_sent(base_url: str) -> None:
    async with realtime(base_url) as client:
        await client.update(turn_detection=None)
        await client.speak(at_24_khz(FIRST.samples()))
        await client.send("input_audio_buffer.clear")
        await client.next("input_audio_buffer.cleared")
        await client.speak(at_24_khz(SECOND.samples()))
        await client.send("input_audio_buffer.commit")
        assert_heard(await client.transcript(), SECOND)


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("no json", "invalid_event", None),
        (b"\x00\x01", "invalid_event", None),
        (json.dumps({"type": "response.create"}), "invalid_event", "type"),
        (json.dumps({"type": "input_audio_buffer.append", "audio": "%"}), "invalid_event", "audio"),
        (
            json.dumps({"type": "input_audio_buffer.commit"}),
            "input_audio_buffer_commit_empty",
            "input_audio_buffer",
        ),
        (
            json.dumps(
                {
                    "type": "session.update",
                    "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
                }
            ),
            "invalid_event",
            "session.audio.input.format.rate",
        ),
        (
            json.dumps(
                {
                    "type": "session.update",
                    "session": {
                        "audio": {"input": {"transcription": {"model": "tiny.en", "language": "de"}}}
                    },
                }
            ),
            "invalid_event",
            "language",
        ),
    ],
)
async def test_mistake_is_told_and_the_session_goes_on(
    base_url: str, message: str | bytes, code: str, param: str | None
) -> None:
    async with realtime(base_url) as client:
        await client.socket.send(message)
        error = (await client.next("error"))["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
        await client.speak(at_24_khz(FIRST.samples()), SILENCE)
        assert_heard(await client.transcript(), FIRST)


async def test_client_that_only_makes_mistakes_is_disconnected(base_url: str) -> None:
    async with realtime(base_url) as client:
        for _ in range(ERRORS_IN_A_ROW):
            await client.socket.send("no json")
            await client.next("error")
        with pytest.raises(ConnectionClosed) as closed:
            await client.next("error")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_message_that_is_too_large_closes_the_connection_with_a_code_its_sender_sees_even_at_the_end(
    base_url: str,
) -> None:
    server = urlsplit(base_url)
    client = ClientProtocol(parse_uri(f"ws://{server.netloc}/v1/realtime?model=tiny.en"), max_size=None)
    with socket.create_connection((server.hostname, server.port or 80), timeout=20) as tcp:
        client.send_request(client.connect())
        tcp.sendall(b"".join(client.data_to_send()))
        while client.state is State.CONNECTING:
            client.receive_data(tcp.recv(1 << 16))
        client.send_text(b"x" * (16 * MAX_EVENT_CHARS))
        tcp.sendall(b"".join(client.data_to_send()))  # much more than what the sockets hold
        while client.close_rcvd is None:
            client.receive_data(tcp.recv(1 << 16))
    assert client.close_rcvd.code == 1009


async def test_unknown_model_is_told_for_the_utterance_or_at_the_door(
    platform: RunningPlatform, base_url: str
) -> None:
    if base_url != platform.url:  # a pod knows its names
        with pytest.raises(InvalidStatus) as refused:
            async with realtime(base_url, model="nonsense"):
                pass
        assert refused.value.response.status_code == 404
        assert json.loads(refused.value.response.body or b"")["error"]["code"] == "model_not_found"
        return
    async with realtime(base_url, model="nonsense") as client:
        await client.speak(at_24_khz(FIRST.samples()), SILENCE)
        failed = await client.next("conversation.item.input_audio_transcription.failed")
    assert failed["error"]["code"] == "model_not_found"


def test_plain_http_is_told_to_upgrade(base_url: str) -> None:
    answer = httpx.get(f"{base_url}/v1/realtime")
    assert (answer.status_code, answer.json()["error"]["code"]) == (426, "upgrade_required")


async def test_clients_that_vanish_leave_nothing_behind(base_url: str) -> None:
    speech = at_24_khz(FIRST.samples())

    async def vanish() -> None:
        async with realtime(base_url) as client:
            await client.speak(speech[: len(speech) // 2])
            client.socket.transport.abort()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(vanish())
    async with asyncio.timeout(20):
        while await _gauge(base_url, "everwarm_realtime_sessions") > 0:  # noqa: ASYNC110 - polls a condition
            await asyncio.sleep(0.1)
    async with realtime(base_url) as client:
        await client.speak(speech, SILENCE)
        assert_heard(await client.transcript(), FIRST)


async def test_pod_that_dies_in_the_middle_of_a_session_costs_no_utterance(platform: RunningPlatform) -> None:
    registry = RegistryReader(platform.redis_url(), "local")

    async def warm() -> set[str]:
        pods = [lease.pod for lease in (await registry.read_all()).leases]
        return {pod.boot for pod in pods if pod.state is PodState.WARM}

    async with registry, realtime(platform.url) as client:
        for clip in clips()[:3]:
            before = await warm()
            await client.speak(at_24_khz(clip.samples()), SILENCE)
            platform.pods()[0].send_signal(signal.SIGKILL)
            assert_heard(await client.transcript(), clip)

            async def is_replaced(before: set[str] = before) -> bool:  # its record outlives it by seconds
                now = await warm()
                return len(now) == 2 and now != before

            await until(is_replaced, within_s=60)


async def _gauge(base_url: str, name: str) -> float:
    async with httpx.AsyncClient() as http:
        page = (await http.get(f"{base_url}/metrics")).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))
