"""How many requests the gateway holds, and whether it takes new ones: asked before a body's first byte is read."""

from collections.abc import Iterator
from contextlib import contextmanager

from everwarm_core.errors import GatewayFull, PodDraining


class Admission:
    """At most *limit* requests at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0
        self.is_draining = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request; raises GatewayFull, or PodDraining once the gateway shuts down."""
        if self.is_draining:
            raise PodDraining
        if self.held >= self._limit:
            raise GatewayFull(f"{self._limit} requests")
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    def drain(self) -> None:
        """Take no new requests from now on."""
        self.is_draining = True
