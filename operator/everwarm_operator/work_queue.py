"""A keyed queue of what is to be reconciled: each key waits once, is worked on by one worker at a time, and comes again
with back-off when its work failed.

Level-based: a key says that something about it may have changed, not what. A key added while it is being worked on is
worked on once more afterwards, so nothing that happened meanwhile is lost and no two workers ever write for the same
resource. kopf's own handlers would drop a failed event, which is why watching and working are kept apart.

Times are the event loop's; failures of a key double its wait up to a limit, and success forgets them.
"""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BACKOFF_BASE_S: Final = 0.1  # a conflict or a webhook that was not up yet is often over by then
BACKOFF_MAX_S: Final = 60.0  # an API server that is away for long is asked once a minute for each resource


def backoff_s(failures: int) -> float:
    """The wait before try number *failures* + 1, in seconds."""
    return float(min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** min(failures - 1, 16)))


class WorkQueue(Generic[K]):
    """Keys in the order in which they were added; on one event loop."""

    def __init__(self) -> None:
        self._ready: OrderedDict[K, None] = OrderedDict()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self._news = asyncio.Event()

    def __len__(self) -> int:
        """Keys that could be worked on now."""
        return len(self._ready)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits now and nothing is being worked on; what comes later does not count."""
        return not self._ready and not self._working

    def add(self, key: K) -> None:
        """Have *key* worked on as soon as a worker is free."""
        self._due.pop(key, None)
        if key in self._working:
            self._again.add(key)
            return
        self._ready[key] = None
        self._news.set()

    def add_later(self, key: K, delay_s: float) -> None:
        """Have *key* worked on in *delay_s* seconds, unless it is sooner for another reason."""
        if key in self._ready or key in self._again:
            return
        due = asyncio.get_running_loop().time() + delay_s
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._later, (due, self._count, key))
        self._news.set()

    async def take(self) -> K:
        """The next key, ours until `done` or `failed` is told."""
        while True:
            self._promote()
            if self._ready:
                key, _ = self._ready.popitem(last=False)
                self._working.add(key)
                return key
            self._news.clear()
            next_due = self._later[0][0] if self._later else None
            try:
                async with asyncio.timeout_at(next_due):
                    await self._news.wait()
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """*key* is as it should be."""
        self._failures.pop(key, None)
        self._settle(key)

    def failed(self, key: K) -> float:
        """The work on *key* failed; returns the seconds until it is tried again."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._settle(key)
        delay_s = backoff_s(failures)
        self.add_later(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """*key* is no more: no try of it is to come."""
        self._failures.pop(key, None)
        self._due.pop(key, None)
        self._ready.pop(key, None)
        self._again.discard(key)

    def _settle(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _promote(self) -> None:
        """Move what is due to what is ready; entries that were overtaken are dropped here."""
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                self.add(key)
