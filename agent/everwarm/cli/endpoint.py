"""Where a command sends its requests: what was asked for, else what the environment says, else what runs here.

`choose` is pure; `served_names` asks the place, which also is how a command learns early that nothing is there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from everwarm.platform.state import RunningState
from everwarm_core.errors import InvalidParameter

REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
HTTP_SCHEMES: Final = frozenset({"http", "https"})
DEFAULT_URL: Final = "http://127.0.0.1:8080"
DEFAULT_NAMESPACE: Final = "local"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A gateway or pod at *url*, or the registry at *redis_url* (its *namespace*); exactly one of them is set.

    Raises InvalidParameter when a URL is none.
    """

    url: str | None = None
    redis_url: str | None = None
    namespace: str = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        if self.redis_url is not None and not is_url(self.redis_url, REDIS_SCHEMES):
            raise InvalidParameter("EVERWARM_REDIS_URL", "is no Redis URL; write it as redis://host:6379/0")
        if self.url is not None and not is_url(self.url, HTTP_SCHEMES):
            raise InvalidParameter("EVERWARM_BASE_URL", "is no URL; write it as http://host:8080")


def is_url(text: str, schemes: Collection[str]) -> bool:
    """Whether *text* is a URL of one of *schemes*, with a port that is a number if it names one."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def choose(
    *, url: str | None, redis_url: str | None, environ: Mapping[str, str], running: Sequence[RunningState]
) -> Endpoint:
    """Where to send audio: flags, EVERWARM_BASE_URL, EVERWARM_REDIS_URL, a platform that runs here, the default."""
    namespace = environ.get("EVERWARM_NAMESPACE") or DEFAULT_NAMESPACE
    if url or redis_url:
        return Endpoint(url, None if url else redis_url, namespace)
    if given := environ.get("EVERWARM_BASE_URL"):
        return Endpoint(url=given, namespace=namespace)
    if given := environ.get("EVERWARM_REDIS_URL"):
        return Endpoint(redis_url=given, namespace=namespace)
    if running:
        return Endpoint(url=running[0].url, namespace=running[0].namespace)
    return Endpoint(url=DEFAULT_URL)


def choose_registry(
    *, url: str | None, redis_url: str | None, environ: Mapping[str, str], running: Sequence[RunningState]
) -> Endpoint:
    """Where to read the state of the pods: as `choose`, but a registry is preferred, for it knows more."""
    namespace = environ.get("EVERWARM_NAMESPACE") or DEFAULT_NAMESPACE
    if not url and not redis_url:
        if given := environ.get("EVERWARM_REDIS_URL"):
            return Endpoint(redis_url=given, namespace=namespace)
        if not environ.get("EVERWARM_BASE_URL") and running:
            return Endpoint(redis_url=running[0].redis_url, namespace=running[0].namespace)
    return choose(url=url, redis_url=redis_url, environ=environ, running=running)
