"""A pod's life: listen, load, prove itself warm, serve, drain.

One task group owns every task, and the event loop's signal handlers are ours alone: uvicorn's would close the
listeners first, where a drain must first tell the registry, then refuse, then finish, and only then stop listening.

Start: the weights are being loaded already (`birth`), on a thread that goes on to prove every key of the spec by timed
decodes. The port is bound meanwhile, so `/livez` answers and `/readyz` says `loading` from the first moment. Then the pod
serves itself a few requests through its own HTTP application, since the first caller should meet no code that never
ran. Only then is it warm. Loads and decodes run on threads that nobody can stop; `main` ends the process without waiting
for them.

That it is warm, and at a drain that it no longer is, is said shortly before the kubelet's next question where there is
a kubelet (`probe_seconds`): told at once, the registry would be ahead of `kubectl` by as long as the kubelet waits to ask.

Redis decides nothing in here: lost, late or restarted, the pod goes on, and the next heartbeat says everything again.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final, TypeVar

import structlog
import uvicorn
from fastapi import FastAPI
from opentelemetry.trace import Span, use_span
from redis.asyncio import Redis

from everwarm_core import telemetry
from everwarm_core.errors import (
    EverwarmError,
    PlatformError,
    RegistryUnavailable,
    SettingsError,
    WarmupFailed,
)
from everwarm_core.http.protocol import BoundedHttpProtocol
from everwarm_core.http.websocket import UVICORN as WEBSOCKETS
from everwarm_core.http.websocket import BoundedWebSocketProtocol
from everwarm_core.realtime.sessions import Sessions
from everwarm_core.registry.connection import connect
from everwarm_core.registry.records import PodState
from everwarm_core.registry.writer import RegistryWriter, run_heartbeats
from everwarm_core.telemetry import Attribute, SpanName, Telemetry
from everwarm_stt.admission import Admission, Capacity
from everwarm_stt.birth import Birth
from everwarm_stt.pod import Pod
from everwarm_stt.prewarm import bundled_speech
from everwarm_stt.rehearsal import rehearse
from everwarm_stt.server.app import make_app
from everwarm_stt.server.instruments import instruments
from everwarm_stt.server.tokens import Tokens
from everwarm_stt.settings import PodSettings

T = TypeVar("T")

KEEP_ALIVE_S: Final = 75  # longer than the pools of clients keep idle connections (aiohttp 15 s, ours 20 s)
BACKLOG: Final = 512
LAST_ANSWERS_S: Final = 2  # after a drain: for answers on their way out, and for aborted decodes to notice

log = structlog.stdlib.get_logger(__name__)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers; it ends when `should_exit` is set."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Signals:
    """SIGTERM and SIGINT: the first asks for a drain, one more for haste."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.haste = asyncio.Event()

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Inside, the signals are ours."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._receive, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _receive(self, number: int) -> None:
        log.info("signal.received", signal=signal.Signals(number).name)
        (self.haste if self.drain.is_set() else self.drain).set()


class Registration:
    """The pod's entry in the registry; without a writer, nowhere."""

    def __init__(self, pod: Pod, writer: RegistryWriter | None) -> None:
        self._pod = pod
        self._writer = writer

    async def announce(self, state: PodState) -> None:
        """Be in *state*, and return once the registry knows or has proven out of reach."""
        self._pod.enter(state)
        if self._writer is None:
            return
        try:
            async with self._writer.order:
                await self._writer.heartbeat(self._pod.record())
        except RegistryUnavailable as error:
            log.warning("registry.untold", state=state.value, reason=error.reason)

    async def leave(self) -> None:
        """Take the entry out; where that fails it lapses by itself."""
        if self._writer is None:
            return
        try:
            await self._writer.deregister(self._pod.record())
        except RegistryUnavailable as error:
            log.warning("registry.untold", state="gone", reason=error.reason)


async def live(
    settings: PodSettings, exported: Telemetry, begun: Birth, span: Span, *, began: float
) -> EverwarmError | None:
    """One pod's whole life, from binding its port to having left the registry.

    begun, span: its birth under way, and the span of that, which ends here; began: `time.monotonic()` of the process's
    start, from which the warm-up budget counts. Returns why the pod
    failed, or None after a drain. Raises SettingsError or PlatformError when it cannot even begin. Threads of a load or
    a decode may still run afterwards.
    """
    tokens = Tokens(settings.token_file) if settings.token_file else None
    redis = _redis(settings)
    signals = Signals()
    with signals.handled(), _listening(settings) as listener:
        url = settings.url(listener.getsockname()[1])
        admission = Admission(Capacity(settings.slots, settings.queue, settings.batch))
        pod = Pod(settings, url, admission, traceparent=telemetry.traceparent(span))
        sessions = Sessions.of(settings)
        app = make_app(
            pod,
            instruments=instruments(pod, sessions),
            telemetry=exported,
            tokens=lambda: tokens,
            sessions=sessions,
        )
        async with _served(app, listener), _registered(pod, redis) as registration:
            log.info(
                "pod.listening", url=url, pod=settings.pod_id, model=settings.model, names=settings.names
            )
            start = _start(pod, app, registration, tokens, begun, span, began=began)
            failure = await _first_of(start, signals.drain)
            if failure is None:
                await signals.drain.wait()
            if pod.state is PodState.WARM:
                await _first_of(asyncio.sleep(pod.tells_in_s(time.monotonic())), signals.haste)
            await registration.announce(PodState.FAILED if failure else PodState.DRAINING)
            admission.drain()
            sessions.drain()
            await _finish(pod, sessions, signals.haste)
        admission.close()
    return failure


async def _start(
    pod: Pod,
    app: FastAPI,
    registration: Registration,
    tokens: Tokens | None,
    begun: Birth,
    span: Span,
    *,
    began: float,
) -> EverwarmError | None:
    """Wait for the proof, rehearse, announce, which ends *span*; returns why that failed, or None once the pod is warm."""
    settings = pod.settings
    left_s = settings.warmup_timeout_seconds - (time.monotonic() - began)
    try:
        async with asyncio.timeout(max(0.0, left_s)):
            with use_span(span, end_on_exit=True):
                await _become_warm(pod, app, registration, tokens, begun)
    except TimeoutError:
        limit_s = settings.warmup_timeout_seconds
        return WarmupFailed(settings.model, f"still {pod.state.value} after {limit_s:g} s, its whole budget")
    except EverwarmError as error:
        return error
    return None


async def _become_warm(
    pod: Pod, app: FastAPI, registration: Registration, tokens: Tokens | None, begun: Birth
) -> None:
    settings = pod.settings
    engine = await asyncio.wrap_future(begun.engine)
    telemetry.counter(telemetry.LOADS).add(1, {Attribute.MODEL.value: settings.model})
    pod.engine, pod.load_s = engine, engine.load_s
    pod.enter(PodState.WARMING)
    gc.collect()  # for once (`main`), while the first decodes run on their thread
    proof = await asyncio.wrap_future(begun.proof)
    speech = bundled_speech()
    token = tokens.newest() if tokens else None
    await rehearse(app, model=settings.model, language=settings.languages[0], speech=speech, token=token)
    pod.languages, pod.warm_s = tuple(proof.durations), proof.warm_s
    gc.freeze()  # what is here now stays: collections need not walk it again and again
    gc.enable()
    with telemetry.span(SpanName.REGISTER):
        await asyncio.sleep(pod.tells_in_s(time.monotonic()))
        await registration.announce(PodState.WARM)
    log.info(
        "pod.warm",
        languages=pod.languages,
        load_s=round(pod.load_s, 3),
        warm_s=round(pod.warm_s, 3),
        url=pod.url,
    )


async def _finish(pod: Pod, sessions: Sessions, haste: asyncio.Event) -> None:
    """Wait until nothing is held: as long as the drain may take, or until *haste*, and then a moment longer."""
    admission, limit_s = pod.admission, pod.settings.drain_timeout_seconds
    began = time.monotonic()
    log.info("drain.begun", inflight=admission.inflight, sessions=len(sessions))

    async def nothing_held() -> None:
        await sessions.ended()
        await admission.idle()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await _first_of(nothing_held(), haste)
    if admission.inflight:
        log.warning("drain.hastened", inflight=admission.inflight)
        admission.hasten()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ANSWERS_S):
                await admission.idle()
    log.info("drain.ended", inflight=admission.inflight, after_s=round(time.monotonic() - began, 3))


async def _first_of(work: Coroutine[Any, Any, T], interruption: asyncio.Event) -> T | None:
    """The result of *work*; None when *interruption* is set first, which cancels it."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work)
        interrupted = tasks.create_task(interruption.wait())
        await asyncio.wait((working, interrupted), return_when=asyncio.FIRST_COMPLETED)
        interrupted.cancel()
        working.cancel()
    return None if working.cancelled() else working.result()


@contextlib.contextmanager
def _listening(settings: PodSettings) -> Iterator[socket.socket]:
    """The pod's port, bound; raises PlatformError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise PlatformError(
            f"cannot listen on {settings.host!r} port {settings.port}: {error.strerror or error};"
            " set EVERWARM_HOST and EVERWARM_PORT, port 0 takes any free one"
        ) from error
    with listener:
        listener.setblocking(False)
        yield listener


@contextlib.asynccontextmanager
async def _served(app: FastAPI, listener: socket.socket) -> AsyncIterator[None]:
    """Inside, *app* answers on *listener*; at the end answers on their way get a moment to get out."""
    config = uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        ws=BoundedWebSocketProtocol,
        **WEBSOCKETS,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
        backlog=BACKLOG,
    )
    server = Server(config)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listener]), name="http server")
        try:
            yield
        finally:
            server.should_exit = True


@contextlib.asynccontextmanager
async def _registered(pod: Pod, redis: "Redis | None") -> AsyncIterator[Registration]:
    """Inside, the registry hears of *pod* every second; at the end its entry is gone."""
    if redis is None:
        log.warning("registry.absent", reason="EVERWARM_REDIS_URL is not set, so nobody is told of this pod")
        yield Registration(pod, None)
        return
    async with redis:
        writer = RegistryWriter(redis, pod.settings.namespace)
        registration = Registration(pod, writer)
        async with asyncio.TaskGroup() as tasks:
            beats = tasks.create_task(run_heartbeats(writer, pod.record, pod.changed), name="heartbeats")
            try:
                yield registration
            finally:
                async with writer.order:  # no beat is on its way: it could come after the leave
                    beats.cancel()
        await registration.leave()


def _redis(settings: PodSettings) -> "Redis | None":
    if settings.redis_url is None:
        return None
    try:
        return connect(settings.redis_url)
    except ValueError as error:  # of the message nothing is repeated: the URL may hold a password
        reason = "is no Redis URL; write redis://host:port, rediss://host:port or unix:///path"
        raise SettingsError("this pod", (("EVERWARM_REDIS_URL", reason),)) from error
