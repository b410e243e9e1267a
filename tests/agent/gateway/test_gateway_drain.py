"""A gateway that leaves while another one stays behind the same address: what clients with kept connections notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest
from websockets.exceptions import ConnectionClosed

from everwarm.gateway import run_gateway
from everwarm.settings import GatewaySettings
from tests.support.balancer import running_balancer
from tests.support.faulty_pods import announce, faulty_pod, record_of
from tests.support.realtime import RealtimeClient, at_24_khz, realtime
from tests.support.speech import clips
from tests.support.waiting import until

CLIP = clips()[0]


@asynccontextmanager
async def gateway(redis_url: str, stop: asyncio.Event) -> AsyncIterator[str]:
    """The URL of a gateway that drains when *stop* is set."""
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = GatewaySettings(redis_url=redis_url, gateway_port=0)
    async with asyncio.TaskGroup() as group:
        group.create_task(run_gateway(settings, ready=up.set_result, stop=stop))
        yield await up
        stop.set()


async def begin_to_speak(speaker: RealtimeClient) -> None:
    """Speak without an end, and be heard."""
    await speaker.speak(at_24_khz(CLIP.samples()))
    await speaker.next("input_audio_buffer.speech_started")


async def is_draining(http: aiohttp.ClientSession, url: str) -> bool:
    async with http.get(f"{url}/readyz") as answer:
        return answer.status == 503


async def test_a_stock_client_goes_to_the_other_gateway_while_somebody_speaks_at_the_one_that_leaves(
    redis_url: str,
) -> None:
    """The drain waits for who speaks, and its refusals end connections, so that a retry goes elsewhere."""
    stop = asyncio.Event()
    async with (
        faulty_pod("pod-0") as pod,
        gateway(redis_url, stop) as leaving,
        gateway(redis_url, asyncio.Event()) as staying,
        running_balancer() as balancer,
        openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="none") as client,
        aiohttp.ClientSession() as http,
    ):
        await announce(redis_url, [record_of(pod)])

        async def said() -> str:
            upload = (CLIP.path.name, CLIP.path.read_bytes())
            answer = await client.audio.transcriptions.create(file=upload, model="base.en", language="en")
            return answer.text

        balancer.take_in(urlsplit(leaving).port or 0)
        assert await said() == "pod-0"
        async with realtime(leaving, model="base.en") as speaker:
            await begin_to_speak(speaker)
            stop.set()
            await until(lambda: is_draining(http, leaving))
            balancer.take_out(urlsplit(leaving).port or 0)
            balancer.take_in(urlsplit(staying).port or 0)
            assert await said() == "pod-0"
            await speaker.send("input_audio_buffer.commit")
            assert await speaker.transcript() == "pod-0"


async def test_answers_of_a_gateway_that_leaves_are_the_last_of_their_connections(redis_url: str) -> None:
    stop = asyncio.Event()
    async with (
        gateway(redis_url, stop) as url,
        aiohttp.ClientSession() as http,
        realtime(url, model="base.en") as speaker,
    ):
        await begin_to_speak(speaker)
        async with http.get(f"{url}/livez") as answer:
            assert "connection" not in answer.headers
        stop.set()
        await until(lambda: is_draining(http, url))
        async with http.get(f"{url}/livez") as answer:
            assert answer.headers["connection"] == "close"


async def test_what_was_said_before_the_drain_is_heard_even_if_it_was_on_its_way(redis_url: str) -> None:
    stop = asyncio.Event()
    async with faulty_pod("pod-0") as pod, gateway(redis_url, stop) as url:
        await announce(redis_url, [record_of(pod)])
        async with realtime(url, model="base.en") as speaker:
            await speaker.update(turn_detection=None)
            await speaker.speak(at_24_khz(CLIP.samples()))
            stop.set()
            await speaker.send("input_audio_buffer.commit")
            assert await speaker.transcript() == "pod-0"
            with pytest.raises(ConnectionClosed) as closed:
                await speaker.next("error")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
