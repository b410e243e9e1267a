"""A Service in small: one address, whose new connections go to each backend in turn; those that exist stay where they are.

That is what kube-proxy does for a client of two gateways. A backend that is taken out gets no new connection and keeps
the old ones, as one does whose pod is terminating; who closes them is the backend.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PIECE_BYTES = 65_536


@dataclass(slots=True)
class Balancer:
    """Forwards to `ports`, on loopback; change them with `take_in` and `take_out`. *url* is the one address."""

    url: str = ""
    ports: list[int] = field(default_factory=list)
    _turn: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def take_in(self, port: int) -> None:
        """Send new connections to *port* too."""
        self.ports.append(port)

    def take_out(self, port: int) -> None:
        """Send no more new connections to *port*."""
        self.ports.remove(port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection to its end; nobody there to take it closes it."""
        self._turn += 1
        async with self._held(writer):
            try:
                port = self.ports[self._turn % len(self.ports)] if self.ports else 0
                there, back = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            async with self._held(back), asyncio.TaskGroup() as ways:
                ways.create_task(_pump(reader, back))
                ways.create_task(_pump(there, writer))

    async def hang_up(self) -> None:
        """Break every connection, and return when they are gone."""
        while self._open:
            for writer in tuple(self._open):
                writer.transport.abort()
            await asyncio.sleep(0)  # whoever forwards it notices

    @asynccontextmanager
    async def _held(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Forward bytes and, at their end, the end."""
    with suppress(OSError):
        while piece := await source.read(PIECE_BYTES):
            sink.write(piece)
            await sink.drain()
    with suppress(OSError):
        sink.write_eof()


@asynccontextmanager
async def running_balancer() -> AsyncIterator[Balancer]:
    """A balancer without backends, on a free port."""
    balancer = Balancer()
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", 0, limit=PIECE_BYTES)
    balancer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield balancer
    finally:
        server.close()
        await balancer.hang_up()
