"""The local platform as its users start it: `everwarm up` in a process of its own, with handles on its parts."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.support.pods import free_port

READY_TIMEOUT_S: Final = 120.0
READY_LINE: Final = "everwarm ready: "
TWO_PODS: Final = """
apiVersion: everwarm.dev/v1alpha1
kind: WhisperModel
metadata: {name: tiny}
spec: {model: tiny.en, replicas: 2}
"""


@dataclass(frozen=True, slots=True)
class RunningPlatform:
    """A running `everwarm up`; *url* is its gateway."""

    process: "subprocess.Popen[bytes]"
    url: str

    def pods(self) -> list[psutil.Process]:
        """The pods alive now."""
        return [child for child in self._children() if "everwarm_stt" in " ".join(_command(child))]

    def valkey(self) -> psutil.Process:
        """The embedded Valkey alive now; raises LookupError when there is none."""
        for child in self._children():
            command = _command(child)
            if command and any(name in Path(command[0]).name for name in ("valkey-server", "redis-server")):
                return child
        raise LookupError("no embedded Valkey is running")

    def redis_url(self) -> str:
        """The registry's URL, as the pods know it."""
        return self.pods()[0].environ()["EVERWARM_REDIS_URL"]

    def _children(self) -> list[psutil.Process]:
        return [p for p in psutil.Process(self.process.pid).children(recursive=True) if _is_alive(p)]


@contextmanager
def running_platform(
    resources: str, *, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[RunningPlatform]:
    """`everwarm up` on a free port inside `with`, warm; *resources* is the YAML of its WhisperModels."""
    declared = folder / "whispermodels.yaml"
    declared.write_text(resources, encoding="utf-8")
    port = free_port()
    output = Path(tempfile.mkstemp(prefix="up-", suffix=".log", dir=folder)[1])
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("EVERWARM_", "OTEL_"))
    }
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "everwarm.cli", "up", "-f", str(declared), "--port", str(port)],
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        _wait_for_ready_line(process, output)
        yield RunningPlatform(process, f"http://127.0.0.1:{port}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_ready_line(process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while READY_LINE not in (text := output.read_text(encoding="utf-8", errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(
                f"`everwarm up` did not become ready (exit {process.poll()}):\n{text[-4000:]}"
            )
        time.sleep(0.05)  # polls a condition


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
