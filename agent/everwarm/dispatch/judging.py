"""What an answer means, and how long one may take: pure decisions, and every constant they rest on."""

import math
from enum import Enum, auto
from typing import Final

from everwarm.routing.router import Wish
from everwarm_core.errors import (
    CapacityError,
    EverwarmError,
    ModelNotFound,
    ModelNotWarm,
    PodDraining,
    Unauthorized,
)

HANG_FLOOR_S: Final = 8.0  # generous: a wrongly given-up decode is work done twice
HANG_UNKNOWN_S: Final = 20.0  # nothing measured yet on that pod
HANG_FACTOR: Final = 6.0  # times the expected seconds
DEADLINE_SHARE: Final = 0.6  # of what remains, so that time is left for another pod
HEDGE_FLOOR_S: Final = 1.0  # a garbage collection, a burst or a cold cache take less
HEDGE_FACTOR: Final = 3.0  # times the expected seconds; one in a hundred decodes takes that long
RECORDING_S: Final = 30.0
"""Longer audio is a recording: it gets its own length on top of the deadline, and only that and the registry cut it off, for
its time is hard to foresee."""


class Verdict(Enum):
    """What an answer means for the attempt."""

    ANSWER = auto()
    REFUSED = auto()
    """Full: ask another, this one again later."""
    CLOSED = auto()
    """Not a pod for this utterance any more: ask another."""
    FAILED = auto()


def judge(status: int, error: EverwarmError | None) -> Verdict:
    """What an answer with *status*, read back as *error* unless it is 2xx, means for the attempt."""
    match error:
        case None:
            return Verdict.ANSWER
        case PodDraining() | ModelNotWarm() | ModelNotFound():
            # A 404 from a pod the registry names: its address belongs to another pod by now.
            return Verdict.CLOSED
        case CapacityError():
            return Verdict.REFUSED
        case Unauthorized():
            # Our token, not the caller's: while it is rotated one pod may know it and another not yet.
            return Verdict.FAILED
    return Verdict.FAILED if status >= 500 else Verdict.ANSWER


def hang_bound_s(wish: Wish, expected_s: float, *, is_measured: bool, remaining_s: float) -> float:
    """Seconds after which an answer is no longer waited for, counted from the end of the body.

    expected_s: seconds foreseen, waiting included; remaining_s: what the caller has left.
    """
    if wish.audio_s > RECORDING_S:
        return remaining_s
    patience_s = max(HANG_FLOOR_S if is_measured else HANG_UNKNOWN_S, HANG_FACTOR * expected_s)
    return min(patience_s, max(DEADLINE_SHARE * remaining_s, 2 * expected_s), remaining_s)


def slow_after_s(wish: Wish, expected_s: float) -> float:
    """Seconds from the end of the body after which an answer is unusually late; never for a recording."""
    return math.inf if wish.audio_s > RECORDING_S else max(HEDGE_FLOOR_S, HEDGE_FACTOR * expected_s)


def hedge_after_s(wish: Wish, expected_s: float, *, is_measured: bool) -> float | None:
    """Seconds from the end of the body after which a second pod is asked too; None when none is.

    Without a measurement nobody knows what is slow, and of a recording twice the work would be too much.
    """
    after_s = slow_after_s(wish, expected_s)
    return after_s if is_measured and after_s < math.inf else None
