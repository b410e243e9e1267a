"""The names of the registry's keys.

Every key of a namespace carries the hash tag `{<namespace>}`: on a Cluster all of them live in one slot, so one
script may touch them together, and an ACL can grant `~everwarm:{<namespace>}:*`. Served names contain neither `:`
nor `,` and languages no `:` (checked by the spec), so no two keys collide.

The design fixes these names and other programs read them; add to them, never change one.
"""

import re
from dataclasses import dataclass
from typing import Final

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class KeyNames:
    """Key names of *namespace*; raises ValueError when that is no plain name, since braces would move the keys."""

    namespace: str

    def __post_init__(self) -> None:
        """Check the namespace."""
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ValueError(
                f"namespace {self.namespace!r}: use letters, digits, '-', '_' and '.', "
                "beginning and ending with a letter or digit, at most 253 of them"
            )

    @property
    def pods(self) -> str:
        """ZSET of every pod's id by expiry, in ms of Redis' clock: the index."""
        return self._key("pods")

    @property
    def epoch(self) -> str:
        """STRING, random, set once by whichever pod comes first; another value means Redis came back empty."""
        return self._key("epoch")

    @property
    def changes(self) -> str:
        """STREAM of state changes, approximately trimmed; fields pod, state, model, names, languages, boot."""
        return self._key("changes")

    def pod(self, pod_id: str) -> str:
        """HASH with a pod's record; it dies with the pod's lease."""
        return self._key(f"pod:{pod_id}")

    def warm(self, name: str, language: str) -> str:
        """ZSET of the pods that are warm for (*name*, *language*), id by expiry."""
        return self._key(f"warm:{name}:{language}")

    def pods_of(self, name: str) -> str:
        """ZSET of the pods that serve *name* or will, in any state, id by expiry: all that readers of a name need."""
        return self._key(f"pods:{name}")

    def wanted(self, name: str) -> str:
        """STRING counter with a TTL: how often *name* was asked for in vain since it was last left alone."""
        return self._key(f"wanted:{name}")

    def _key(self, rest: str) -> str:
        return f"everwarm:{{{self.namespace}}}:{rest}"
