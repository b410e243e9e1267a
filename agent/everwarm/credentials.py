"""Secrets in files: the internal token shown to pods, and the keys a gateway accepts.

Files, because Kubernetes rotates a mounted Secret under a running process. Each is read when it is first needed and
again when its modification time has changed, looked at once a second at most. Never logged, never in an error.
"""

import errno
import time
from pathlib import Path
from typing import Final

from everwarm.deadline import Clock

LOOK_EVERY_S: Final = 1.0
MAX_FILE_BYTES: Final = 65_536


class WatchedFile:
    """The text of the file at *path*, told once for each version of it."""

    def __init__(
        self, path: Path, *, limit_bytes: int = MAX_FILE_BYTES, clock: Clock = time.monotonic
    ) -> None:
        self._path = path
        self._limit = limit_bytes
        self._clock = clock
        self._modified_ns: int | None = None
        self._looked_at = float("-inf")

    def news(self) -> str | None:
        """All of it, when it has changed since it was last told; None when it has not, or was looked at just now.

        Raises OSError at every look while it cannot be read, is larger than the limit or is no UTF-8 text.
        """
        now = self._clock()
        if self._modified_ns is not None and now - self._looked_at < LOOK_EVERY_S:
            return None
        self._looked_at = now
        modified_ns = self._path.stat().st_mtime_ns
        if modified_ns == self._modified_ns:
            return None
        with self._path.open("rb") as file:
            data = file.read(self._limit + 1)
        if len(data) > self._limit:
            raise OSError(errno.EFBIG, f"it is larger than {self._limit} bytes")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:  # whose message would show a part of the file
            raise OSError(errno.EILSEQ, "it is no UTF-8 text") from None
        self._modified_ns = modified_ns
        return text


class SecretFile:
    """The non-empty lines of the file at *path*, kept up to date.

    Raises OSError where a line is first needed and the file cannot be read; later failures keep what was read, since
    a rotation replaces the file in two steps.
    """

    def __init__(self, path: Path, *, clock: Clock = time.monotonic) -> None:
        self._file = WatchedFile(path, clock=clock)
        self._lines: tuple[str, ...] | None = None

    def lines(self) -> tuple[str, ...]:
        """All secrets in the file, in order."""
        try:
            text = self._file.news()
        except OSError:
            if self._lines is None:
                raise
            return self._lines
        if text is not None:
            self._lines = tuple(line.strip() for line in text.splitlines() if line.strip())
        return self._lines or ()

    def first(self) -> str | None:
        """The secret to show; None when the file holds none."""
        lines = self.lines()
        return lines[0] if lines else None
