"""Supervised children: restarted, stopped, quoted, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm.platform.process import MAX_LINE_BYTES, Backoff, Exit, SupervisedProcess, lines
from tests.support.waiting import until

QUICK = Backoff(first_s=0.01, most_s=0.05)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@given(deaths=st.integers(1, 10_000))
def test_backoff_never_shrinks_and_never_exceeds_its_limit(deaths: int) -> None:
    backoff = Backoff()
    assert backoff.first_s <= backoff.delay_s(deaths) <= backoff.delay_s(deaths + 1) <= backoff.most_s


def test_backoff_starts_over_when_the_child_lived_long_enough() -> None:
    backoff = Backoff(healthy_s=60)
    assert backoff.deaths_after(7, lived_s=61) == 1
    assert backoff.deaths_after(7, lived_s=59) == 8


async def test_child_that_dies_is_started_again_and_its_last_lines_are_told() -> None:
    exits: list[Exit] = []
    child = SupervisedProcess(
        python("import sys; print('bye'); sys.exit(3)"),
        environment=os.environ,
        backoff=QUICK,
        on_exit=exits.append,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(child.run())
        await until(lambda: len(exits) >= 2)
        child.hasten()
    assert [(end.code, end.deaths, end.last_lines) for end in exits[:2]] == [
        (3, 1, ("bye",)),
        (3, 2, ("bye",)),
    ]
    assert exits[0].cause == "exit status 3"


async def test_child_gets_sigterm_and_may_finish_when_stopped() -> None:
    said: list[str] = []
    child = SupervisedProcess(
        python(
            "import signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"  # kept until it is waited for
            "print('up', flush=True)\n"
            "signal.sigwait([signal.SIGTERM])\n"
            "print('draining', flush=True)"
        ),
        environment=os.environ,
        on_line=said.append,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(child.run())
        await until(lambda: "up" in said)
        child.stop(grace_s=20)
    assert said == ["up", "draining"]


async def test_child_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    said: list[str] = []
    child = SupervisedProcess(
        python(
            "import signal, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('up', flush=True)\n"
            "time.sleep(600)"
        ),
        environment=os.environ,
        on_line=said.append,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(child.run())
        await until(lambda: "up" in said)
        pid = child.pid
        assert pid is not None
        child.stop(grace_s=0.1)
    assert not is_alive(pid)


async def test_cancelled_supervisor_leaves_neither_child_nor_grandchild() -> None:
    said: list[str] = []
    child = SupervisedProcess(
        python(
            "import subprocess, sys\n"
            "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "print(grandchild.pid, flush=True)\n"
            "grandchild.wait()"
        ),
        environment=os.environ,
        on_line=said.append,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(child.run())
        await until(lambda: bool(said))
        pid = child.pid
        assert pid is not None
        task.cancel()
    await until(lambda: not is_alive(pid) and not is_alive(int(said[0])))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_child_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "supervisor.py"
    program.write_text(
        "import asyncio, os, sys\n"
        "from everwarm.platform.process import SupervisedProcess\n"
        "child = SupervisedProcess((sys.executable, '-c', 'import time; time.sleep(600)'),\n"
        "    environment=os.environ, on_start=lambda pid: print(pid, flush=True))\n"
        "asyncio.run(child.run())\n"
    )
    supervisor = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    with supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        _wait_until(lambda: "sleep" in " ".join(psutil.Process(child).cmdline()[:3]))
        supervisor.send_signal(signal.SIGKILL)
    _wait_until(lambda: not is_alive(child))


def _wait_until(condition: Callable[[], bool]) -> None:
    asyncio.run(until(condition))


@given(chunks=st.lists(st.binary(max_size=40), max_size=20))
async def test_lines_are_those_of_the_whole_however_it_was_cut(chunks: list[bytes]) -> None:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    whole = b"".join(chunks).split(b"\n")
    expected = [*whole[:-1], *([whole[-1]] if whole[-1] else [])]
    found = [line async for line in lines(stream)]
    assert found == [line.decode("utf-8", errors="replace").rstrip("\r") for line in expected]


async def test_line_without_an_end_does_not_grow_without_bound() -> None:
    stream = asyncio.StreamReader(limit=1 << 24)
    stream.feed_data(b"x" * (4 * MAX_LINE_BYTES) + b"\nnext\n")
    stream.feed_eof()
    found = [line async for line in lines(stream)]
    assert [len(line) <= MAX_LINE_BYTES for line in found] == [True, True]
    assert found[-1] == "next"
