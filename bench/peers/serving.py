"""Starts a peer's server on loopback, waits until it takes requests, and ends it without a trace.

A peer gets a free port and a temporary folder of its own, for its sockets, logs and temporary files. The folder is
also what its processes are known by: each inherits TMPDIR, while a child that outlives its parent, as some of Ray's
did in trials, descends from nobody we know. A peer is told to end by SIGTERM; what is left of it after a while is
killed. What the two listen on is loopback, except for one port of each of Ray Serve's replicas, which Ray opens on all
interfaces and has no setting for.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from bench.peers.client import MODEL_ID
from bench.peers.environments import environment
from tests.support.pods import free_port

READY_TIMEOUT_S: Final = 240.0  # Ray Serve takes 10 s on an idle machine of two cores
POLL_S: Final = 0.05
STOP_TIMEOUT_S: Final = 30.0  # Ray Serve takes 5 s
LINGER_S: Final = 5.0  # what a server's other processes get when it is gone; a guess, most end before it does
LOG_TAIL: Final = 4000  # characters of a peer's log that an error shows

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with.

    name: as in tables; key: of its script `<key>_server.py`, its pins `<key>.lock` and its environment; replicas,
    threads: what serves most on two cores, see `PEERS`; options, variables: what only this peer's server is given.
    """

    name: str
    key: str
    replicas: int
    threads: int
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def lock(self) -> Path:
        """The file with the peer's pins."""
        return _FOLDER / f"{self.key}.lock"

    def command(
        self,
        python: Path,
        *,
        port: int,
        weights: Path,
        beam_size: int,
        replicas: int,
        threads: int,
        language: str,
    ) -> list[str]:
        """The command line of its server, run by the *python* of its environment."""
        options = {
            "port": port,
            "weights": weights,
            "replicas": replicas,
            "threads": threads,
            "beam-size": beam_size,
            "language": language,
        }
        script = _FOLDER / f"{self.key}_server.py"
        given = (f"--{name}={value}" for name, value in options.items())
        # -P: modules beside the script are ours and must not pass for a library of the peer's.
        return [str(python), "-P", str(script), *given, *self.options]


# Two processes with one thread each against one with two: 16 callers, tiny.en, greedy, two cores, niced beside other
# work, both servers up and asked in turn. Ray Serve answered 2.9 a second against 1.7. LitServe answered 1.2 either way,
# for 0.56 s of CPU time an answer either way; so where the cores are its own, two workers lose nothing and are not held
# up by the parts of a decode that run on one thread. A single caller is answered sooner by one process with two threads.
PEERS: Final = (
    Peer(
        "Ray Serve",
        "ray_serve",
        replicas=2,
        threads=1,
        options=(f"--model-id={MODEL_ID}",),
        variables={
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray listens on all interfaces unless it takes this machine for one that clusters do not run on.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        },
    ),
    Peer("LitServe", "litserve", replicas=2, threads=1),
)


@dataclass(frozen=True, slots=True)
class Served:
    """A running peer; *url* is its base URL, *folder* its temporary one."""

    peer: Peer
    process: "subprocess.Popen[bytes]"
    url: str
    folder: Path

    @property
    def log(self) -> Path:
        """The file that all its output goes to."""
        return self.folder / "server.log"

    def pids(self) -> list[int]:
        """All its processes now: its server, what that started, and so on."""
        return [process.pid for process in _processes_of(self.folder)]

    def is_ready(self) -> bool:
        """Whether `/health` answers 200 now."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 - our own URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once the peer takes requests; raises NotReady when it ends before or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            code = self.process.poll()
            if code is not None:
                raise NotReady(self, f"ended with exit code {code}")
            if time.monotonic() > deadline:
                raise NotReady(self, f"was not ready after {timeout_s:g} s")
            time.sleep(POLL_S)  # polls a condition, as a load balancer's probe does


class NotReady(RuntimeError):
    """A peer did not get as far as taking requests; its message ends with the end of the peer's log."""

    def __init__(self, served: Served, what: str) -> None:
        log = served.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
        super().__init__(f"{served.peer.name} {what}; its log ends:\n{log}")
        self.peer = served.peer


@contextmanager
def running(
    peer: Peer, *, weights: Path, beam_size: int, replicas: int, threads: int, language: str = "en"
) -> Iterator[Served]:
    """*peer* serving the model in *weights* inside `with`; makes its environment first if need be.

    replicas: processes that hold the model; threads: of each. Ready means that requests are taken: Ray Serve loads a
    model when the first request for it comes, so send some before measuring what is steady. Raises InstallFailed or
    NotReady.
    """
    python = environment(peer.key, peer.lock)
    port = free_port()
    command = peer.command(
        python,
        port=port,
        weights=weights.resolve(),
        beam_size=beam_size,
        replicas=replicas,
        threads=threads,
        language=language,
    )
    # A short name: the paths of Ray's sockets in it must not exceed 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="peer-"))
    try:
        served = Served(peer, _start(peer, command, folder), f"http://127.0.0.1:{port}", folder)
        try:
            served.wait_until_ready()
            yield served
        finally:
            _end(served)
    finally:
        shutil.rmtree(folder)


def server_environment(peer: Peer, inherited: Mapping[str, str], *, folder: Path) -> dict[str, str]:
    """The variables a peer's server gets: *inherited* without those of this project or of a Ray, and its own."""
    ours = ("EVERWARM_", "OTEL_", "RAY_", "PYTHON", "VIRTUAL_ENV")
    return {
        **{name: value for name, value in inherited.items() if not name.startswith(ours)},
        "TMPDIR": str(folder),
        "HF_HUB_OFFLINE": "1",  # weights are a folder, and nobody should ask elsewhere
        **peer.variables,
    }


def _start(peer: Peer, command: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "server.log").open("wb") as sink:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=server_environment(peer, os.environ, folder=folder),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )


def _processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # ended meanwhile, or another user's
            if process.environ().get("TMPDIR") == str(folder):
                found.append(process)
    return found


def _end(served: Served) -> None:
    """SIGTERM to the server, and SIGKILL to whatever of its processes does not end after it."""
    if served.process.poll() is None:
        served.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            served.process.wait(STOP_TIMEOUT_S)
    psutil.wait_procs(_processes_of(served.folder), timeout=LINGER_S)
    while left := _processes_of(served.folder):  # again, in case one was being started
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=LINGER_S)
    served.process.wait(STOP_TIMEOUT_S)
