"""Worker processes and the play: each turn is given to its worker, one at a time, and timed inside the worker.

One at a time, because the question is what a request costs, not how many fit: on two cores, parallel decodes would
measure each other. Workers live inside `running_workers`; leaving it, however, leaves none of them.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from everwarm.demo.clips import Turn
from everwarm.demo.protocol import Order, read_answer, write
from everwarm.demo.results import Played
from everwarm.platform.logs import LogLine, last_words, parse_line
from everwarm.platform.process import lines
from everwarm.platform.tether import tethered
from everwarm_core.errors import PlatformError

START_TIMEOUT_S: Final = 60.0  # a second or two on an idle machine
ANSWER_TIMEOUT_S: Final = 120.0  # of one utterance, load included
END_TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class Worker:
    """A running worker and the log it wrote so far."""

    process: asyncio.subprocess.Process
    log: list[LogLine] = field(default_factory=list)

    async def ask(self, line: bytes | None, *, timeout_s: float) -> bytes:
        """The worker's next line, after it was sent *line*; raises PlatformError when it dies or hangs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer = b""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(timeout_s):
                if line is not None:
                    self.process.stdin.write(line)
                    await self.process.stdin.drain()
                answer = await self.process.stdout.readline()
        if not answer:
            said = last_words(str(entry) for entry in self.log[-20:])
            raise PlatformError(f"worker {self.process.pid} of the demo did not answer: {said}")
        return answer


@asynccontextmanager
async def running_workers(
    commands: Sequence[tuple[str, ...]], *, environment: Mapping[str, str]
) -> AsyncIterator[tuple[Worker, ...]]:
    """A process for each of *commands*, all of which have said hello."""
    workers: list[Worker] = []
    async with asyncio.TaskGroup() as group:
        try:
            for argv in commands:
                worker = Worker(await _start(argv, environment))
                workers.append(worker)
                group.create_task(_collect(worker), name=f"log of {worker.process.pid}")
            for worker in workers:
                await worker.ask(None, timeout_s=START_TIMEOUT_S)
            yield tuple(workers)
        finally:
            for worker in workers:
                if worker.process.stdin:
                    worker.process.stdin.close()
            await _end(workers)


async def play(
    turns: Sequence[Turn], workers: Sequence[Worker], *, on_played: Callable[[Played], None]
) -> tuple[Played, ...]:
    """Give each of *turns* to its worker, in order; *on_played* sees each as it is done."""
    done = []
    for turn in turns:
        line = await workers[turn.worker].ask(write(Order(str(turn.clip.path))), timeout_s=ANSWER_TIMEOUT_S)
        done.append(Played(turn, read_answer(line)))
        on_played(done[-1])
    return tuple(done)


async def _start(argv: tuple[str, ...], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *tethered(argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,  # Ctrl-C is the demo's to handle
    )


async def _collect(worker: Worker) -> None:
    assert worker.process.stderr is not None
    async for line in lines(worker.process.stderr):
        worker.log.append(parse_line(line))


async def _end(workers: Sequence[Worker]) -> None:
    """Wait for workers whose stdin was closed; kill those that take long."""
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            for worker in workers:
                await worker.process.wait()
    except TimeoutError:
        pass
    finally:
        for worker in workers:
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGKILL)
        for worker in workers:
            await worker.process.wait()
