"""Proof that a pod is warm: real decodes on bundled speech, repeated until they no longer get faster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from opentelemetry.trace import Tracer

from everwarm_stt.engine import DecodeOptions, Engine


@dataclass(frozen=True, slots=True)
class WarmProof:
    """What the warm-up measured.

    load_s, warm_s: seconds of the load and of the whole warm-up; durations: seconds of each timed decode by
    language, the last of which is the steady one.
    """

    load_s: float
    warm_s: float
    durations: Mapping[str, tuple[float, ...]]


def bundled_speech() -> bytes:
    """A few seconds of clean speech, as a FLAC file."""
    return files("everwarm_stt").joinpath("data/warmup.flac").read_bytes()


def is_settled(durations: Sequence[float], factor: float) -> bool:
    """Whether the last decode was no faster than the one before it by more than *factor*."""
    raise NotImplementedError


def prove_warm(
    engine: Engine,
    *,
    languages: Sequence[str],
    speech: bytes,
    options: DecodeOptions,
    timeout_s: float,
    tracer: Tracer | None = None,
) -> WarmProof:
    """Warm every path a first request can take; blocks. Raises WarmupFailed."""
    raise NotImplementedError


def prove_language(
    engine: Engine, language: str, *, speech: bytes, options: DecodeOptions, timeout_s: float
) -> tuple[float, ...]:
    """Seconds of each decode until they settled, for one language; blocks. Raises WarmupFailed."""
    raise NotImplementedError
