"""Two gateways as a cluster runs them: processes of `everwarm gateway` beside one registry, behind one address."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from tests.support.balancer import Balancer, running_balancer
from tests.support.pods import free_port
from tests.support.waiting import until

COUNT: Final = 2
READY_S: Final = 60.0
GONE_S: Final = 60.0  # the drain's own limit is 35 s


@dataclass(slots=True)
class Gateways:
    """The gateways by port, behind *balancer*; logs go to *folder*."""

    redis_url: str
    balancer: Balancer
    folder: Path
    processes: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address that clients know."""
        return self.balancer.url

    async def start(self, port: int) -> None:
        """Start one on *port*; returns once new connections go there."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("EVERWARM_", "OTEL_"))}
        ours = {"EVERWARM_REDIS_URL": self.redis_url, "EVERWARM_GATEWAY_PORT": str(port)}
        with (self.folder / f"gateway-{port}.log").open("ab") as log:
            self.processes[port] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "everwarm.cli", "gateway"),
                env={**kept, **ours},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with aiohttp.ClientSession() as http:

            async def is_ready() -> bool:
                assert self.processes[port].returncode is None, f"the gateway on {port} ended"
                try:
                    async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await until(is_ready, within_s=READY_S)
        self.balancer.take_in(port)

    async def replace(self, port: int) -> None:
        """End the one on *port* as the kubelet does, without waiting for anybody, and start another in its place.

        Raises AssertionError when it did not end by itself and in order.
        """
        process = self.processes[port]
        process.send_signal(signal.SIGTERM)
        self.balancer.take_out(port)
        async with asyncio.timeout(GONE_S):
            code = await process.wait()
        assert code == 0, f"the gateway on {port} ended with {code}"
        await self.start(port)


@asynccontextmanager
async def running_gateways(redis_url: str, *, folder: Path) -> AsyncIterator[Gateways]:
    """COUNT gateways of the registry at *redis_url*, ready."""
    async with running_balancer() as balancer:
        gateways = Gateways(redis_url, balancer, folder)
        try:
            for _ in range(COUNT):
                await gateways.start(free_port())
            yield gateways
        finally:
            for process in gateways.processes.values():
                if process.returncode is None:
                    process.terminate()
            for process in gateways.processes.values():
                try:
                    async with asyncio.timeout(GONE_S):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
