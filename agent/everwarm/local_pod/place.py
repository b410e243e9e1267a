"""Where a machine's local pods are arranged: one folder per model and configuration, with three files that matter.

- `guardian.lock`: held exclusively by the guardian, from before it is started (its starter takes the lock and hands
  the open file on) until it ends. Whoever gets this lock knows that there is no guardian, and may start one.
- `users.lock`: held shared by every user, exclusively by a guardian that looks whether there is any, and kept by the
  one that leaves, so that no user can slip in between its last look and its end.
- `pod.json`: what the guardian tells of its pod; replaced as a whole. It means nothing without a guardian.

The folder is the user's own (0700), on a file system of this machine: a home folder may be shared between machines,
where neither locks nor loopback addresses mean the same.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from everwarm_core.errors import PlatformError


@dataclass(frozen=True, slots=True)
class Told:
    """What a guardian tells. url: the pod's base URL, only while `/readyz` answers 200.

    pid, born: the pod's process and when it began, in Unix seconds, by which a pod without a guardian is found;
    stage: the pod's last log event; failure, failed_at: why the guardian gave up, and when, in Unix seconds.
    """

    url: str | None = None
    pid: int | None = None
    born: float = 0.0
    stage: str = "starting"
    failure: str | None = None
    failed_at: float = 0.0


class FileLock:
    """A lock on a file, until `release` or the end of every process that has it open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock, on the file that is at its path now."""
        return self._file is not None and _is_at(self._path, self._file)

    @property
    def file(self) -> int:
        """The open file, to hand the lock on to a child process."""
        assert self._file is not None, "not held"
        return self._file

    def take_shared(self) -> bool:
        """Try to hold it together with others; False when somebody holds it exclusively."""
        return self._take(fcntl.LOCK_SH)

    def take_exclusive(self) -> bool:
        """Try to hold it alone; False when anybody holds it."""
        return self._take(fcntl.LOCK_EX)

    def adopt(self, file: int) -> None:
        """Hold the lock that came with the open *file* from the process that started this one."""
        os.set_inheritable(file, False)
        self._file = file

    def release(self) -> None:
        """Hold it no longer. A process that it was handed on to still does: closing, unlike unlocking, is ours alone."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _take(self, kind: int) -> bool:
        self.release()
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        if not _is_at(self._path, file):  # somebody cleaned up between opening and locking
            os.close(file)
            return False
        self._file = file
        return True


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one local pod."""

    folder: Path

    @classmethod
    def of(cls, model: str, environment: Mapping[str, str], *, root: Path) -> Self:
        """The place for *model* run with *environment*, which only differs where users want different pods."""
        digest = hashlib.sha256(json.dumps(sorted(environment.items())).encode()).hexdigest()[:12]
        name = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[-40:]
        return cls(root / f"{name}-{digest}")

    def make(self) -> None:
        """Make the folder, and its parents, private. Raises PlatformError when they are or become anybody else's."""
        for folder in (self.folder.parent, self.folder):
            make_private(folder)

    def guardian(self) -> FileLock:
        """The guardian's lock."""
        return FileLock(self.folder / "guardian.lock")

    def users(self) -> FileLock:
        """The users' lock."""
        return FileLock(self.folder / "users.lock")

    @property
    def log(self) -> Path:
        """What the guardian and its pod have logged."""
        return self.folder / "pod.log"

    def told(self) -> Told:
        """What the guardian told last; an empty Told when nothing, or nothing that makes sense."""
        try:
            return Told(**json.loads((self.folder / "pod.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Told()

    def tell(self, told: Told) -> None:
        """Replace what is told. For the holder of the guardian's lock alone."""
        fresh = self.folder / "pod.json.new"
        fresh.write_text(json.dumps(asdict(told)), encoding="utf-8")
        fresh.replace(self.folder / "pod.json")

    def forget(self) -> None:
        """Tell nothing any more."""
        with suppress(OSError):
            (self.folder / "pod.json").unlink()


def default_root(environ: Mapping[str, str]) -> Path:
    """The user's folder for local pods: the runtime folder where there is one, else in the temporary one."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "everwarm"
    return Path(tempfile.gettempdir()) / f"everwarm-{os.getuid()}"


def make_private(folder: Path) -> None:
    """Make *folder* with mode 0700, or see that it is ours and so; raises PlatformError."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            if stat.S_IMODE(found.st_mode) & 0o077:
                folder.chmod(0o700)
            return
    except OSError as error:
        raise PlatformError(
            f"the folder {str(folder)!r} for the local pod cannot be made: {error.strerror or error};"
            " set XDG_RUNTIME_DIR or TMPDIR to a folder of your own"
        ) from error
    raise PlatformError(
        f"{str(folder)!r} belongs to somebody else; set XDG_RUNTIME_DIR or TMPDIR to a folder of your own"
    )


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except OSError:
        return False
