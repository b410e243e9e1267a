"""Servers that speak the pods' HTTP and misbehave on order: real sockets, no model.

Each takes a script of behaviours, one a request; after the last one it goes on answering. What they got is kept, so a
test can assert what was really sent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from everwarm_core.errors import EverwarmError, PodDraining, PodFull, http_error
from everwarm_core.openai_errors import error_headers, error_json
from everwarm_core.registry.connection import connect
from everwarm_core.registry.records import PodRecord
from everwarm_core.registry.writer import RegistryWriter
from everwarm_core.transcript import Granularities, ResponseFormat, Segment, Transcript, render
from tests.fixtures.records import pod_record

NAMESPACE = "local"


@dataclass
class Received:
    """One request as a pod got it."""

    path: str
    query: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[["FaultyPod", web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FaultyPod:
    """A pod called *name*; it answers with its name as the transcript."""

    name: str
    script: list[Behaviour] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    url: str = ""
    asked: int = 0
    held: int = 0
    is_ready: bool = True
    names: tuple[str, ...] = ("base.en",)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def then(self, *behaviours: Behaviour) -> None:
        """Do these, one a request, before anything else."""
        self.script.extend(behaviours)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Do what the script says next."""
        self.asked += 1
        behaviour = self.script.pop(0) if self.script else answer
        self.held += 1
        try:
            return await behaviour(self, request)
        finally:
            self.held -= 1

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether it is warm."""
        return web.json_response(
            {"state": "warm"}, status=200 if self.is_ready else 503, headers=self.headers()
        )

    async def models(self, _: web.Request) -> web.Response:
        """The names it serves."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "everwarm"} for name in self.names]
        return web.json_response({"object": "list", "data": data}, headers=self.headers())

    async def read(self, request: web.Request) -> None:
        """Take the body, as a pod that decodes it would."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, request.query_string, headers, body))

    def transcript(self) -> str:
        """The verbose_json whose text is this pod's name."""
        segment = Segment(id=0, seek=0, start=0.0, end=1.0, text=f" {self.name}")
        spoken = Transcript(language="en", duration=1.0, text=self.name, segments=(segment,))
        return render(spoken, ResponseFormat.VERBOSE_JSON, Granularities())

    def headers(self) -> dict[str, str]:
        """What every answer of a pod carries."""
        return {
            "x-everwarm-pod": self.name,
            "x-everwarm-inflight": str(max(0, self.held - 1)),
            "x-everwarm-slots": "2",
            "server-timing": "queue;dur=1.0, decode;dur=20.0, total;dur=21.0",
        }


async def answer(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
    """What a healthy pod does."""
    await pod.read(request)
    return web.Response(text=pod.transcript(), content_type="application/json", headers=pod.headers())


def tell(error: EverwarmError) -> Behaviour:
    """Answer *error* without reading the body."""

    async def behave(pod: FaultyPod, _: web.Request) -> web.StreamResponse:
        headers = {**pod.headers(), **error_headers(error), "content-type": "application/json"}
        return web.Response(body=error_json(error), status=http_error(error).status, headers=headers)

    return behave


def refuse() -> Behaviour:
    """Full."""
    return tell(PodFull(slots=1, queue=0))


def drain() -> Behaviour:
    """Shutting down."""
    return tell(PodDraining())


def status(code: int) -> Behaviour:
    """A bare *code*, as a proxy in front of nothing answers."""

    async def behave(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
        await pod.read(request)
        return web.Response(status=code, text="<html>oops</html>", content_type="text/html")

    return behave


async def die(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
    """Take the body and cut the connection without a word."""
    await pod.read(request)
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def die_in_the_answer(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
    """Begin the answer, and cut the connection in the middle of it."""
    await pod.read(request)
    body = pod.transcript().encode()
    response = web.StreamResponse(headers={**pod.headers(), "content-type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


async def hang(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
    """Take the body and say nothing until the pod is `released`."""
    await pod.read(request)
    await pod.released.wait()
    return web.Response(text=pod.transcript(), content_type="application/json", headers=pod.headers())


def events(*pieces: bytes, dies: bool = False) -> Behaviour:
    """Answer with server-sent events, waiting for `released` before each piece after the first."""

    async def behave(pod: FaultyPod, request: web.Request) -> web.StreamResponse:
        await pod.read(request)
        response = web.StreamResponse(headers={**pod.headers(), "content-type": "text/event-stream"})
        await response.prepare(request)
        for number, piece in enumerate(pieces):
            if number:
                await pod.released.wait()
            await response.write(piece)
        if dies:
            assert request.transport is not None
            request.transport.abort()
        return response

    return behave


@asynccontextmanager
async def faulty_pod(name: str, *behaviours: Behaviour) -> AsyncIterator[FaultyPod]:
    """A pod that listens inside the block."""
    pod = FaultyPod(name, list(behaviours))
    app = web.Application(client_max_size=1 << 28)
    for path in ("/v1/transcribe", "/v1/audio/transcriptions", "/v1/audio/translations"):
        app.router.add_post(path, pod.handle)
    app.router.add_get("/readyz", pod.readyz)
    app.router.add_get("/v1/models", pod.models)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    pod.url = f"http://{host}:{port}"
    try:
        yield pod
    finally:
        pod.released.set()
        await runner.cleanup()


def record_of(pod: FaultyPod, **changes: object) -> PodRecord:
    """What *pod* would say of itself."""
    return pod_record(pod.name, **{"url": pod.url, **changes})


async def announce(redis_url: str, records: Iterable[PodRecord], *, ttl_s: float = 60.0) -> None:
    """Write *records* to the registry as heartbeats that hold for *ttl_s* seconds."""
    async with connect(redis_url) as redis:
        writer = RegistryWriter(redis, NAMESPACE, ttl_s=ttl_s)
        for record in records:
            await writer.heartbeat(record)


async def withdraw(redis_url: str, *records: PodRecord) -> None:
    """Take *records* out of the registry, as pods that leave do."""
    async with connect(redis_url) as redis:
        writer = RegistryWriter(redis, NAMESPACE)
        for record in records:
            await writer.deregister(record)
