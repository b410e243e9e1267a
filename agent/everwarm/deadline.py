"""One caller's time budget, carried as a moment instead of a duration, so that waiting in one place shortens the next.

Made once, where the utterance enters (client, gateway); everything below only asks what remains.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

Clock = Callable[[], float]
"""Monotonic seconds; the zero point means nothing."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """*limit_s* seconds were given, and they are over at *at* (seconds of *clock*)."""

    limit_s: float
    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, limit_s: float, *, clock: Clock = time.monotonic) -> Self:
        """The deadline *limit_s* seconds from now."""
        return cls(limit_s, clock() + limit_s, clock)

    def remaining_s(self) -> float:
        """Seconds left; 0.0 once it has passed."""
        return max(0.0, self.at - self.clock())

    @property
    def has_passed(self) -> bool:
        """Whether no time is left."""
        return self.clock() >= self.at

    def sooner(self, limit_s: float) -> "Deadline":
        """This deadline, or *limit_s* seconds from now if that is earlier; errors still name the whole budget."""
        return Deadline(self.limit_s, min(self.at, self.clock() + limit_s), self.clock)

    def later(self, seconds: float) -> "Deadline":
        """This deadline with *seconds* more, such as the length of a recording."""
        return Deadline(self.limit_s + seconds, self.at + seconds, self.clock)
