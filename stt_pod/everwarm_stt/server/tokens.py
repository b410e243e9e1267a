"""The internal token: who may ask this pod for work, once a token file is configured.

The file holds one token, or two on lines of their own while one replaces the other. It is read again when it changes
on disk, so a rotated Secret needs no restart; while it is missing or empty the last tokens stay valid, since a
half-finished rotation must not lock every agent out.
"""

import hmac
from pathlib import Path
from typing import Final

import structlog

from everwarm_core.errors import SettingsError, Unauthorized

MAX_TOKENS: Final = 2  # the old one and the new one

log = structlog.stdlib.get_logger(__name__)


class Tokens:
    """The tokens in the file at *path*; raises SettingsError when it cannot be read or holds none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._stat()
        try:
            self._tokens = _read(path)
        except (OSError, ValueError) as error:
            raise SettingsError("this pod", (("EVERWARM_TOKEN_FILE", str(error)),)) from error

    def check(self, authorization: str | None) -> None:
        """Raise Unauthorized unless *authorization* is `Bearer` and one of the tokens."""
        self._refresh()
        scheme, _, presented = (authorization or "").partition(" ")
        given = presented.strip().encode("latin-1", "replace")
        # Each comparison takes the same time whatever is presented, and all are made.
        matches = [hmac.compare_digest(given, token) for token in self._tokens]
        if scheme.lower() != "bearer" or not any(matches):
            raise Unauthorized

    def newest(self) -> str:
        """The token to present oneself."""
        return self._tokens[0].decode("latin-1")

    def _refresh(self) -> None:
        version = self._stat()
        if version is None or version == self._version:
            return
        self._version = version
        try:
            self._tokens = _read(self._path)
        except (OSError, ValueError) as error:
            log.warning("token.unreadable", path=str(self._path), reason=str(error))
        else:
            log.info("token.reloaded", path=str(self._path), tokens=len(self._tokens))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _read(path: Path) -> tuple[bytes, ...]:
    tokens = tuple(line.strip() for line in path.read_bytes().splitlines() if line.strip())
    if not 1 <= len(tokens) <= MAX_TOKENS:
        raise ValueError(f"{path} holds {len(tokens)} tokens; write one, or two on lines of their own")
    return tokens
