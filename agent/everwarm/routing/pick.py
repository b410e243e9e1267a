"""Which of the warm pods gets this utterance: a known idle slot first, else the better of two random ones.

Pure: what is known of the pods, the random numbers and the time come in. Cost does not grow with the cluster: up to
16 candidates all are looked at, beyond that random ones until two are idle or 16 were seen, because a full scan of 5,000 costs more than the rest of
the request's path together, and one of 16 random pods is idle unless nearly all are busy (join-idle-queue; Mitzenmacher
for the power of two choices). Only when none of the sample may be used at all is everything scanned.

A pod in *exclude* is never returned. Ejected pods, and those whose heartbeats are missing, are left out while at least half of
those looked at are healthy; below that the ejections say more about us or the network than about the pods, and are ignored.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

from everwarm.routing.loads import Loads, Standing
from everwarm_core.registry.records import Lease, PodRecord

SAMPLE: Final = 16  # 85 % busy pods leave a chance of 93 % to see an idle one


class Reason(StrEnum):
    """Why a pod was chosen, as spans and logs record it."""

    IDLE_SLOT = "idle_slot"
    TWO_CHOICES = "two_choices"
    ONLY_CANDIDATE = "only_candidate"
    EJECTIONS_IGNORED = "ejections_ignored"
    OTHER_LANGUAGE = "other_language"


@dataclass(frozen=True, slots=True)
class Choice:
    """The pod chosen, out of how many *candidates*, and why."""

    pod: PodRecord
    reason: Reason
    candidates: int


def pick(
    candidates: Sequence[Lease],
    loads: Loads,
    *,
    exclude: Collection[str],
    rng: Random,
    audio_s: float,
    now: float,
    keep_expired: bool = False,
) -> Choice | None:
    """The pod for *audio_s* seconds of speech, or None when every candidate is out of the question.

    exclude: `boot`s of the processes tried already; now: monotonic seconds, as the leases'; keep_expired: the
    snapshot is frozen, so leases that lapsed since say nothing.
    """

    def look(leases: Iterable[Lease], *, enough_idle: int) -> _Seen:
        seen = _Seen([], [], [])
        known: set[str] = set()
        for lease in leases:
            pod = lease.pod
            if pod.boot in known or pod.boot in exclude or not (keep_expired or lease.expires_at > now):
                continue
            known.add(pod.boot)
            standing = loads.standing(pod, now=now)
            if standing is not Standing.CLOSED and not keep_expired and lease.is_silent(now):
                standing = Standing.EJECTED
            match standing:
                case Standing.IDLE:
                    seen.idle.append(pod)
                    if len(seen.idle) >= max(enough_idle, len(seen.ejected)):
                        break
                case Standing.BUSY:
                    seen.busy.append(pod)
                case Standing.EJECTED:
                    seen.ejected.append(pod)
        return seen

    count = len(candidates)
    if count <= SAMPLE:
        seen = look(candidates, enough_idle=count + 1)
    else:
        # Drawn with repetition, which costs a tenth of rng.sample; `known` removes the repeats.
        seen = look((candidates[int(rng.random() * count)] for _ in range(SAMPLE)), enough_idle=2)
        if not (seen.healthy or seen.ejected):
            seen = look(candidates, enough_idle=2)
    healthy = seen.healthy
    if not (healthy or seen.ejected):
        return None
    if len(healthy) < len(seen.ejected):
        pods = healthy + seen.ejected
        return Choice(_better_of_two(pods, loads, rng, audio_s), Reason.EJECTIONS_IGNORED, count)
    if len(healthy) == 1 and count <= SAMPLE:
        return Choice(healthy[0], Reason.ONLY_CANDIDATE, count)
    if seen.idle:
        return Choice(_better_of_two(seen.idle, loads, rng, audio_s), Reason.IDLE_SLOT, count)
    return Choice(_better_of_two(healthy, loads, rng, audio_s), Reason.TWO_CHOICES, count)


class _Seen(NamedTuple):
    """The usable pods among those looked at, by their standing."""

    idle: list[PodRecord]
    busy: list[PodRecord]
    ejected: list[PodRecord]

    @property
    def healthy(self) -> list[PodRecord]:
        return self.idle + self.busy


def _better_of_two(pods: Sequence[PodRecord], loads: Loads, rng: Random, audio_s: float) -> PodRecord:
    """The cheaper of two different random pods; always taking the cheapest would make all agents run to it at once."""
    count = len(pods)
    first = int(rng.random() * count)
    if count == 1:
        return pods[first]
    second = (first + 1 + int(rng.random() * (count - 1))) % count
    one, other = pods[first], pods[second]
    return one if loads.cost(one, audio_s) <= loads.cost(other, audio_s) else other
