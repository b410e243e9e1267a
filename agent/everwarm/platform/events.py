"""What happens on the local platform, as values: the CLI draws them, the demo counts them, tests wait for them."""

from dataclasses import dataclass
from typing import TypeAlias

from everwarm.platform.logs import LogLine
from everwarm.platform.process import Exit
from everwarm_core.registry.records import PodRecord


@dataclass(frozen=True, slots=True)
class RegistryStarted:
    """The embedded Valkey answers at *url*, or the given one is used."""

    url: str
    is_embedded: bool


@dataclass(frozen=True, slots=True)
class RegistryExited:
    """The embedded Valkey died and is started again on the same port."""

    end: Exit


@dataclass(frozen=True, slots=True)
class PodStarted:
    """The pod called *pod* runs as process *pid*, for the first time or again."""

    pod: str
    pid: int


@dataclass(frozen=True, slots=True)
class PodChanged:
    """The registry shows another state of *pod* than before, or another life of it."""

    pod: str
    record: PodRecord


@dataclass(frozen=True, slots=True)
class PodExited:
    """*pod* died unasked; *reason* is in its own words."""

    pod: str
    end: Exit
    reason: str


@dataclass(frozen=True, slots=True)
class PodLogged:
    """*pod* wrote *line*."""

    pod: str
    line: LogLine


@dataclass(frozen=True, slots=True)
class GatewayStarted:
    """The gateway listens at *url*; it serves once a pod is warm."""

    url: str


PlatformEvent: TypeAlias = (
    RegistryStarted | RegistryExited | PodStarted | PodChanged | PodExited | PodLogged | GatewayStarted
)
