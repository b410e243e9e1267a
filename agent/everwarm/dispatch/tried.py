"""Which pods were tried for one utterance and how that ended: whom to leave out now, and when it is enough."""

import time
from dataclasses import dataclass, field
from typing import Final

from everwarm.routing.router import Route
from everwarm_core.errors import CapacityError, EverwarmError, InternalError, PodUnreachable

MAX_FAILURES: Final = 3  # for one utterance
SAME_POD_AFTER_S: Final = 1.0  # when every pod has failed, the first may be asked again after this


@dataclass(slots=True)
class Tried:
    """What was tried for one utterance so far."""

    last: EverwarmError | None = None
    refused: set[str] = field(default_factory=set)
    failed: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    defects: int = 0

    @property
    def excluded(self) -> set[str]:
        """`boot`s not to be asked now."""
        return self.refused | self.failed.keys()

    @property
    def last_was_refusal(self) -> bool:
        """Whether the last pod asked was alive and had no place."""
        return isinstance(self.last, CapacityError)

    @property
    def is_enough(self) -> bool:
        """Whether the utterance itself may be what makes pods fail."""
        return self.failures >= MAX_FAILURES or self.defects > 1

    def note(self, route: Route, error: EverwarmError) -> None:
        """*error* was the outcome on *route*."""
        self.last = error
        if isinstance(error, CapacityError):
            self.refused.add(route.pod.boot)
        else:
            self.failed[route.pod.boot] = time.monotonic()
            self.failures += not isinstance(error, PodUnreachable)
            self.defects += isinstance(error, InternalError)

    def forgive(self) -> None:
        """Let the pods that were full be asked again, and those that failed a while ago."""
        self.refused.clear()
        now = time.monotonic()
        self.failed = {boot: at for boot, at in self.failed.items() if now - at < SAME_POD_AFTER_S}
