"""Keys at a running gateway: what they may take, what their callers are told, and what it is counted by."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

import everwarm
from everwarm.api_keys import digest_of
from everwarm.gateway import run_gateway
from everwarm.settings import GatewaySettings
from everwarm_core import errors
from everwarm_core.errors import SettingsError
from tests.agent.gateway.test_gateway import (
    PCM,
    PCM_TYPE,
    TRANSCRIBE,
    Gateway,
    error_of,
    form,
    gateway,
    pods,
)
from tests.support.faulty_pods import Behaviour, FaultyPod, die, events, hang, tell
from tests.support.waiting import until

MINUTE = b"\1\0" * 16_000 * 60
LIMIT, LEFT, RESET = (f"x-ratelimit-{what}-audio-seconds" for what in ("limit", "remaining", "reset"))
PLACES, FREE = "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"


@asynccontextmanager
async def keyed(
    redis_url: str, folder: Path, line: str, *script: Behaviour
) -> AsyncIterator[tuple[FaultyPod, Gateway]]:
    """A pod behind a gateway whose keys file has *line*; the key is `k`."""
    keys = folder / "keys"
    keys.write_text(line + "\n")
    async with (
        pods(redis_url, list(script)) as [pod],
        gateway(redis_url, gateway_api_keys_file=keys) as door,
    ):
        yield pod, door


async def asked(door: Gateway, data: bytes = PCM) -> tuple[int, bytes, Mapping[str, str]]:
    """The answer to samples, shown the key."""
    async with door.http.post(
        door.url + TRANSCRIBE, data=io.BytesIO(data), headers=PCM_TYPE | {"authorization": "Bearer k"}
    ) as answer:
        return answer.status, await answer.read(), {k.lower(): v for k, v in answer.headers.items()}


async def test_the_key_behind_a_hash_comes_in_and_the_hash_does_not(redis_url: str, tmp_path: Path) -> None:
    digest = digest_of("k").hex()
    async with keyed(redis_url, tmp_path, f"sha256:{digest}") as (_, door):
        assert (await asked(door))[0] == 200
        assert (await door.transcribe(authorization=f"Bearer {digest}"))[0] == 401
        assert (await door.transcribe(authorization=f"Bearer sha256:{digest}"))[0] == 401


async def test_more_utterances_at_a_time_than_the_key_may_have_are_429(
    redis_url: str, tmp_path: Path
) -> None:
    async with keyed(redis_url, tmp_path, "k concurrent=1", hang) as (pod, door):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(asked(door))
            await until(lambda: pod.received)
            code, body, headers = await asked(door)
            pod.released.set()
        assert (code, error_of(body)["code"], error_of(body)["type"]) == (
            429,
            "rate_limit_exceeded",
            "rate_limit_error",
        )
        assert (headers["retry-after"], headers[PLACES], headers[FREE]) == ("1", "1", "0")
        code, _, headers = first.result()
        assert (code, headers[FREE]) == (200, "1")
        assert (await asked(door))[0] == 200
        assert pod.asked == 2


async def test_a_429_comes_before_the_body_is_read(redis_url: str, tmp_path: Path) -> None:
    async with keyed(redis_url, tmp_path, "k concurrent=1", hang) as (pod, door):

        async def without_end() -> AsyncIterator[bytes]:
            yield PCM
            await pod.released.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(asked(door))
            await until(lambda: pod.received)
            async with door.http.post(
                door.url + TRANSCRIBE,
                data=without_end(),
                headers=PCM_TYPE | {"authorization": "Bearer k"},
                expect100=True,
            ) as answer:
                assert answer.status == 429
            pod.released.set()


async def test_seconds_are_counted_by_samples_and_refused_when_they_are_used_up(
    redis_url: str, tmp_path: Path
) -> None:
    async with keyed(redis_url, tmp_path, "k audio_seconds_per_minute=30") as (pod, door):
        code, _, headers = await asked(door, MINUTE)
        assert (code, headers[LIMIT], headers[LEFT]) == (200, "30", "0")
        assert 100 <= int(headers[RESET].removesuffix("s")) <= 120  # which time has begun to take off
        code, body, headers = await asked(door)
        assert (code, error_of(body)["code"]) == (429, "rate_limit_exceeded")
        assert 40 <= int(headers["retry-after"]) <= 62  # 30 s are owed, and one must be there
        assert pod.asked == 1


async def test_samples_of_undeclared_length_are_counted_when_they_are_there(
    redis_url: str, tmp_path: Path
) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        yield MINUTE

    async with (
        keyed(redis_url, tmp_path, "k audio_seconds_per_minute=600") as (_, door),
        door.http.post(
            door.url + TRANSCRIBE, data=unannounced(), headers=PCM_TYPE | {"authorization": "Bearer k"}
        ) as answer,
    ):
        assert answer.status == 200
        assert 540 <= int(answer.headers[LEFT]) < 590  # ten come back each second; uncounted, 596 were left


async def test_a_file_is_counted_by_the_length_its_answer_tells(redis_url: str, tmp_path: Path) -> None:
    """Its 800 kB would be 100 s by the guess that balances load."""
    async with (
        keyed(redis_url, tmp_path, "k audio_seconds_per_minute=10") as (_, door),  # none comes back for 6 s
        door.http.post(
            f"{door.url}/v1/audio/transcriptions",
            data=form(("model", "base.en"), ("language", "en"), file=b"ID3x" * 200_000),
            headers={"authorization": "Bearer k"},
        ) as answer,
    ):
        assert (answer.status, answer.headers[LEFT]) == (200, "9")


async def test_a_file_whose_answer_tells_no_length_is_counted_by_its_size(
    redis_url: str, tmp_path: Path
) -> None:
    async with (
        keyed(redis_url, tmp_path, "k audio_seconds_per_minute=600", events(b"data: {}\n\n")) as (_, door),
        door.http.post(
            f"{door.url}/v1/audio/transcriptions",
            data=form(("model", "base.en"), ("language", "en"), file=b"ID3x" * 200_000),
            headers={"authorization": "Bearer k"},
        ) as answer,
    ):
        assert answer.status == 200
        assert 499 <= int(answer.headers[LEFT]) < 590  # ten come back each second; uncounted, 600 were left


@pytest.mark.parametrize(
    "faults",
    [[tell(errors.InvalidAudio("no sound"))], [die, die, die]],
    ids=["the caller's fault", "the pods'"],
)
async def test_an_error_costs_no_seconds(redis_url: str, tmp_path: Path, faults: list[Behaviour]) -> None:
    line = "k audio_seconds_per_minute=10"  # none comes back for 6 s
    async with keyed(redis_url, tmp_path, line, *faults) as (_, door):
        assert (await asked(door))[0] in (400, 502)
        assert (await asked(door))[2][LEFT] == "9"


async def test_a_caller_that_leaves_gives_its_place_back(redis_url: str, tmp_path: Path) -> None:
    async with keyed(redis_url, tmp_path, "k concurrent=1", hang) as (pod, door):
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(asked(door))
            await until(lambda: pod.received)
            caller.cancel()
        await until(lambda: pod.held == 0)
        assert pod.asked == 1

        async def is_let_in() -> bool:
            return (await asked(door))[0] == 200

        await until(is_let_in)


async def test_keys_do_not_share_what_they_may_take(redis_url: str, tmp_path: Path) -> None:
    lines = "k audio_seconds_per_minute=30\nother audio_seconds_per_minute=30"
    async with keyed(redis_url, tmp_path, lines) as (_, door):
        assert (await asked(door, MINUTE))[0] == 200
        assert (await asked(door))[0] == 429
        assert (await door.transcribe(authorization="Bearer other"))[0] == 200


async def test_every_answer_to_a_limited_key_tells_its_limits_and_no_other_does(
    redis_url: str, tmp_path: Path
) -> None:
    async with keyed(redis_url, tmp_path, "k concurrent=2 audio_seconds_per_minute=60\nfree") as (_, door):
        for path in ("/v1/models", "/v1/models/nope"):
            async with door.http.get(door.url + path, headers={"authorization": "Bearer k"}) as answer:
                assert (answer.headers[PLACES], answer.headers[FREE], answer.headers[RESET]) == (
                    "2",
                    "2",
                    "0s",
                )
        async with door.http.post(
            door.url + "/v1/audio/transcriptions", data=b"{}", headers={"authorization": "Bearer k"}
        ) as answer:
            assert (answer.status, answer.headers[FREE], answer.headers[LEFT]) == (400, "2", "60")
        for shown in ("free", "wrong"):
            _, _, headers = await door.transcribe(authorization=f"Bearer {shown}")
            assert not [name for name in headers if name.startswith("x-ratelimit-")]


async def test_openai_s_client_raises_its_rate_limit_error(redis_url: str, tmp_path: Path) -> None:
    async with keyed(redis_url, tmp_path, "k audio_seconds_per_minute=30") as (_, door):
        await asked(door, MINUTE)
        async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="k", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as limited:
                await client.audio.transcriptions.create(file=("a.mp3", b"ID3"), model="base.en")
        assert limited.value.code == "rate_limit_exceeded"
        assert limited.value.response.headers[LEFT] == "0"


async def test_our_client_raises_the_gateway_s_error_when_its_deadline_does_not_reach_that_far(
    redis_url: str, tmp_path: Path
) -> None:
    async with keyed(redis_url, tmp_path, "k audio_seconds_per_minute=30") as (pod, door):
        await asked(door, MINUTE)
        async with everwarm.Client(base_url=door.url, api_key="k") as client:
            with pytest.raises(errors.RateLimited) as limited:
                await client.transcribe(b"ID3", model="base.en", deadline_s=5)
        assert limited.value.retry_after_s
        assert 40 <= limited.value.retry_after_s <= 62
        assert pod.asked == 1


async def test_a_gateway_says_which_line_of_its_keys_it_cannot_read(redis_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k\nsha256:abc\n")
    settings = GatewaySettings(redis_url=redis_url, gateway_port=0, gateway_api_keys_file=keys)
    with pytest.raises(SettingsError, match="EVERWARM_GATEWAY_API_KEYS_FILE: line 2: after sha256:"):
        await run_gateway(settings)
