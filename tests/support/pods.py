"""Real pods as processes, for tests and benchmarks: started like a kubelet would, stopped by SIGTERM.

A pod's log lines are kept, so that a test can assert events and a failed start can be read.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from everwarm_core.pod_environment import pod_environment
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec

TINY: Final = WhisperModel(metadata=Metadata(name="tiny.en"), spec=WhisperModelSpec(model="tiny.en"))
READY_TIMEOUT_S: Final = 240.0  # tiny.en needs 3 s on an idle machine, base on a busy one a minute
PORTS: Final = range(20_000, 30_000)
"""Below those that Linux gives to whoever binds port 0 or connects (32768 and up), so that none of them is taken while
its owner still starts, or is being restarted."""

_given: Final[set[int]] = set()
"""By `free_port`, to this process: an owner may be down for a while."""


@dataclass(frozen=True, slots=True)
class PodProcess:
    """A running pod; *url* is its base URL, *log* the file its stderr goes to."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def events(self, name: str) -> list[dict[str, object]]:
        """The log events called *name*, oldest first; a line that is not written to its end yet does not count."""
        lines = self.log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        parsed = (json.loads(line) for line in lines if line.startswith("{"))
        return [event for event in parsed if event.get("event") == name]

    def is_ready(self) -> bool:
        """Whether `/readyz` answers 200 now."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once the pod is warm; raises AssertionError with its log when it dies or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self.log.read_text(encoding="utf-8")[-4000:]
                raise AssertionError(f"the pod did not become ready (exit {self.process.poll()}):\n{log}")
            time.sleep(0.02)  # polls a condition, as a kubelet's probe does

    def transcribe(self, pcm: bytes, *, model: str = "tiny.en") -> float:
        """Send s16le samples at 16 kHz over a connection of their own; returns the seconds until the answer."""
        request = urllib.request.Request(
            f"{self.url}/v1/transcribe?model={model}&language=en",
            data=pcm,
            headers={"content-type": "audio/pcm;rate=16000"},
        )
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=300) as answer:
            answer.read()
        return time.perf_counter() - began

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM, wait, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def free_port() -> int:
    """A loopback port that nothing listens on now, and that nobody else of this process was given."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def start_pod(
    environment: Mapping[str, str | None], *, folder: Path, resource: WhisperModel = TINY
) -> PodProcess:
    """Start a pod of *resource* on a free port, *environment* beside this process's own; does not wait.

    A variable that is None is left out. EVERWARM_CPUS defaults to 1; the log goes to a file in *folder*.
    """
    port = free_port()
    log = Path(tempfile.mkstemp(prefix="pod-", suffix=".log", dir=folder)[1])
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("EVERWARM_", "OTEL_"))
    }
    given = {
        **inherited,
        **pod_environment(resource),
        "EVERWARM_CPUS": "1",
        **environment,
        "EVERWARM_PORT": str(port),
    }
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "everwarm_stt"],
            env={name: value for name, value in given.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    return PodProcess(process, f"http://127.0.0.1:{port}", log)


@contextmanager
def running_pod(
    environment: Mapping[str, str | None], *, folder: Path, resource: WhisperModel = TINY
) -> Iterator[PodProcess]:
    """A warm pod inside `with`; ended whatever happens."""
    pod = start_pod(environment, folder=folder, resource=resource)
    try:
        pod.wait_until_ready()
        yield pod
    finally:
        if pod.process.poll() is None:
            try:
                pod.stop()
            except subprocess.TimeoutExpired:
                pod.process.kill()
                pod.process.wait()
