"""Secrets in files: the internal token shown to pods, and the keys a gateway accepts.

Files, because Kubernetes rotates a mounted Secret under a running process. Each is read when it is first needed and
again when its modification time has changed, looked at once a second at most. Never logged, never in an error.
"""

import hmac
import time
from pathlib import Path
from typing import Final

from everwarm.deadline import Clock

LOOK_EVERY_S: Final = 1.0
MAX_FILE_BYTES: Final = 65_536


class SecretFile:
    """The non-empty lines of the file at *path*, kept up to date.

    Raises OSError where a line is first needed and the file cannot be read; later failures keep what was read, since
    a rotation replaces the file in two steps.
    """

    def __init__(self, path: Path, *, clock: Clock = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lines: tuple[str, ...] = ()
        self._modified_ns: int | None = None
        self._looked_at = float("-inf")

    def lines(self) -> tuple[str, ...]:
        """All secrets in the file, in order."""
        now = self._clock()
        if now - self._looked_at >= LOOK_EVERY_S:
            try:
                self._read_if_changed()
            except OSError:
                if self._modified_ns is None:
                    raise
            self._looked_at = now
        return self._lines

    def first(self) -> str | None:
        """The secret to show; None when the file holds none."""
        lines = self.lines()
        return lines[0] if lines else None

    def accepts(self, shown: str) -> bool:
        """Whether *shown* is one of the secrets; takes as long for a wrong one as for a right one."""
        found = False
        for line in self.lines():
            found |= hmac.compare_digest(line.encode(), shown.encode())
        return found

    def _read_if_changed(self) -> None:
        modified_ns = self._path.stat().st_mtime_ns
        if modified_ns == self._modified_ns:
            return
        with self._path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE_BYTES)
        self._lines = tuple(line.strip() for line in text.splitlines() if line.strip())
        self._modified_ns = modified_ns
