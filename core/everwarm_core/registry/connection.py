"""The one place that makes Redis clients, and the one that says what a lost Redis looks like.

redis-py would retry ten times and wait 5 s per socket operation: right for a cache, wrong for a heartbeat, whose
retry is the next heartbeat. Clients made here try once, and every use of them stands inside `reaching_redis`, which
bounds the whole exchange: an outage is noticed sooner than leases lapse.

The bound is ours and not redis-py's `socket_timeout`, for with that it sends under `asyncio.wait_for`, which on
Python 3.11 swallows a cancellation that arrives in the moment the send completes; a task around XREAD would outlive
its cancellation. RESP2 is pinned: replies then have one shape from redis-py 6 to 8 and on every server.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.logs import library_logger

CONNECT_TIMEOUT_S: Final = 1.0
EXCHANGE_TIMEOUT_S: Final = 2.0  # usually under 1 ms; a read that hangs must end before leases of 5 s lapse
BLOCK_S: Final = 4.0  # of XREAD; below the 5 s after which many proxies cut an idle connection

log = library_logger(__name__)


def connect(url: str) -> Redis:
    """A client of the Redis at *url* (`redis://`, `rediss://`, `unix://`) that never retries and answers in `str`.

    Nothing is opened before the first command; close it with `await client.aclose()`. It waits for ever by itself:
    use it inside `reaching_redis`. Raises ValueError when *url* is no Redis URL.
    """
    client: Redis = Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors="replace",  # foreign bytes make one unreadable record, not a reader that fails for ever
        protocol=2,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),
    )
    return client


def pipeline(redis: Redis, *, is_atomic: bool = False) -> Any:
    """A pipeline of *redis*; untyped, for redis-py types its commands as if they were to be awaited."""
    return redis.pipeline(transaction=is_atomic)


@asynccontextmanager
async def reaching_redis(timeout_s: float = EXCHANGE_TIMEOUT_S) -> AsyncIterator[None]:
    """Inside, whatever says that Redis cannot be reached or used becomes RegistryUnavailable, as does *timeout_s*.

    A Redis that answers with an error (loading, read-only, out of memory, no permission) is as lost as one that is
    down: the caller can do nothing but try again later.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise RegistryUnavailable(f"no answer within {timeout_s:g} s") from error
    except (RedisError, OSError) as error:
        raise RegistryUnavailable(str(error) or type(error).__name__) from error


class OutageLog:
    """Tells an outage once when it begins and once when it ends, whatever the number of failures between.

    role: who noticed, as an attribute of the events; clock: monotonic seconds.
    """

    def __init__(self, role: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log.bind(role=role)
        self._clock = clock
        self._lost_at: float | None = None
        self._was_reached = False

    @property
    def is_lost(self) -> bool:
        """Whether the last thing reported was a failure."""
        return self._lost_at is not None

    def failed(self, error: RegistryUnavailable) -> None:
        """Redis could not be reached."""
        if self._lost_at is None:
            self._lost_at = self._clock()
            event = "registry.lost" if self._was_reached else "registry.awaited"
            self._log.warning(event, reason=error.reason)

    def succeeded(self) -> None:
        """Redis answered."""
        if self._lost_at is not None:
            event = "registry.recovered" if self._was_reached else "registry.reached"
            self._log.info(event, after_s=round(self._clock() - self._lost_at, 3))
        self._lost_at = None
        self._was_reached = True
