"""The gateway's /openapi.json, held against what it answers to requests that nobody has thought of."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from jsonschema import Draft202012Validator

from everwarm.gateway import run_gateway
from everwarm.settings import GatewaySettings
from tests.fixtures.valkey import running_valkey
from tests.support.described import operations, statuses_of
from tests.support.faulty_pods import announce, faulty_pod, record_of
from tests.support.wire import ask, ask_pcm

KEYS = "free\nspent audio_seconds_per_minute=1\n"
START_S = 30.0


class InAThread:
    """A gateway in front of one healthy pod, in an event loop of its own, for tests that have none."""

    def __init__(self, redis_url: str, keys: Path) -> None:
        self._redis_url, self._keys = redis_url, keys
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        settings = GatewaySettings(
            redis_url=self._redis_url, gateway_port=0, gateway_api_keys_file=self._keys, deadline_seconds=2.0
        )
        async with faulty_pod("pod-a") as pod:
            await announce(self._redis_url, [record_of(pod)], ttl_s=600.0)
            await run_gateway(settings, ready=self._up, stop=self._stop)

    def _up(self, url: str) -> None:
        self.url = url
        self._is_up.set()


@pytest.fixture(scope="module")
def gateway_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEYS)
    with running_valkey() as valkey, InAThread(valkey.url, keys) as gateway:
        yield gateway.url


@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module"
)  # the gateway's thread does, not a strategy
def test_no_request_is_answered_by_anything_that_is_not_described(gateway_url: str) -> None:
    for operation in operations(gateway_url):
        seen = statuses_of(operation, model="base.en", headers={"authorization": "Bearer free"}, examples=25)
        assert seen, operation.label


def test_what_a_key_may_not_have_is_described_wherever_it_may_be_asked_for(gateway_url: str) -> None:
    headers = {"authorization": "Bearer spent"}
    ask_pcm(gateway_url, "model=base.en", b"\0\0" * 16_000 * 600, headers)
    document = ask(gateway_url, "/openapi.json").json()
    assert isinstance(document, dict)
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/transcribe"):
        answer = ask(gateway_url, path, body=b"x", headers=headers)
        assert answer.status == 429
        described = document["paths"][path]["post"]["responses"]["429"]["content"]["application/json"]
        Draft202012Validator({**described["schema"], "components": document["components"]}).validate(
            answer.json()
        )
