"""`LocalPod`: one process's share in the machine's pod for a model.

`look` is one step, made again and again by whoever waits: be counted as a user, start a guardian if there is none,
read where the pod listens. Nothing is remembered between two steps but the lock, so every step also mends what
happened since: a guardian that was killed, a pod that died, a folder that somebody cleaned away.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from everwarm.local_pod.place import FileLock, Place, Told, default_root
from everwarm_core import pod_environment as variable
from everwarm_core.environment import PREFIX
from everwarm_core.errors import PlatformError
from everwarm_core.logs import library_logger
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec

LOOK_EVERY_S: Final = 0.05  # while waiting; a look is three system calls
FAILURE_HOLDS_S: Final = 30.0  # a guardian that gave up is not replaced before; its reason is told instead
PROGRESS_EVERY_S: Final = 5.0
QUEUE: Final = 16  # a machine's workers share this pod: short waits are better than refusals

# A local pod has no resource file: these of the user's own variables say how it is run.
CONFIGURABLE: Final = (
    "EVERWARM_BEAM_SIZE", "EVERWARM_CACHE_DIR", "EVERWARM_COMPUTE_TYPE", "EVERWARM_CPUS", "EVERWARM_DEVICE",
    "EVERWARM_HUB_ENDPOINT", "EVERWARM_HUB_REVISION", "EVERWARM_QUEUE", "EVERWARM_SLOTS", "EVERWARM_VAD",
    "EVERWARM_WEIGHTS_PATH",
)  # fmt: skip

log = library_logger(__name__)


def ensure_installed() -> None:
    """Raise PlatformError unless the pod's package is there; it is not imported, for it would bring the model's."""
    if find_spec("everwarm_stt") is None:
        raise PlatformError("a local pod needs the package everwarm-stt: pip install 'everwarm[local]'")


class LocalPod:
    """The machine's pod for *model*.

    language: proven warm by a pod that this user starts; every other one is warmed by its first use. idle_s: seconds
    a pod that this user starts outlives its last user. root: folder for all local pods; default: the user's own.
    """

    def __init__(
        self, model: str, language: str | None = None, *, idle_s: float, root: Path | None = None
    ) -> None:
        self.model: Final = model
        self._idle_s = idle_s
        own = {name: os.environ[name] for name in CONFIGURABLE if os.environ.get(name)}
        # Users of other versions or configurations want other pods; a language is no reason for one.
        identity = {**own, "model": model, "python": sys.executable, "version": version("everwarm")}
        self.place: Final = Place.of(model, identity, root=root or default_root(os.environ))
        self._environment = pod_environment_of(model, language, own=own, inherited=os.environ)
        self._users = self.place.users()
        self._waiting_since: float | None = None
        self._progress_at = 0.0

    async def look(self) -> str | None:
        """The pod's base URL, or None while it is not ready; starts what is missing.

        Raises PlatformError when the pod could not be started a moment ago, or its folder cannot be had.
        """
        guardian = self.place.guardian()
        try:
            if not self._users.is_held:
                self.place.make()
                if not self._users.take_shared():
                    self._tell_progress("leaving")  # a guardian is about to end, or just looks
                    return None
            is_unguarded = guardian.take_exclusive()
        except OSError as error:
            raise PlatformError(f"the local pod of {self.model!r} cannot be joined: {error}") from error
        if is_unguarded:
            await self._start(guardian)
            self._tell_progress("starting")
            return None
        told = self.place.told()
        if told.url is None:
            self._tell_progress(told.stage)
            return None
        if self._waiting_since is not None:
            waited_s = round(time.monotonic() - self._waiting_since, 3)
            log.info("local_pod.joined", model=self.model, url=told.url, waited_s=waited_s)
            self._waiting_since = None
        return told.url

    def leave(self) -> None:
        """Be no user any more; the guardian ends the pod once nobody has been one for a while."""
        self._waiting_since = None
        if self._users.is_held:
            log.info("local_pod.left", model=self.model)
        self._users.release()

    def _tell_progress(self, stage: str) -> None:
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = self._progress_at = now
        if now - self._progress_at >= PROGRESS_EVERY_S:
            self._progress_at = now
            waited_s = round(now - self._waiting_since, 1)
            log.info("local_pod.awaited", model=self.model, stage=stage, waited_s=waited_s)

    async def _start(self, guardian: FileLock) -> None:
        """Start a guardian that takes over the lock *guardian*, which is held."""
        told = self.place.told()
        if told.failure and time.time() - told.failed_at < FAILURE_HOLDS_S:
            guardian.release()
            raise PlatformError(
                f"the local pod of {self.model!r} cannot be started: {told.failure} (log: {self.place.log})"
            )
        log.info("local_pod.starting", model=self.model, log=str(self.place.log))
        await asyncio.to_thread(self._spawn, guardian, told)

    def _spawn(self, guardian: FileLock, told: Told) -> None:
        """In a thread, which no cancellation stops half-way: the lock is released here or in the guardian."""
        try:
            # Others must not take a dead guardian's word; where its pod is, the new one must know.
            self.place.tell(Told(pid=told.pid, born=told.born))
            with (self.place.folder / "guardian.log").open("wb") as output:
                starter = subprocess.run(
                    [
                        sys.executable, "-P", "-m", "everwarm.local_pod",
                        str(self.place.folder), str(guardian.file), str(self._idle_s),
                    ],
                    env=self._environment,
                    pass_fds=(guardian.file,),
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    check=False,
                )  # fmt: skip
        except OSError as error:
            raise PlatformError(f"the local pod of {self.model!r} cannot be started: {error}") from error
        finally:
            guardian.release()
        if starter.returncode != 0:
            raise PlatformError(
                f"the guardian of the local pod of {self.model!r} ended at once, with {starter.returncode};"
                f" see {self.place.folder / 'guardian.log'}"
            )


def pod_environment_of(
    model: str, language: str | None, *, own: Mapping[str, str], inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a local pod's process: unregistered, on a free loopback port.

    own: the user's CONFIGURABLE variables; inherited: its whole environment, of which no other EVERWARM_* goes along.
    """
    spec = WhisperModelSpec(model=model, languages=(language,) if language else (), queue=QUEUE)
    resource = WhisperModel(metadata=Metadata(name="local-pod"), spec=spec)
    return {
        **{name: value for name, value in inherited.items() if not name.startswith(PREFIX)},
        **variable.pod_environment(resource),
        **own,
        variable.HOST: "127.0.0.1",
        variable.PORT: "0",
        "PYTHONUNBUFFERED": "1",
    }
