"""What the demo claims, each as a sentence with its evidence, checked against the measurements; pure.

Claims about time compare each first request with others of the same clip right before and after it, by medians; a
machine that others use gives 10-30 % of noise to that, which the tolerances below allow for. What a load would add,
the `cached` way of the same run shows. Everything else is counted, so it has no tolerance.
"""

import math
from dataclasses import dataclass
from typing import Final

from everwarm.demo.results import WayResult

FIRST_TOLERANCE: Final = 1.35  # the workers' first requests: the median of four
READY_TOLERANCE: Final = 1.5  # each pod's first request after ready: the median of two, so noisier
JITTER_S: Final = 0.1
"""What others on the machine may cost one answer, however short: of a decode of 0.1 s the tolerances allow for too little."""
WORD_ERROR_LIMIT: Final = 0.10  # synthetic speech, clearly spoken


@dataclass(frozen=True, slots=True)
class Claim:
    """*sentence* is what is claimed, *evidence* what was measured, *held* whether the two agree."""

    name: str
    sentence: str
    evidence: str
    held: bool


def claims(before: WayResult, cached: WayResult, everwarm: WayResult) -> tuple[Claim, ...]:
    """Every claim about one model, held or not."""
    return (
        _comparison_is_fair(before, cached),
        _nothing_failed(before, cached, everwarm),
        _first_is_like_any_other(cached, everwarm),
        _warm_when_ready(everwarm),
        _one_load_per_pod(everwarm),
        _workers_hold_no_model(everwarm),
        _workers_hold_less(cached, everwarm),
        _cpu_is_less(before, everwarm),
        _transcripts_are_equal(cached, everwarm),
        _transcripts_are_right(everwarm),
    )


def _comparison_is_fair(before: WayResult, cached: WayResult) -> Claim:
    workers = len(cached.workers)
    return Claim(
        "comparison",
        "The ways compared are what they are called: a load per utterance, and a load per worker",
        f"{before.loads} loads for {len(before.played)} utterances; {cached.loads} loads in {workers} workers",
        before.loads == len(before.played) and cached.loads == workers,
    )


def _nothing_failed(*ways: WayResult) -> Claim:
    failed = [f"{way.way}: {reason}" for way in ways for reason in way.failures]
    return Claim(
        "answered",
        "Every utterance was answered",
        "; ".join(failed)
        or f"{sum(len(way.played) for way in ways)} of {sum(len(way.played) for way in ways)}",
        not failed,
    )


def _first_is_like_any_other(cached: WayResult, everwarm: WayResult) -> Claim:
    limit = _limit(FIRST_TOLERANCE, everwarm)
    return Claim(
        "first request",
        "A worker's first request takes as long as any other",
        f"{everwarm.first_over_later:.2f} x a later one (at most {limit:.2f}); "
        f"with a cache in the worker {cached.first_over_later:.2f} x",
        everwarm.first_over_later <= limit,
    )


def _warm_when_ready(everwarm: WayResult) -> Claim:
    limit = _limit(READY_TOLERANCE, everwarm)
    return Claim(
        "warm when ready",
        "The first request that a pod gets after it is ready is as fast as later ones",
        f"{everwarm.pods_first_over_later:.2f} x a later one (at most {limit:.2f})",
        everwarm.pods_first_over_later <= limit,
    )


def _limit(tolerance: float, way: WayResult) -> float:
    """*tolerance*, or what `JITTER_S` makes of a later request of *way*, whichever is more."""
    return max(tolerance, 1 + JITTER_S / way.later_s)


def _one_load_per_pod(everwarm: WayResult) -> Claim:
    return Claim(
        "loads",
        "The model is loaded once per pod and never in a worker",
        f"{everwarm.pod_loads} loads in {len(everwarm.pods)} pods, {everwarm.worker_loads} in the workers",
        everwarm.pod_loads == len(everwarm.pods) and everwarm.worker_loads == 0,
    )


def _workers_hold_no_model(everwarm: WayResult) -> Claim:
    looked = "imports" if everwarm.mapped is None else "imports and memory maps"
    return Claim(
        "empty workers",
        "Workers hold no model, nor a library that could run one",
        f"found in their {looked}: {', '.join(everwarm.libraries) or 'none'}",
        not everwarm.libraries,
    )


def _workers_hold_less(cached: WayResult, everwarm: WayResult) -> Claim:
    pays_from = break_even(cached, everwarm)
    in_all = f"in all processes {_mb(everwarm.memory_steady)} against {_mb(cached.memory_steady)}"
    return Claim(
        "memory",
        "The workers hold less memory than with a model each, whatever the model",
        f"{_mb(everwarm.memory_workers)} against {_mb(cached.memory_workers)}; {in_all}"
        + (f", so less in all from {pays_from} workers on" if pays_from else ""),
        everwarm.memory_workers < cached.memory_workers,
    )


def break_even(cached: WayResult, everwarm: WayResult) -> int | None:
    """The least number of workers for which pods, platform and workers together hold less than workers with a model
    each, given what one worker of each kind holds; None when a worker holds no less.
    """
    per_cached = cached.memory_workers / len(cached.workers)
    per_agent = everwarm.memory_workers / len(everwarm.workers)
    if per_cached <= per_agent:
        return None
    fixed = everwarm.memory_steady - everwarm.memory_workers
    return math.floor(fixed / (per_cached - per_agent)) + 1


def _mb(count: float) -> str:
    return f"{count / 1e6:.0f} MB"


def _cpu_is_less(before: WayResult, everwarm: WayResult) -> Claim:
    return Claim(
        "cpu",
        "An utterance costs less CPU than with a load before it",
        f"{everwarm.cpu_per_utterance_s:.2f} s against {before.cpu_per_utterance_s:.2f} s",
        everwarm.cpu_per_utterance_s < before.cpu_per_utterance_s,
    )


def _transcripts_are_equal(cached: WayResult, everwarm: WayResult) -> Claim:
    differ = sorted(
        name for name, heard in everwarm.transcripts.items() if heard != cached.transcripts.get(name)
    )
    return Claim(
        "equal transcripts",
        "Pods hear the same words as a model in the worker",
        f"differing clips: {', '.join(differ) or 'none'} of {len(everwarm.transcripts)}",
        not differ,
    )


def _transcripts_are_right(everwarm: WayResult) -> Claim:
    return Claim(
        "right transcripts",
        "The words are those that were spoken",
        f"word error rate {everwarm.word_error_rate:.1%} (at most {WORD_ERROR_LIMIT:.0%})",
        everwarm.word_error_rate <= WORD_ERROR_LIMIT,
    )
