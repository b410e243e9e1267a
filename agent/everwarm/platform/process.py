"""A child process with a supervisor: started again when it dies, stopped in order, its output handed on by lines.

The platform runs one `SupervisedProcess.run` per child in its task group; that task owns the child from fork to
reaping, so leaving the group leaves no process. A child leads a session of its own: Ctrl-C in the terminal reaches
the platform alone, which then drains in its own order, and a child's children can be ended with it. Restarts wait
exponentially longer, as the kubelet's do, and the wait starts over once a child has lived for a while.
"""

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from everwarm.platform.tether import tethered

MAX_LINE_BYTES: Final = 64 * 1024  # a longer line is cut: a child's output is input too
LAST_LINES: Final = 20  # kept to say what a child died of
_CHUNK_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before starting a child again.

    first_s, most_s: the first and the longest wait; healthy_s: a child that lived this long starts the count anew.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    healthy_s: float = 60.0

    def delay_s(self, deaths: int) -> float:
        """Seconds to wait after the *deaths*-th death in a row, counted from 1: doubled each time, up to `most_s`."""
        doublings = min(deaths - 1, 64)  # beyond this a float would overflow long after most_s is reached
        return float(min(self.most_s, self.first_s * 2.0**doublings))

    def deaths_after(self, deaths: int, *, lived_s: float) -> int:
        """The count of deaths in a row after one more, of a child that lived *lived_s* seconds."""
        return 1 if lived_s >= self.healthy_s else deaths + 1


@dataclass(frozen=True, slots=True)
class Exit:
    """An end of a child that nobody asked for.

    code: exit status, negative for a signal; deaths: how many in a row, this one included; retry_in_s: seconds until
    it is started again; last_lines: the end of its output, oldest first.
    """

    code: int
    lived_s: float
    deaths: int
    retry_in_s: float
    last_lines: tuple[str, ...]

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it, of which its own last lines know nothing."""
        return self.code < 0

    @property
    def cause(self) -> str:
        """`exit status 1` or `SIGKILL`."""
        if self.code >= 0:
            return f"exit status {self.code}"
        with suppress(ValueError):
            return signal.Signals(-self.code).name
        return f"signal {-self.code}"


def _ignore(_: object) -> None:
    pass


class SupervisedProcess:
    """The child *argv* with *environment*; `run` keeps it alive until `stop`.

    on_start gets each new pid, on_line each line of output (stdout and stderr together, without its end), on_exit
    each end that nobody asked for; they are called from the event loop and must not block. An exception in one of
    them ends `run`, and with it the child: that is how a supervisor gives up.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        *,
        environment: Mapping[str, str],
        folder: Path | None = None,
        backoff: Backoff | None = None,
        on_start: Callable[[int], None] = _ignore,
        on_line: Callable[[str], None] = _ignore,
        on_exit: Callable[[Exit], None] = _ignore,
    ) -> None:
        self._argv = tethered(argv)
        self._environment = dict(environment)
        self._folder = folder
        self._backoff = backoff or Backoff()
        self._on_start, self._on_line, self._on_exit = on_start, on_line, on_exit
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._hastened = asyncio.Event()
        self._grace_s = 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the living child; None between two lives."""
        return self._process.pid if self._process else None

    def stop(self, *, grace_s: float) -> None:
        """Have the child end: SIGTERM now, SIGKILL after *grace_s* seconds; `run` returns when it is gone."""
        self._grace_s = grace_s
        self._stopping.set()

    def hasten(self) -> None:
        """Wait no longer: SIGKILL the child that is being stopped."""
        self._stopping.set()
        self._hastened.set()

    async def run(self) -> None:
        """Keep the child alive until `stop`; cancelled, it kills the child first."""
        deaths = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code, last_lines = await self._live()
            if self._stopping.is_set():
                return
            lived_s = time.monotonic() - started
            deaths = self._backoff.deaths_after(deaths, lived_s=lived_s)
            delay_s = self._backoff.delay_s(deaths)
            self._on_exit(Exit(code, lived_s, deaths, delay_s, last_lines))
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()

    async def _live(self) -> tuple[int, tuple[str, ...]]:
        """One life of the child: its exit code and the last lines it wrote."""
        last_lines: deque[str] = deque(maxlen=LAST_LINES)
        process = self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            cwd=self._folder,
            start_new_session=True,
        )
        try:
            self._on_start(process.pid)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(process, last_lines), name=f"output of {process.pid}")
                ender = group.create_task(self._end_when_asked(process), name=f"end of {process.pid}")
                code = await process.wait()
                _signal_group(process.pid, signal.SIGKILL)  # whatever the child left; its pipe ends with it
                ender.cancel()
        finally:
            self._process = None
            if process.returncode is None:
                _signal_group(process.pid, signal.SIGKILL)
                await process.wait()
        return code, tuple(last_lines)

    async def _read(self, process: asyncio.subprocess.Process, last_lines: deque[str]) -> None:
        assert process.stdout is not None
        async for line in lines(process.stdout):
            last_lines.append(line)
            self._on_line(line)

    async def _end_when_asked(self, process: asyncio.subprocess.Process) -> None:
        await self._stopping.wait()
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await self._hastened.wait()
        _signal_group(process.pid, signal.SIGKILL)


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of *stream*, without their ends; bytes that are no UTF-8 are replaced, long lines cut."""
    rest = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield _text(line)
        rest = rest[:MAX_LINE_BYTES]
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line[:MAX_LINE_BYTES].decode("utf-8", errors="replace").rstrip("\r")


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the session that *pid* leads; no error when it is gone (macOS says EPERM of a group of zombies)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
