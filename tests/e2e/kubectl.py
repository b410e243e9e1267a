"""kubectl and helm as a user types them, against one cluster and namespace."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cluster.clients import find_helm, find_kubectl

Json = dict[str, Any]
POLL_S: Final = 0.25
WAIT_S: Final = 180.0  # two cores start pods while others decode


class CommandFailed(Exception):
    """A command ended with another code than 0; the message has its words."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Commands in *namespace* of the cluster of *kubeconfig*."""

    kubeconfig: Path
    namespace: str

    def __call__(self, *words: str, given: object = None) -> str:
        """Run kubectl with *words*, *given* as JSON on stdin; its stdout. Raises CommandFailed."""
        return self._run(self.command(find_kubectl(), *words), given)

    def helm(self, *words: str, given: object = None) -> str:
        """Run helm with *words*; its stdout. Raises CommandFailed."""
        return self._run(self.command(find_helm(), *words), given)

    def command(self, program: Path, *words: str) -> list[str]:
        """The command line of *program*, which is kubectl or helm."""
        return [str(program), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *words]

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply *objects*."""
        self("apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": list(objects)})

    def get(self, kind: str, *words: str) -> Json:
        """One object, or a list of them."""
        found: Json = json.loads(self("get", kind, *words, "--output=json"))
        return found

    def items(self, kind: str, *words: str) -> list[Json]:
        """The objects of *kind*."""
        found: list[Json] = self.get(kind, *words)["items"]
        return found

    def follow(self, pod: str) -> "Lines":
        """The lines that *pod* writes, from the first on, as they come."""
        process = subprocess.Popen(
            self.command(find_kubectl(), "logs", "--follow", pod),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return Lines(process)

    @staticmethod
    def _run(command: list[str], given: object) -> str:
        text = None if given is None else json.dumps(given)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode != 0:
            raise CommandFailed(
                f"{Path(command[0]).name} {' '.join(command[3:])}: {done.stderr or done.stdout}"
            )
        return done.stdout


@dataclass(slots=True)
class Lines:
    """JSON lines of a process, read by a thread until it ends."""

    process: "subprocess.Popen[str]"
    _read: list[Json] = field(default_factory=list)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self._read.append(json.loads(line))

    def __iter__(self) -> Iterator[Json]:
        return iter(tuple(self._read))

    def __len__(self) -> int:
        return len(self._read)

    def finish(self) -> None:
        """Wait for the end of what is followed."""
        self._thread.join(60)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def wait_for(what: str, condition: Callable[[], object], *, within_s: float = WAIT_S) -> float:
    """Seconds until *condition* holds; a command that fails counts as not yet. Raises TimeoutError."""
    began = time.monotonic()
    last = ""
    while True:
        try:
            if condition():
                return time.monotonic() - began
        except CommandFailed as error:
            last = f"; {error}"
        if time.monotonic() - began > within_s:
            raise TimeoutError(f"no {what} within {within_s:g} s{last}")
        time.sleep(POLL_S)
