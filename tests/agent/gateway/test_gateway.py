"""The gateway in front of pods that do as they are told: what it passes on, what it refuses, when it tries again."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from everwarm.gateway import run_gateway
from everwarm.settings import GatewaySettings
from everwarm_core.http.protocol import HEAD_BYTES
from everwarm_core.registry.records import PodState
from tests.fixtures.records import WAIT_S, pod_record
from tests.fixtures.valkey import OwnedValkey
from tests.support.faulty_pods import (
    Behaviour,
    FaultyPod,
    announce,
    answer,
    die,
    die_in_the_answer,
    events,
    faulty_pod,
    hang,
    record_of,
    refuse,
    status,
)
from tests.support.waiting import until

PCM = b"\1\0" * 16_000
PCM_TYPE = {"content-type": "audio/pcm;rate=16000"}
TRANSCRIBE = "/v1/transcribe?model=base.en&language=en"


class Gateway:
    """A running gateway and a client of it."""

    def __init__(self, url: str, http: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        self.url, self.http, self.stop = url, http, stop

    async def transcribe(self, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        async with self.http.post(
            self.url + TRANSCRIBE,
            data=PCM,
            headers=PCM_TYPE | {k.replace("_", "-"): v for k, v in headers.items()},
        ) as answer:
            return answer.status, await answer.read(), {k.lower(): v for k, v in answer.headers.items()}


@asynccontextmanager
async def gateway(redis_url: str, **changes: object) -> AsyncIterator[Gateway]:
    settings = GatewaySettings(redis_url=redis_url, gateway_port=0, **changes)  # type: ignore[arg-type]  # fields by name
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as http:
        group.create_task(run_gateway(settings, ready=up.set_result, stop=stop))
        yield Gateway(await up, http, stop)
        stop.set()


@asynccontextmanager
async def pods(
    redis_url: str, *scripts: list[Behaviour], **changes: object
) -> AsyncIterator[list[FaultyPod]]:
    """Announced pods; those given the same list share it."""
    async with AsyncExitStack() as stack:
        started = []
        for number, script in enumerate(scripts):
            pod = await stack.enter_async_context(faulty_pod(f"pod-{number}"))
            pod.script = script
            started.append(pod)
        await announce(redis_url, [record_of(pod, **changes) for pod in started])
        yield started


def form(*fields: tuple[str, str], file: bytes = b"ID3 sound", file_at: int = 99) -> aiohttp.MultipartWriter:
    """A form whose file comes after *file_at* fields."""
    writer = aiohttp.MultipartWriter("form-data")
    parts: list[tuple[str, object]] = list(fields)
    parts.insert(file_at, ("file", file))
    for name, value in parts:
        if isinstance(value, bytes):
            part = writer.append(value, {"content-type": "audio/mpeg"})
            part.set_content_disposition("form-data", name=name, filename="a.mp3")
        else:
            writer.append(str(value)).set_content_disposition("form-data", name=name)
    return writer


def error_of(body: bytes) -> dict[str, object]:
    """The error in *body*; it has OpenAI's four fields."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


async def test_an_answer_is_passed_on_with_the_names_of_who_gave_it(redis_url: str) -> None:
    async with pods(redis_url, []) as [pod], gateway(redis_url) as door:
        code, body, headers = await door.transcribe(x_request_id="call-7")
        assert code == 200
        assert json.loads(body)["text"] == "pod-0"
        assert headers["x-request-id"] == pod.received[0].headers["x-request-id"] == "call-7"
        assert headers["x-everwarm-pod"] == "pod-0"
        assert headers["server-timing"].startswith(
            "queue;dur=1.0, decode;dur=20.0, total;dur=21.0, gateway;dur="
        )
        assert pod.received[0].body == PCM
        assert pod.received[0].query == "model=base.en&language=en"


async def test_the_same_trace_goes_through_the_gateway(redis_url: str) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with pods(redis_url, []) as [pod], gateway(redis_url) as door:
        await door.transcribe(traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
        assert pod.received[0].headers["traceparent"].split("-")[1] == trace_id


@pytest.mark.parametrize("file_at", [0, 1, 2], ids=["file first", "file between", "file last"])
async def test_a_form_is_passed_on_as_it_is_in_whatever_order_it_came(redis_url: str, file_at: int) -> None:
    async with pods(redis_url, []) as [pod], gateway(redis_url) as door:
        sent = form(("model", "base.en"), ("language", "en"), file=b"ID3" * 100_000, file_at=file_at)
        async with door.http.post(f"{door.url}/v1/audio/transcriptions", data=sent) as answer:
            assert answer.status == 200
        assert pod.received[0].headers["content-type"] == sent.content_type
        assert pod.received[0].body.count(b"ID3") == 100_000
        assert pod.received[0].body.endswith(b"--\r\n")


@pytest.mark.parametrize(
    "fault",
    [refuse(), die, die_in_the_answer, status(502)],
    ids=["full", "dies", "dies in the answer", "502"],
)
@pytest.mark.parametrize("file_at", [0, 2], ids=["file first", "file last"])
async def test_the_whole_form_is_sent_again_when_a_pod_fails(
    redis_url: str, fault: Behaviour, file_at: int
) -> None:
    script = [fault]
    async with pods(redis_url, script, script) as both, gateway(redis_url) as door:
        sent = form(("model", "base.en"), ("language", "en"), file=b"ID3" * 200_000, file_at=file_at)
        async with door.http.post(f"{door.url}/v1/audio/translations", data=sent) as answer:
            assert answer.status == 200
            assert answer.headers["x-everwarm-attempts"] == "2"
        assert [pod.asked for pod in both] == [1, 1]
        got = [received for pod in both for received in pod.received]
        assert got[-1].body.count(b"ID3") == 200_000
        assert got[-1].path == "/v1/audio/translations"


async def test_a_pod_is_fed_while_the_caller_is_still_sending(redis_url: str) -> None:
    async with pods(redis_url, []) as [pod], gateway(redis_url) as door:
        reached = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield PCM
            await until(lambda: pod.asked)
            reached.set()
            yield PCM

        async with door.http.post(door.url + TRANSCRIBE, data=slowly(), headers=PCM_TYPE) as answer:
            assert answer.status == 200
        assert reached.is_set()
        assert pod.received[0].body == PCM + PCM


async def test_events_are_passed_on_one_by_one(redis_url: str) -> None:
    first, second = b'data: {"type": "a"}\n\n', b'data: {"type": "b"}\n\n'
    async with (
        pods(redis_url, [events(first, second)]) as [pod],
        gateway(redis_url) as door,
        door.http.post(door.url + TRANSCRIBE, data=PCM, headers=PCM_TYPE) as answer,
    ):
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readuntil(b"\n\n") == first
        pod.released.set()
        assert await answer.content.read() == second


async def test_events_that_break_off_end_with_an_error_event(redis_url: str) -> None:
    first = b'data: {"type": "a"}\n\n'
    async with pods(redis_url, [events(first, dies=True)]) as [pod], gateway(redis_url) as door:
        async with door.http.post(door.url + TRANSCRIBE, data=PCM, headers=PCM_TYPE) as answer:
            body = await answer.read()
        assert body.startswith(first)
        assert error_of(body.removeprefix(first).removeprefix(b"data: "))["code"] == "pod_failed"
        assert pod.asked == 1


async def test_a_caller_that_leaves_frees_the_pods_place(redis_url: str) -> None:
    async with pods(redis_url, [hang]) as [pod], gateway(redis_url) as door:
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(door.transcribe())
            await until(lambda: pod.received)
            caller.cancel()
        await until(lambda: pod.held == 0)
        assert pod.asked == 1


async def test_an_unknown_model_is_404_and_names_those_there_are(redis_url: str) -> None:
    async with pods(redis_url, []), gateway(redis_url) as door:
        async with door.http.post(
            f"{door.url}/v1/transcribe?model=nope", data=PCM, headers=PCM_TYPE
        ) as answer:
            assert answer.status == 404
            error = error_of(await answer.read())
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "base.en" in str(error["message"])


async def test_a_model_that_is_still_loading_is_503_with_retry_after_at_the_deadline(redis_url: str) -> None:
    await announce(redis_url, [pod_record(state=PodState.WARMING, load_s=4.0, warm_s=2.0)])
    async with gateway(redis_url) as door:
        await until_ready(door)  # else the deadline may be over before the registry was read once
        async with door.http.get(f"{door.url}/v1/models") as models:
            assert models.status == 200
        code, body, headers = await door.transcribe(x_everwarm_deadline_ms="200")
        assert (code, error_of(body)["code"]) == (503, "model_not_warm")
        assert headers["retry-after"] == "6"


async def test_a_gateway_without_a_registry_says_so(own_valkey: OwnedValkey) -> None:
    own_valkey.kill()
    async with gateway(own_valkey.url) as door:
        async with door.http.get(f"{door.url}/readyz") as answer:
            assert answer.status == 503
        code, body, _ = await door.transcribe(x_everwarm_deadline_ms="200")
        assert (code, error_of(body)["code"]) == (503, "registry_unavailable")
        own_valkey.start()
        await until_ready(door)


async def test_a_head_without_an_end_is_refused(redis_url: str) -> None:
    async with gateway(redis_url) as door:
        reader, writer = await asyncio.open_connection(*door.url.removeprefix("http://").split(":"))
        writer.write(b"GET /livez HTTP/1.1\r\nx: " + b"a" * (HEAD_BYTES + 1))
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()


async def until_ready(door: Gateway) -> None:
    async def is_ready() -> bool:
        async with door.http.get(f"{door.url}/readyz") as answer:
            return answer.status == 200

    await until(is_ready)


@pytest.mark.parametrize(
    ("path", "content_type", "body", "param"),
    [
        ("/v1/audio/transcriptions", "application/json", b"{}", "content-type"),
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=x", b"--x--\r\n", "model"),
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=x", b"nonsense", None),
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=x", b"", None),
        ("/v1/transcribe", "audio/pcm;rate=16000", b"", "model"),
        ("/v1/transcribe?model=a&model=b", "audio/pcm;rate=16000", b"", "model"),
        ("/v1/transcribe?model=base.en&language=klingon", "audio/pcm;rate=16000", b"", "language"),
    ],
)
async def test_a_bad_request_is_400_and_never_reaches_a_pod(
    redis_url: str, path: str, content_type: str, body: bytes, param: str | None
) -> None:
    async with pods(redis_url, []) as [pod], gateway(redis_url) as door:
        async with door.http.post(
            door.url + path, data=body, headers={"content-type": content_type}
        ) as answer:
            assert answer.status == 400
            assert error_of(await answer.read())["param"] == param
        assert pod.asked == 0


@pytest.mark.parametrize("deadline", ["soon", "nan", "-1"])
async def test_a_deadline_that_is_no_time_is_400(redis_url: str, deadline: str) -> None:
    async with gateway(redis_url) as door:
        code, body, _ = await door.transcribe(x_everwarm_deadline_ms=deadline)
        assert (code, error_of(body)["param"]) == (400, "x-everwarm-deadline-ms")


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_that_is_too_large_is_413(redis_url: str, *, is_declared: bool) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"\0" * 65_536

    body = io.BytesIO(b"\0" * (40 * 65_536)) if is_declared else chunked()
    async with (
        pods(redis_url, []),
        gateway(redis_url, gateway_limit_upload_bytes=65_536) as door,
        door.http.post(door.url + TRANSCRIBE, data=body, headers=PCM_TYPE) as answer,
    ):
        assert answer.status == 413
        assert error_of(await answer.read())["code"] == "upload_too_large"


async def test_a_body_that_does_not_come_is_408(redis_url: str) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield PCM
        await asyncio.sleep(WAIT_S)

    async with (
        pods(redis_url, []),
        gateway(redis_url, gateway_upload_seconds=0.3) as door,
        door.http.post(door.url + TRANSCRIBE, data=stalling(), headers=PCM_TYPE) as answer,
    ):
        assert answer.status == 408


async def test_more_requests_than_allowed_are_503_before_their_body_is_read(redis_url: str) -> None:
    async with pods(redis_url, [hang]) as [pod], gateway(redis_url, gateway_limit_requests=1) as door:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(door.transcribe())
            await until(lambda: pod.received)
            code, body, headers = await door.transcribe()
            pod.released.set()
        assert (code, error_of(body)["code"]) == (503, "gateway_full")
        assert headers["retry-after"] == "1"
        assert first.result()[0] == 200


async def test_uploads_together_are_bounded_too(redis_url: str) -> None:
    async with (
        pods(redis_url, [hang]) as [pod],
        gateway(redis_url, gateway_limit_buffer_bytes=len(PCM)) as door,
    ):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(door.transcribe())
            await until(lambda: pod.received)
            code, body, _ = await door.transcribe()
            pod.released.set()
        assert (code, error_of(body)["code"]) == (503, "gateway_full")
        assert first.result()[0] == 200
        assert (await door.transcribe())[0] == 200


async def test_callers_without_a_key_are_401_once_keys_are_configured(redis_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-key\nsecond-key\n")
    async with pods(redis_url, []) as [pod], gateway(redis_url, gateway_api_keys_file=keys) as door:
        assert (await door.transcribe())[0] == 401
        assert (await door.transcribe(authorization="Bearer wrong"))[0] == 401
        assert (await door.transcribe(authorization="Bearer second-key"))[0] == 200
        assert "authorization" not in pod.received[0].headers
        async with door.http.get(f"{door.url}/v1/models") as answer:
            assert answer.status == 401


async def test_the_internal_token_is_shown_to_pods(redis_url: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("inside\n")
    async with pods(redis_url, []) as [pod], gateway(redis_url, token_file=token) as door:
        await door.transcribe(authorization="Bearer callers-own")
        assert pod.received[0].headers["authorization"] == "Bearer inside"


async def test_models_are_those_of_the_registry_in_openai_s_shape(redis_url: str) -> None:
    await announce(
        redis_url,
        [pod_record(), pod_record("pod-b", state=PodState.LOADING, model="tiny", names=("tiny", "org/m"))],
    )
    async with gateway(redis_url) as door:
        async with door.http.get(f"{door.url}/v1/models") as answer:
            listed = await answer.json()
        assert listed["object"] == "list"
        assert {m["id"]: m["warm_pods"] for m in listed["data"]} == {
            "base.en": 1,
            "org/m": 0,
            "tiny": 0,
            "whisper-1": 1,
        }
        async with door.http.get(f"{door.url}/v1/models/org/m") as answer:
            assert (await answer.json())["object"] == "model"
        async with door.http.get(f"{door.url}/v1/models/nope") as answer:
            assert (answer.status, error_of(await answer.read())["code"]) == (404, "model_not_found")


async def test_unknown_paths_and_methods_are_errors_in_openai_s_shape(redis_url: str) -> None:
    async with gateway(redis_url) as door:
        async with door.http.get(f"{door.url}/v2/nothing") as answer:
            assert (answer.status, error_of(await answer.read())["code"]) == (404, "route_not_found")
            assert answer.headers["x-request-id"]
        async with door.http.get(f"{door.url}/v1/audio/transcriptions") as answer:
            assert (answer.status, error_of(await answer.read())["code"]) == (405, "method_not_allowed")
            assert answer.headers["allow"] == "POST"


async def test_a_drain_lets_requests_in_flight_finish(redis_url: str) -> None:
    async with pods(redis_url, [hang]) as [pod], gateway(redis_url) as door, asyncio.TaskGroup() as group:
        held = group.create_task(door.transcribe())
        await until(lambda: pod.received)
        door.stop.set()
        await until(lambda: is_refused(door))
        pod.released.set()
        assert (await held)[0] == 200


async def is_refused(door: Gateway) -> bool:
    """Whether the gateway takes no new connections any more."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{door.url}/livez"):
            return False
    except aiohttp.ClientError:
        return True


async def test_a_cancelled_gateway_drains_too(redis_url: str) -> None:
    async with (
        pods(redis_url, [hang]) as [pod],
        aiohttp.ClientSession() as http,
        asyncio.TaskGroup() as group,
    ):
        up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        settings = GatewaySettings(redis_url=redis_url, gateway_port=0)
        serving = group.create_task(run_gateway(settings, ready=up.set_result))
        door = Gateway(await up, http, asyncio.Event())
        held = group.create_task(door.transcribe())
        await until(lambda: pod.received)
        serving.cancel()
        await until(lambda: is_refused(door))
        pod.released.set()
        assert (await held)[0] == 200
        await asyncio.wait([serving])
        assert serving.cancelled()


async def test_the_description_lists_every_route(redis_url: str) -> None:
    async with gateway(redis_url) as door:
        async with door.http.get(f"{door.url}/openapi.json") as answer:
            paths = (await answer.json())["paths"]
        assert {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/transcribe", "/v1/models"} <= set(
            paths
        )


async def test_a_503_of_a_proxy_before_the_pods_is_passed_on_as_no_capacity(redis_url: str) -> None:
    async with pods(redis_url, [answer, *[status(503)] * 200]), gateway(redis_url) as door:
        await door.transcribe()  # the pod is known by now, so that a short deadline is long enough to ask it
        code, body, headers = await door.transcribe(x_everwarm_deadline_ms="1000")
        assert (code, error_of(body)["code"]) == (503, "no_capacity")
        assert "retry-after" in headers


async def test_a_glance_is_one_question_and_never_waits(redis_url: str) -> None:
    async with pods(redis_url, []) as [pod], gateway(redis_url) as door:
        await door.transcribe()  # the pods are known by now
        pod.then(refuse())
        code, body, _ = await door.transcribe(x_everwarm_idle_only="1")
        assert (code, error_of(body)["code"], pod.asked) == (503, "no_idle_slot", 2)
        code, body, _ = await door.transcribe(x_everwarm_idle_only="1")
        assert (code, json.loads(body)["text"]) == (200, "pod-0")
        assert "x-everwarm-idle-only" in pod.received[-1].headers
