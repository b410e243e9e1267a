"""Who calls, and what he may still take: `Caller`, one for each key of a gateway, and `Utterance`, one for each request.

Whoever serves a keyed request, by whatever protocol, does::

    caller = door.caller(authorization)             # raises Unauthorized
    with caller.utterance() as utterance:           # raises RateLimited; best before anything of the body is read
        utterance.costs(audio_s)                    # as soon as it is known, and again when it is known better
        ...                                         # an EverwarmError that leaves the block makes it free

or `caller.utterance(audio_s)`, where the audio is there already. `headers()` of either are those of the answer.

Seconds of audio are a bucket that holds a minute's worth and fills at an even rate. An utterance is let in while at
least a second is left in it, and then takes all that it is long, even into debt: its length is often known only when
its upload is over, and refusing it then would waste the upload. What is owed is waited for by the next ones, so that
over time no caller has more than his rate.

A request for an idle slot only, a look at speech that goes on, takes nothing from anybody: its seconds are not counted, and
its place is one of as many beside those of utterances.

All of it is this gateway's own. Gateways share nothing but Redis, which no utterance waits for; behind n of them a key
may have n times what its line says.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Protocol, Self

from everwarm.api_keys import UNLIMITED, Limits
from everwarm.deadline import Clock
from everwarm_core.errors import EverwarmError, RateLimited

LEAST_S: Final = 1.0  # left in the bucket lets an utterance in; less would let a debtor in again for crumbs
ROUNDING_S: Final = 1e-6  # floats: who comes back exactly when he was told is let in
PLACE_RETRY_S: Final = 1.0  # an utterance's usual length of life; nobody knows when a place comes free
MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """*left_s* seconds of audio at the moment *at*, of *per_minute* at most; below 0 they are owed."""

    per_minute: int
    left_s: float
    at: float

    @classmethod
    def full(cls, per_minute: int, *, now: float) -> Self:
        """One that nothing was taken from."""
        return cls(per_minute, float(per_minute), now)

    @property
    def rate(self) -> float:
        """Seconds of audio that come back in a second."""
        return self.per_minute / MINUTE_S

    def filled(self, now: float) -> Self:
        """The same at *now*; a moment before its own changes nothing."""
        passed_s = max(0.0, now - self.at)
        return replace(
            self,
            left_s=min(float(self.per_minute), self.left_s + passed_s * self.rate),
            at=max(now, self.at),
        )

    def taken(self, audio_s: float) -> Self:
        """With *audio_s* less; a negative number gives back, never beyond what fits."""
        return replace(self, left_s=min(float(self.per_minute), self.left_s - audio_s))

    def resized(self, per_minute: int) -> Self:
        """The same debt, or as much as fits, of another size."""
        return replace(self, per_minute=per_minute, left_s=min(float(per_minute), self.left_s))

    def wait_s(self) -> float:
        """Seconds until it lets an utterance in; 0.0 when it does now."""
        missing_s = LEAST_S - self.left_s
        return missing_s / self.rate if missing_s > ROUNDING_S else 0.0

    def until_full_s(self) -> float:
        """Seconds until it is full again, when nothing more is taken."""
        return (self.per_minute - self.left_s) / self.rate


class Limited(Protocol):
    """Whose limits an answer tells."""

    def headers(self) -> Mapping[str, str]:
        """`x-ratelimit-*`, as OpenAI names them; none for what is not limited."""


class Caller:
    """Whoever shows one key, and all requests that do. One event loop, no locks.

    name: the key's label, for logs; empty for a key without one and for everybody while no keys are configured.
    """

    def __init__(self, name: str = "", limits: Limits = UNLIMITED, *, clock: Clock = time.monotonic) -> None:
        self.name = name
        self.limits = limits
        self.held = 0
        """Utterances under way."""
        self.glances = 0
        """Requests under way that want an idle slot only."""
        self._clock = clock
        self._bucket: Bucket | None = None
        self.change(name, limits)

    def change(self, name: str, limits: Limits) -> None:
        """Go on under *name* and *limits*; what is under way stays, and what is owed stays owed."""
        self.name, self.limits = name, limits
        per_minute = limits.audio_s_per_minute
        bucket = self._filled()
        if per_minute is None:
            self._bucket = None
        elif bucket is None:
            self._bucket = Bucket.full(per_minute, now=self._clock())
        else:
            self._bucket = bucket.resized(per_minute)

    @property
    def is_metered(self) -> bool:
        """Whether seconds of audio are counted at all."""
        return self._bucket is not None

    def utterance(self, audio_s: float | None = None, *, is_glance: bool = False) -> "Utterance":
        """A place for one utterance of *audio_s* seconds, None while its length is not known; a context manager.

        is_glance: an idle slot is wanted or none. Entering it raises RateLimited, with the seconds after which another try
        makes sense.
        """
        return Utterance(self, audio_s, is_glance=is_glance)

    def headers(self) -> Mapping[str, str]:
        """See Limited; as things are while none of the caller's requests has an answer coming."""
        return self._headers(self.held)

    def _ensure_room(self, held: int) -> None:
        concurrent = self.limits.concurrent
        if concurrent is not None and held >= concurrent:
            noun = "utterance" if concurrent == 1 else "utterances"
            raise RateLimited(f"{concurrent} {noun} at a time", retry_after_s=PLACE_RETRY_S)
        bucket = self._filled()
        if bucket is not None and (wait_s := bucket.wait_s()) > 0:
            raise RateLimited(f"{bucket.per_minute} s of audio a minute", retry_after_s=wait_s)

    def _take(self, audio_s: float) -> None:
        if (bucket := self._filled()) is not None:
            self._bucket = bucket.taken(audio_s)

    def _filled(self) -> Bucket | None:
        return self._bucket.filled(self._clock()) if self._bucket is not None else None

    def _headers(self, held: int) -> Mapping[str, str]:
        headers = {}
        if (concurrent := self.limits.concurrent) is not None:
            headers["x-ratelimit-limit-requests"] = str(concurrent)
            headers["x-ratelimit-remaining-requests"] = str(max(0, concurrent - held))
        if (bucket := self._filled()) is not None:
            headers["x-ratelimit-limit-audio-seconds"] = str(bucket.per_minute)
            headers["x-ratelimit-remaining-audio-seconds"] = str(max(0, math.floor(bucket.left_s)))
            headers["x-ratelimit-reset-audio-seconds"] = f"{math.ceil(bucket.until_full_s())}s"
        return headers


class Utterance:
    """One place of *caller*, held while it is entered, and the seconds of audio that were taken for it."""

    def __init__(self, caller: Caller, audio_s: float | None, *, is_glance: bool) -> None:
        self.caller: Final = caller
        self._audio_s = audio_s
        self.is_glance: Final = is_glance
        self._taken_s = 0.0
        self._places = 0

    def __enter__(self) -> Self:
        if self.is_glance:
            self.caller._ensure_room(self.caller.glances)  # noqa: SLF001 - one thing in two classes
            self.caller.glances += 1
            return self
        self.caller._ensure_room(self.caller.held)  # noqa: SLF001
        self.caller.held += 1
        self._places = 1
        if self._audio_s is not None:
            self.costs(self._audio_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.is_glance:
            self.caller.glances -= 1
            return
        self.caller.held -= 1
        self._places = 0
        if isinstance(error, EverwarmError):
            self.costs(0.0)

    def costs(self, audio_s: float) -> None:
        """It is *audio_s* seconds long, all in all; what was taken before is set off. 0 where no transcript came of it."""
        if self.is_glance:
            return
        self.caller._take(audio_s - self._taken_s)  # noqa: SLF001
        self._taken_s = audio_s

    def headers(self) -> Mapping[str, str]:
        """See Limited; its own place counts as free, for whoever reads this has the answer."""
        return self.caller._headers(self.caller.held - self._places)  # noqa: SLF001
