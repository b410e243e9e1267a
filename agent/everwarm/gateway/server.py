"""Runs the gateway: `run_gateway` inside somebody's event loop, `main` as a program of its own.

The library function owns no signals: told to stop, or cancelled, it refuses new work, lets requests in flight finish,
and returns. Only `main` translates SIGTERM and SIGINT into that. The socket is bound here and not by uvicorn, which
ends the process when a port is taken.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog
import uvicorn

from everwarm.credentials import SecretFile
from everwarm.deadline import Deadline
from everwarm.dispatch import Dispatcher, PodHttp
from everwarm.event_loop import new_event_loop
from everwarm.gateway.app import VERSION, MetricsPage, create_app
from everwarm.gateway.relay import Door
from everwarm.routing.router import Router
from everwarm.settings import GatewaySettings
from everwarm.sources import pod_source
from everwarm_core import telemetry
from everwarm_core.errors import PlatformError
from everwarm_core.http.protocol import BoundedHttpProtocol
from everwarm_core.http.websocket import UVICORN as WEBSOCKETS
from everwarm_core.http.websocket import BoundedWebSocketProtocol
from everwarm_core.logs import configure_logging

KEEPALIVE_S: Final = 75  # clients' pools give a connection up sooner, so it is never closed under a request
BACKLOG: Final = 2048

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, for the process belongs to our caller, and with an event when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and say so."""
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def run_gateway(
    settings: GatewaySettings,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    metrics_page: MetricsPage | None = None,
) -> None:
    """Serve until *stop* is set or this is cancelled; either way drain first, at most `gateway_drain_seconds`.

    ready: called once with the base URL as soon as connections are accepted. metrics_page: the Prometheus page.
    A second cancellation ends at once. Raises PlatformError when the address cannot be listened on, InvalidParameter
    when the settings do not say where the pods are.
    """
    token = SecretFile(settings.token_file) if settings.token_file else None
    router = Router(pod_source(settings, token=token))
    http = PodHttp(token=token)
    door = Door(settings, Dispatcher(router, http))
    with _listening(settings) as listener:
        server = _Server(
            uvicorn.Config(
                create_app(door, router, metrics_page=metrics_page),
                http=BoundedHttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws=BoundedWebSocketProtocol,
                **WEBSOCKETS,
                timeout_keep_alive=KEEPALIVE_S,
            )
        )
        try:
            await http.start()
            await router.start()
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(server.serve([listener]), name="gateway.serve")
                try:
                    await server.is_up.wait()
                    host, port = listener.getsockname()[:2]
                    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
                    log.info("gateway.started", url=url)
                    if ready is not None:
                        ready(url)
                    await (stop or asyncio.Event()).wait()
                finally:
                    door.admission.drain()
                    door.sessions.drain()
                    log.info("gateway.draining", held=door.admission.held, sessions=len(door.sessions))
                    deadline = Deadline.after(settings.gateway_drain_seconds)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(deadline.remaining_s()):
                            await door.sessions.ended()  # uvicorn would cut them off in the middle of a word
                    server.config.timeout_graceful_shutdown = max(1, round(deadline.remaining_s()))
                    server.should_exit = True
                    await asyncio.wait([serving])
        finally:
            try:
                await router.aclose()
            finally:
                await http.aclose()
            log.info("gateway.stopped")


def main(settings: GatewaySettings) -> None:
    """The program `everwarm gateway`: serve until SIGTERM or SIGINT, drain, flush telemetry; a second signal is final."""
    configure_logging()
    started = telemetry.start("everwarm-gateway", version=VERSION)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        this = asyncio.current_task()
        assert this is not None

        def on_signal() -> None:
            if stop.is_set():
                this.cancel()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        try:
            await run_gateway(settings, stop=stop, metrics_page=started.metrics_page)
        finally:
            await asyncio.to_thread(started.shutdown)

    with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())


@contextmanager
def _listening(settings: GatewaySettings) -> Iterator[socket.socket]:
    host, port = settings.gateway_host, settings.gateway_port
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
        # Connections inherit it. asyncio would set it, but not on sockets whose protocol number is left open, as here,
        # and the second write of an answer would then wait 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise PlatformError(
            f"the gateway cannot listen on {host}:{port}: {error.strerror or error}; choose another port"
        ) from error
    with listener:
        yield listener
