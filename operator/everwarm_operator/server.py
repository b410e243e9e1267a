"""The operator's own door: `/livez` (the event loop answers), `/readyz` (every kind was listed once), `/metrics`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from everwarm_core.errors import PlatformError
from everwarm_core.telemetry import Telemetry


@asynccontextmanager
async def serving(
    host: str, port: int, *, is_ready: Callable[[], bool], exported: Telemetry
) -> AsyncIterator[int]:
    """Answers inside the block; yields the port in use. Raises PlatformError when it cannot listen."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        ready = is_ready()
        return web.Response(text="ready\n" if ready else "listing\n", status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        page, content_type = exported.metrics_page()
        return web.Response(body=page, headers={"content-type": content_type})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise PlatformError(
                f"cannot listen on {host!r} port {port}: {error.strerror or error}; set EVERWARM_OPERATOR_PORT"
            ) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
