"""Realtime sessions at the gateway's limits: who may come in, how long, and how sessions end without losing anything.

The pods are scripts behind real HTTP and answer with their names; the speech and the detector are real.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from everwarm.gateway import run_gateway
from everwarm.settings import GatewaySettings
from everwarm_core.errors import InvalidAudio, Unauthorized
from tests.support.faulty_pods import announce, die, faulty_pod, hang, record_of, refuse, tell
from tests.support.realtime import SILENCE, RealtimeClient, at_24_khz, realtime
from tests.support.speech import clips
from tests.support.waiting import until

SPEECH = at_24_khz(clips()[0].samples())
FAILED = "conversation.item.input_audio_transcription.failed"
COMPLETED = "conversation.item.input_audio_transcription.completed"


class Running:
    """A gateway at *url*, whose drain begins when *stop* is set and has ended when *done* is."""

    def __init__(self, url: str, stop: asyncio.Event, done: asyncio.Event) -> None:
        self.url, self.stop, self.done = url, stop, done


@asynccontextmanager
async def gateway(redis_url: str, **changes: object) -> AsyncIterator[Running]:
    settings = GatewaySettings(
        redis_url=redis_url,
        gateway_port=0,
        realtime_partial_seconds=0,  # scripts count questions
        **changes,  # type: ignore[arg-type]  # fields by name
    )
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop, done = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        await run_gateway(settings, ready=up.set_result, stop=stop)
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(run())
        yield Running(await up, stop, done)
        stop.set()


async def speak(client: RealtimeClient) -> None:
    """One utterance that the client ends by itself, so that nothing is decoded early."""
    await client.speak(SPEECH)
    await client.send("input_audio_buffer.commit")


@asynccontextmanager
async def talking(door: Running, *, token: str | None = None) -> AsyncIterator[RealtimeClient]:
    async with realtime(door.url, model="base.en", token=token) as client:
        await client.update(turn_detection=None)
        yield client


async def test_pods_that_die_refuse_or_do_not_know_cost_no_utterance(redis_url: str) -> None:
    script = [die, refuse(), die]
    async with faulty_pod("pod-0") as one, faulty_pod("pod-1") as other:
        one.script = other.script = script
        await announce(redis_url, [record_of(one), record_of(other)])
        async with gateway(redis_url) as door, talking(door) as client:
            await speak(client)
            assert (await client.transcript()) in {"pod-0", "pod-1"}
            assert client.kinds().count(COMPLETED) == 1


async def test_utterance_that_no_pod_can_do_has_failed_and_the_next_one_is_heard(redis_url: str) -> None:
    async with faulty_pod("pod-0", tell(InvalidAudio("damaged"))) as pod:
        await announce(redis_url, [record_of(pod)])
        async with gateway(redis_url) as door, talking(door) as client:
            await speak(client)
            assert (await client.next(FAILED))["error"]["code"] == "invalid_audio"
            await speak(client)
            assert await client.transcript() == "pod-0"


async def test_pods_that_do_not_know_the_gateways_token_are_not_told_as_the_callers_wrong_key(
    redis_url: str,
) -> None:
    async with faulty_pod("pod-0") as pod:
        pod.script = [tell(Unauthorized())] * 9
        await announce(redis_url, [record_of(pod)])
        async with gateway(redis_url, deadline_seconds=3) as door, talking(door) as client:
            await speak(client)
            assert (await client.next(FAILED))["error"]["code"] == "internal_error"


async def test_key_is_asked_for_and_its_seconds_are_counted(redis_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret-key-of-a-caller audio_seconds_per_minute=2\n", encoding="utf-8")
    async with faulty_pod("pod-0") as pod:
        await announce(redis_url, [record_of(pod)])
        async with gateway(redis_url, gateway_api_keys_file=keys) as door:
            with pytest.raises(InvalidStatus) as refused:
                async with realtime(door.url, token="another"):
                    pass
            assert refused.value.response.status_code == 401
            async with talking(door, token="secret-key-of-a-caller") as client:
                await speak(client)
                assert await client.transcript() == "pod-0"
                await speak(client)  # more than is left of this minute
                assert (await client.next(FAILED))["error"]["code"] == "rate_limit_exceeded"


async def test_sessions_are_counted_and_one_too_many_is_refused_at_the_door(redis_url: str) -> None:
    async with gateway(redis_url, realtime_sessions=1) as door:
        async with realtime(door.url):
            with pytest.raises(InvalidStatus) as refused:
                async with realtime(door.url):
                    pass
        response = refused.value.response
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert json.loads(response.body or b"")["error"]["code"] == "too_many_sessions"


@pytest.mark.parametrize("limit", [{"realtime_idle_seconds": 0.3}, {"realtime_session_seconds": 0.3}])
async def test_session_that_is_idle_or_lasts_too_long_is_told_so_and_ended(
    redis_url: str, limit: dict[str, object]
) -> None:
    async with gateway(redis_url, **limit) as door, realtime(door.url) as client:
        assert (await client.next("error"))["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed) as closed:
            await client.next("error")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


async def test_audio_that_is_never_committed_is_refused_at_its_limit_and_can_still_be_committed(
    redis_url: str,
) -> None:
    async with faulty_pod("pod-0") as pod:
        await announce(redis_url, [record_of(pod)])
        async with gateway(redis_url, realtime_utterance_seconds=2) as door, talking(door) as client:
            await client.speak(*[SPEECH] * 3)
            assert (await client.next("error"))["error"]["code"] == "utterance_too_long"
            await client.send("input_audio_buffer.commit")
            assert await client.transcript() == "pod-0"
            assert client.kinds().count("error") == 1


async def test_silent_session_is_closed_at_once_when_the_gateway_drains(redis_url: str) -> None:
    async with gateway(redis_url) as door, realtime(door.url) as client:
        await client.speak(SILENCE)
        door.stop.set()
        with pytest.raises(ConnectionClosed) as closed:
            await client.next(COMPLETED)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        async with asyncio.timeout(10):
            await door.done.wait()


async def test_open_utterance_gets_its_transcript_before_a_draining_gateway_ends_the_session(
    redis_url: str,
) -> None:
    async with faulty_pod("pod-0", hang) as pod:
        await announce(redis_url, [record_of(pod)])
        async with gateway(redis_url) as door, talking(door) as client:
            await client.speak(SPEECH)
            door.stop.set()
            await client.send("input_audio_buffer.commit")
            await until(lambda: pod.held == 1)
            assert not door.done.is_set()
            pod.released.set()
            assert await client.transcript() == "pod-0"
            with pytest.raises(ConnectionClosed) as closed:
                await client.next(COMPLETED)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012


async def test_client_that_never_reads_is_let_go_and_nothing_is_left_of_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everwarm_core.realtime.session.SEND_TIMEOUT_S", 0.5)
    monkeypatch.setattr("everwarm_core.http.websocket.LINGER_S", 0.5)
    update = json.dumps({"type": "session.update", "session": {"type": "transcription"}}).encode()
    frame = b"\x81" + bytes([0x80 | len(update)]) + b"\0\0\0\0" + update  # text, masked by zeros
    async with gateway(redis_url) as door:
        before = len(asyncio.all_tasks())
        host, port = door.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(
            b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        try:
            async with asyncio.timeout(30):
                while not writer.is_closing():
                    writer.write(frame * 100)
                    await writer.drain()
        except OSError:
            pass  # let go, as it should be
        finally:
            writer.transport.abort()
        del reader
        await until(lambda: len(asyncio.all_tasks()) <= before)
