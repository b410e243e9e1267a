"""One life of a container, played by a process, and the HTTP probes that judge it.

A life ends for good, as a container does: a restart is a new one, with a new id and a log of its own. All processes
that it started end with its first one, which is the part of a container's isolation that tests would notice.
"""

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import aiohttp

from everwarm.platform.tether import tethered

Json = dict[str, Any]


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Container:
    """A running container; made by `start`, and over when `wait` returns."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.id = f"process://{uuid.uuid4().hex}"
        self.started_at = now()
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Self:
        """Start *command* with this process's environment and *environment*; its output goes to *log*."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("EVERWARM_", "OTEL_"))
        }
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *tethered(command),
                env={**inherited, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=log.parent,
                start_new_session=True,  # a group of its own, so that its children can be ended with it
            )
        return cls(process, log)

    async def wait(self) -> int:
        """The exit code once it has ended, as container runtimes tell it: 128 + n after signal n."""
        code = await self._process.wait()
        self._end_group()
        return code if code >= 0 else 128 - code

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after *grace_s*; returns when it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.wait()
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL; returns when it has ended."""
        self._end_group()
        await self.wait()

    def terminated(self, code: int, *, with_log: bool) -> Json:
        """The `terminated` state of a container status; *with_log* as under FallbackToLogsOnError."""
        state = {
            "containerID": self.id,
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": self.started_at,
            "finishedAt": now(),
        }
        if with_log and code:
            end = self.log.read_bytes()[-2048:].decode(
                errors="replace"
            )  # the kubelet's limit, like the lines'
            state["message"] = "".join(end.splitlines(keepends=True)[-80:])
        return state

    def _end_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Probe:
    """An httpGet probe, with the defaults and the rules of the kubelet."""

    url: str
    headers: Mapping[str, str]
    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, spec: Json, port_of: Callable[[int | str], int]) -> Self:
        """The probe of a container's *spec*; *port_of* says which port stands for the one that it names."""
        if "httpGet" not in spec:
            raise ValueError(f"only httpGet probes are played: {spec}")
        ask = spec["httpGet"]
        return cls(
            url=f"http://127.0.0.1:{port_of(ask['port'])}{ask.get('path', '/')}",
            headers={entry["name"]: entry["value"] for entry in ask.get("httpHeaders", ())},
            initial_delay_s=spec.get("initialDelaySeconds", 0),
            period_s=spec.get("periodSeconds", 10),
            timeout_s=spec.get("timeoutSeconds", 1),
            success_threshold=spec.get("successThreshold", 1),
            failure_threshold=spec.get("failureThreshold", 3),
        )

    async def follow(self, http: aiohttp.ClientSession, tell: Callable[[bool], bool]) -> None:
        """Probe every period; *tell* gets the verdict whenever enough answers agree, and says whether to go on."""
        await asyncio.sleep(self.initial_delay_s)
        last, agreeing = None, 0
        while True:
            answer = await self._succeeds(http)
            agreeing = agreeing + 1 if answer == last else 1
            last = answer
            enough = self.success_threshold if answer else self.failure_threshold
            if agreeing >= enough and not tell(answer):
                return
            await asyncio.sleep(self.period_s)

    async def _succeeds(self, http: aiohttp.ClientSession) -> bool:
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        try:
            async with http.get(
                self.url, headers=self.headers, timeout=timeout, allow_redirects=False
            ) as answer:
                return 200 <= answer.status < 400
        except (aiohttp.ClientError, TimeoutError):
            return False
