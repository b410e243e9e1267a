"""What this agent knows of each pod beyond its registry record: its own requests there, and how they went.

The registry is up to a second old and counts requests; an agent knows at once what it has sent, in audio seconds.
Both are joined here: own requests are counted exactly, those of other agents are the last told total (an answer's
headers, else the record) minus our own. Kept by `Router`, read by `pick`; one event loop, so no locks.

A pod that fails is judged three ways: each failure in a row doubles its cost (a fast 503 must not look like a fast
pod), five in a row eject it for a time that doubles (Envoy's outlier detection), and a new process under the same id
starts with a clean record. One that owes an answer for unusually long gets nothing new meanwhile: it may hang, and
whatever is sent there would hang with it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from everwarm.deadline import Clock
from everwarm_core.registry.records import ENTRY_TTL_S, HEARTBEAT_S, PodRecord, Snapshot

FAILURES_TO_EJECT: Final = 5  # in a row
EJECTION_BASE_S: Final = (
    2.0  # dead pods leave the registry by themselves after 5 s; this is for the half-dead
)
EJECTION_MAX_S: Final = 60.0
FAILURES_COUNTED: Final = 6  # 2 ** 6 = 64 times the cost is as good as never

SMOOTHING: Final = 0.2  # weight of the newest sample; a guess: about ten utterances of memory
RATE_PRIOR: Final = 0.2  # decode seconds per audio second before anything is measured: tiny.en on one core
AUDIO_PRIOR_S: Final = 4.0  # length of an utterance nobody measured
SHORTEST_S: Final = 1.0  # shorter speech costs the same: the encoder's window has a floor


class Standing(Enum):
    """What an agent may ask of a pod."""

    IDLE = auto()
    """A slot of it is free."""
    BUSY = auto()
    """All its slots decode."""
    EJECTED = auto()
    """It failed so often in a row, or owes an answer for so long, that it should be left alone."""
    CLOSED = auto()
    """It said that it drains, which the registry may not show yet."""


@dataclass(slots=True, eq=False)
class PodLoad:
    """What is known of one process (*boot*) of a pod."""

    boot: str
    slots: int
    queue: int
    own: int = 0
    """Our requests there now."""
    own_audio_s: float = 0.0
    overdue: int = 0
    """Of our requests there, those whose answer is unusually late."""
    others: int = 0
    """Requests of other agents there, as last told."""
    told_at: float = float("-inf")
    """When an answer's headers last told."""
    rate: float | None = None
    """Smoothed decode seconds per audio second; None until measured."""
    failures: int = 0
    """In a row, up to now."""
    ejections: int = 0
    ejected_until: float = float("-inf")
    closed_until: float = float("-inf")
    """Said itself that it drains; asked again only if the registry still shows it by then."""

    @property
    def inflight(self) -> int:
        """Requests there now, waiting ones included, as far as can be known."""
        return self.own + self.others


class Loads:
    """`PodLoad`s by pod id, for the pods this agent has used."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._by_id: dict[str, PodLoad] = {}
        self._typical_rate = RATE_PRIOR
        self._typical_audio_s = AUDIO_PRIOR_S

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def of(self, pod: PodRecord) -> PodLoad | None:
        """What is known of *pod*; None while this agent has not used this process of it."""
        known = self._by_id.get(pod.id)
        return known if known is not None and known.boot == pod.boot else None

    def inflight(self, pod: PodRecord) -> int:
        """Requests at *pod* now: our own exactly, others' as last told."""
        known = self.of(pod)
        return pod.inflight if known is None else known.inflight

    def standing(self, pod: PodRecord, *, now: float) -> Standing:
        """What may be asked of *pod* at *now* (monotonic seconds), as far as is known."""
        known = self._by_id.get(pod.id)
        if known is None or known.boot != pod.boot:
            return Standing.IDLE if pod.inflight < pod.slots else Standing.BUSY
        if known.closed_until > now:
            return Standing.CLOSED
        if known.ejected_until > now or known.overdue:
            return Standing.EJECTED
        return Standing.IDLE if known.inflight < known.slots else Standing.BUSY

    def expected_s(self, pod: PodRecord, audio_s: float) -> float:
        """Seconds until *audio_s* more seconds of speech would be decoded at *pod*, waiting included."""
        known = self.of(pod)
        if known is None:
            ahead_s, rate = pod.inflight * self._typical_audio_s, self._typical_rate
        else:
            ahead_s = known.own_audio_s + known.others * self._typical_audio_s
            rate = self._typical_rate if known.rate is None else known.rate
        return (ahead_s / max(1, pod.slots) + _work(audio_s)) * rate

    def cost(self, pod: PodRecord, audio_s: float) -> float:
        """`expected_s`, doubled by each failure in a row."""
        known = self.of(pod)
        failures = 0 if known is None else min(known.failures, FAILURES_COUNTED)
        return self.expected_s(pod, audio_s) * 2.0**failures

    def observe(self, snapshot: Snapshot) -> None:
        """Take over what *snapshot* says of the pods used, and forget those that left."""
        records = {lease.pod.id: lease.pod for lease in snapshot.leases if lease.pod.id in self._by_id}
        for pod_id, known in list(self._by_id.items()):
            record = records.get(pod_id)
            if record is None or record.boot != known.boot:
                # Requests still on their way there hold their own PodLoad and settle it; nobody reads it again.
                if not snapshot.frozen:
                    del self._by_id[pod_id]
            elif snapshot.taken_at > known.told_at + HEARTBEAT_S:
                known.slots, known.queue = record.slots, record.queue
                known.others = max(0, record.inflight - known.own)

    def started(self, pod: PodRecord, audio_s: float) -> PodLoad:
        """Count a request of *audio_s* seconds that is about to be sent to *pod*; end it by one of the four below."""
        known = self.of(pod)
        if known is None:
            known = PodLoad(pod.boot, pod.slots, pod.queue, others=pod.inflight)
            self._by_id[pod.id] = known
        known.own += 1
        known.own_audio_s += _work(audio_s)
        return known

    def succeeded(
        self, load: PodLoad, audio_s: float, *, service_s: float, inflight: int | None, slots: int | None
    ) -> None:
        """It was answered after *service_s* seconds of decoding, with *inflight* requests left there, itself not."""
        self.abandoned(load, audio_s)
        load.failures = load.ejections = 0
        load.ejected_until = float("-inf")
        rate = service_s / _work(audio_s)
        load.rate = rate if load.rate is None else _smoothed(load.rate, rate)
        self._typical_rate = _smoothed(self._typical_rate, rate)
        self._typical_audio_s = _smoothed(self._typical_audio_s, _work(audio_s))
        if inflight is not None:
            self._told(load, inflight, slots)

    def refused(self, load: PodLoad, audio_s: float, *, inflight: int | None, slots: int | None) -> None:
        """The pod had no place for it: full, whatever was believed before."""
        self.abandoned(load, audio_s)
        self._told(load, load.slots + load.queue if inflight is None else inflight, slots)

    def closed(self, load: PodLoad, audio_s: float) -> None:
        """The pod is draining."""
        self.abandoned(load, audio_s)
        load.closed_until = self._clock() + ENTRY_TTL_S

    def failed(self, load: PodLoad, audio_s: float) -> None:
        """No answer, or none that is one."""
        self.abandoned(load, audio_s)
        load.failures += 1
        now = self._clock()
        if load.failures >= FAILURES_TO_EJECT and load.ejected_until <= now:
            load.ejected_until = now + min(EJECTION_MAX_S, EJECTION_BASE_S * 2.0**load.ejections)
            load.ejections += 1

    def abandoned(self, load: PodLoad, audio_s: float) -> None:
        """Nobody waits for it any more; says nothing about the pod."""
        load.own -= 1
        # Sums of floats leave dust behind; an empty pod must cost nothing.
        load.own_audio_s = max(0.0, load.own_audio_s - _work(audio_s)) if load.own else 0.0

    def _told(self, load: PodLoad, inflight: int, slots: int | None) -> None:
        load.told_at = self._clock()
        load.others = max(0, inflight - load.own)
        if slots is not None:
            load.slots = slots


def _work(audio_s: float) -> float:
    return max(SHORTEST_S, audio_s)


def _smoothed(old: float, new: float) -> float:
    return old + SMOOTHING * (new - old)
