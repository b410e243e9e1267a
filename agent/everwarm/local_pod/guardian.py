"""The guardian: a small process that owns one local pod, from its start until nobody uses it any more.

It supervises the pod as the local platform does, tells users its URL only while `/readyz` answers 200, and takes it
back when the pod dies. It ends, and the pod with it, when nobody has held the users' lock for *idle_s* seconds, when
its folder is gone, on SIGTERM, or when the pod died several times in a row; then it leaves the reason behind. A
predecessor that was killed may have left its pod: that one is ended first.
"""

import asyncio
import contextlib
import http.client
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from typing import Final
from urllib.parse import urlsplit

import psutil
import structlog

from everwarm.local_pod.place import FileLock, Place, Told
from everwarm.platform.logs import last_words, parse_line
from everwarm.platform.process import Backoff, Exit, SupervisedProcess
from everwarm_core.errors import PlatformError

GIVE_UP_DEATHS: Final = (
    3  # in a row, each within a minute; a download may fail once, a wrong name fails for ever
)
DRAIN_S: Final = 37.0  # the pod's own limit is 35 s
LEFTOVER_S: Final = 10.0  # for a predecessor's pod to end, before it is killed
SAME_BIRTH_S: Final = 2.0  # a process's start is derived from a clock that may be set
MOST_BETWEEN_LOOKS_S: Final = 1.0
READY_EVERY_S: Final = 0.1
READY_TIMEOUT_S: Final = 2.0
LOG_BYTES: Final = 5_000_000  # and as much again of older lines

log = structlog.stdlib.get_logger(__name__)


class Guardian:
    """Guards the pod of *place*; *lock* is the guardian's, and held."""

    def __init__(self, place: Place, lock: FileLock, *, idle_s: float) -> None:
        self._place = place
        self._lock = lock
        self._idle_s = idle_s
        self._told = Told()
        self._listening = asyncio.Event()
        self._url = ""
        # The pod's lines, in a file of bounded size.
        self._log_file = RotatingFileHandler(place.log, maxBytes=LOG_BYTES, backupCount=1, delay=True)
        self._stop = asyncio.Event()
        self._failure: PlatformError | None = None
        self._is_ending = False
        self._pod = SupervisedProcess(
            (sys.executable, "-P", "-m", "everwarm_stt"),
            environment=os.environ,
            backoff=Backoff(),
            on_start=self._started,
            on_line=self._read,
            on_exit=self._died,
        )

    async def run(self) -> None:
        """Guard until there is no reason to; raises PlatformError when the pod keeps dying."""
        with self._signals():
            async with asyncio.TaskGroup() as tasks:
                pod = tasks.create_task(self._pod.run(), name="pod")
                telling = tasks.create_task(self._tell_when_ready(), name="ready")
                users = await self._until_unused()
                try:
                    self._is_ending = True
                    self._place.forget()
                    self._pod.stop(grace_s=DRAIN_S)
                    telling.cancel()
                    await asyncio.wait([pod])
                finally:
                    users.release()
        if self._failure is not None:
            raise self._failure

    async def _until_unused(self) -> FileLock:
        """Return when it is time to end, with the users' lock held if nobody had it."""
        idle_since: float | None = None
        users = self._place.users()
        while not self._stop.is_set() and self._lock.is_held:
            if users.take_exclusive():
                now = time.monotonic()
                idle_since = now if idle_since is None else idle_since
                if now - idle_since >= self._idle_s:
                    log.info("local_pod.unused", idle_s=self._idle_s)
                    return users
                users.release()
            else:
                idle_since = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(MOST_BETWEEN_LOOKS_S, self._idle_s / 4)):
                    await self._stop.wait()
        if self._failure is None:
            log.info("local_pod.stopped", by="signal" if self._stop.is_set() else "its folder is gone")
        return users

    async def _tell_when_ready(self) -> None:
        """For each life of the pod: wait until it listens and is ready, then tell its URL."""
        while True:
            await self._listening.wait()
            url = self._url
            if not await asyncio.to_thread(is_ready, url):
                await asyncio.sleep(READY_EVERY_S)
            elif url == self._url:  # it may have died meanwhile
                self._listening.clear()
                self._tell(replace(self._told, url=url, stage="ready"))
                log.info("local_pod.ready", url=url)

    def _started(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._tell(Told(pid=pid, born=psutil.Process(pid).create_time()))
        log.info("local_pod.started", pid=pid)

    def _read(self, text: str) -> None:
        self._log_file.handle(logging.makeLogRecord({"msg": text}))
        line = parse_line(text)
        if line.event == "pod.listening":
            self._url = str(line.attributes.get("url", ""))
            self._listening.set()
        if line.attributes and self._told.url is None:
            self._tell(replace(self._told, stage=line.event))

    def _died(self, end: Exit) -> None:
        self._url = ""
        self._listening.clear()
        self._tell(Told())
        reason = last_words(end.last_lines)
        log.error("local_pod.died", cause=end.cause, deaths=end.deaths, reason=reason)
        if end.deaths >= GIVE_UP_DEATHS:
            self._failure = PlatformError(f"its pod died {end.deaths} times ({end.cause}): {reason}")
            self._stop.set()

    def _tell(self, told: Told) -> None:
        self._told = told
        if self._is_ending:
            return
        with contextlib.suppress(OSError):  # the folder is gone, which ends us soon
            self._place.tell(told)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        yield


def guard(place: Place, lock: FileLock, *, idle_s: float) -> int:
    """Guard the pod of *place* until it is no longer wanted; returns the exit code. *lock* is the guardian's."""
    try:
        end_leftover(place.told())
        asyncio.run(_guard(place, lock, idle_s))
    except PlatformError as error:
        log.error("local_pod.given_up", reason=str(error))  # noqa: TRY400  # the reason is the pod's, not ours
        with contextlib.suppress(OSError):
            place.tell(Told(failure=str(error), failed_at=time.time()))
        return 1
    finally:
        lock.release()
    return 0


async def _guard(place: Place, lock: FileLock, idle_s: float) -> None:
    await Guardian(place, lock, idle_s=idle_s).run()


def end_leftover(told: Told) -> None:
    """End the pod that a killed guardian left behind, if it still runs; blocks until it is gone."""
    if told.pid is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        pod = psutil.Process(told.pid)
        if abs(pod.create_time() - told.born) > SAME_BIRTH_S:
            return  # another process by now
        log.warning("local_pod.orphan_ended", pid=told.pid)
        pod.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            pod.wait(LEFTOVER_S)
            return
        pod.kill()
        pod.wait(LEFTOVER_S)


def is_ready(url: str) -> bool:
    """Whether the pod at *url* answers 200 to `/readyz` now; never by way of a proxy."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=READY_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
