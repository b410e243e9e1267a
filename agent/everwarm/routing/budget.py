"""A retry budget: retries may add a fifth to the load, not multiply it (the scheme is Finagle's).

Every utterance puts 0.2 tokens in, ten more drip in each second, every further attempt takes one out. Without it, an
outage of some pods becomes an overload of the rest. A token may be taken in advance: the answer says how long to wait
for it, so a pod that dies with many utterances spreads their retries over seconds instead of failing some of them.
"""

import time
from typing import Final

from everwarm.deadline import Clock

TOKENS_PER_REQUEST: Final = 0.2  # retries may add 20 % to the load
TOKENS_PER_SECOND: Final = 10.0  # so that an agent with little traffic may retry at all
CAPACITY: Final = 100.0  # ten seconds of the drip; what one dying pod may hold


class RetryBudget:
    """A token bucket over *clock*; starts full. Not for use from several threads."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._tokens = CAPACITY
        self._counted_at = clock()

    def deposit(self) -> None:
        """Count one new utterance."""
        self._tokens = min(CAPACITY, self.tokens() + TOKENS_PER_REQUEST)

    def take(self) -> float:
        """Take the token of one retry; returns the seconds to wait before it may be used, 0.0 when at once."""
        self._tokens = self.tokens() - 1.0
        return max(0.0, -self._tokens / TOKENS_PER_SECOND)

    def give_back(self) -> None:
        """Return a token whose wait was too long to be worth it."""
        self._tokens = min(CAPACITY, self.tokens() + 1.0)

    def tokens(self) -> float:
        """Tokens held now; negative while some are promised in advance."""
        now = self._clock()
        self._tokens = min(CAPACITY, self._tokens + (now - self._counted_at) * TOKENS_PER_SECOND)
        self._counted_at = now
        return self._tokens
