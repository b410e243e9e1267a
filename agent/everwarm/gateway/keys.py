"""`Keyring`: from the token that a request shows to its `Caller`, by a file of keys that may change at any time.

The shown key is hashed and compared in constant time with every entry, so neither which key it is nor how much of one
was right can be told from the time. A new version of the file is taken over when it can be read as a whole; until then
the old one holds, and what is wrong is logged once. A caller whose key stays keeps what it has under way, and its debt.
"""

import hmac
import time
from pathlib import Path
from typing import Final

import structlog

from everwarm.api_keys import BadLine, digest_of, parse_keys
from everwarm.credentials import WatchedFile
from everwarm.deadline import Clock
from everwarm.gateway.limits import Caller
from everwarm_core.errors import SettingsError, Unauthorized

MAX_FILE_BYTES: Final = 1 << 20  # what a Secret may hold
VARIABLE: Final = "EVERWARM_GATEWAY_API_KEYS_FILE"

log = structlog.get_logger(__name__)


class Keyring:
    """The callers of the keys file at *path*. Raises SettingsError where it cannot be used from the start."""

    def __init__(self, path: Path, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._file = WatchedFile(path, limit_bytes=MAX_FILE_BYTES, clock=clock)
        self._callers: dict[bytes, Caller] = {}
        self._complaint = ""
        try:
            self._take_over(self._file.news() or "")
        except (OSError, BadLine) as error:
            raise SettingsError("this gateway", ((VARIABLE, _reason(error)),)) from error

    def caller(self, shown: str) -> Caller:
        """Whose key *shown* is; raises Unauthorized."""
        self._look()
        digest = digest_of(shown)
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthorized
        return found

    def _look(self) -> None:
        """Take over a new version of the file, if there is one and it is good."""
        try:
            text = self._file.news()
        except OSError as error:
            if (reason := _reason(error)) != self._complaint:
                self._complaint = reason
                log.warning("keys.kept", reason=reason, keys=len(self._callers))
            return
        if text is None:
            return
        self._complaint = ""
        try:
            self._take_over(text)
        except BadLine as error:
            log.warning("keys.kept", reason=_reason(error), keys=len(self._callers))

    def _take_over(self, text: str) -> None:
        callers = {}
        for key in parse_keys(text):
            caller = callers[key.digest] = self._callers.get(key.digest) or Caller(clock=self._clock)
            caller.change(key.name, key.limits)
        self._callers = callers
        log.info("keys.read", keys=len(callers))


def _reason(error: OSError | BadLine) -> str:
    """What is wrong with the file, without anything that is in it."""
    return str(error) if isinstance(error, BadLine) else error.strerror or type(error).__name__
