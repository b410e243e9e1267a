"""`Router`: from (model, language, seconds of speech) to a pod that is warm for it now, and why that one.

It reads snapshots from a `PodSource`, picks locally, and is told by each attempt how it went; nothing is asked of any
server on the way. While no pod is warm for the name it holds the caller, until the caller's deadline. A name that no
pod has ever announced is refused at once, but only after the registry has really been read: neither a Redis that has
just come back empty nor an agent that has just started may turn a warm model into a 404.

`Client` and the gateway go through `everwarm.dispatch`, which adds the sending and the retries.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from statistics import median
from types import TracebackType
from typing import Final, Self

from everwarm.background import Background
from everwarm.deadline import Clock, Deadline
from everwarm.routing.line import Line
from everwarm.routing.loads import AUDIO_PRIOR_S, Loads, PodLoad
from everwarm.routing.pick import Reason, pick
from everwarm.sources import PodSource
from everwarm_core.errors import ModelNotFound, ModelNotWarm, RegistryUnavailable
from everwarm_core.keys import is_english_only
from everwarm_core.languages import AUTO
from everwarm_core.registry.records import ENTRY_TTL_S, HEARTBEAT_S, Lease, PodRecord, Snapshot

READ_ALL_EVERY_S: Final = 1.0  # however many callers ask for names nobody serves
WANT_EVERY_S: Final = 1.0  # per name
MAX_WANTED_NAMES: Final = 256  # noted per `WANT_EVERY_S`; callers may invent names without end
MAX_NAMES_SHOWN: Final = 20  # in an error message
EMPTY_GRACE_S: Final = (
    ENTRY_TTL_S + 2 * HEARTBEAT_S
)  # by then every live pod has told an empty Redis of itself again
KNOWN_FOR_S: Final = 600.0  # that long a name outlives its last pod before it is a 404 again; a guess
WARM_UP_PRIOR_S: Final = 5.0  # until a warm pod of the name has told what it took


@dataclass(frozen=True, slots=True)
class Wish:
    """What an utterance needs: *model* as the caller wrote it, a Whisper code, `auto` or None, its length."""

    model: str
    language: str | None = None
    audio_s: float = AUDIO_PRIOR_S


class Route:
    """One pod for one attempt, counted as load there until exactly one of the outcomes is told.

    Use as a context manager: leaving it without an outcome counts as `abandoned` (the caller gave up).
    """

    def __init__(self, router: "Router", pod: PodRecord, reason: Reason, candidates: int, wish: Wish) -> None:
        self.pod: Final = pod
        self.reason: Final = reason
        self.candidates: Final = candidates
        """Warm pods it was chosen from."""
        self.wish: Final = wish
        self.expected_s: Final = router.loads.expected_s(pod, wish.audio_s)
        """Seconds until an answer, waiting at the pod included, as far as can be known."""
        known = router.loads.of(pod)
        self.is_measured: Final = known is not None and known.rate is not None
        """Whether `expected_s` rests on answers of this very pod."""
        self._router = router
        self._load: PodLoad | None = router.loads.started(pod, wish.audio_s)
        self._is_overdue = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandoned()

    def overdue(self) -> None:
        """Its answer takes unusually long: until the outcome is told, the pod is left alone where there are others."""
        if self._load is not None and not self._is_overdue:
            self._is_overdue = True
            self._load.overdue += 1

    def succeeded(self, *, service_s: float, inflight: int | None = None, slots: int | None = None) -> None:
        """The pod answered; *service_s*: decode seconds; *inflight*, *slots*: from its answer's headers."""
        if load := self._settle():
            self._router.loads.succeeded(
                load, self.wish.audio_s, service_s=service_s, inflight=inflight, slots=slots
            )

    def refused(self, *, inflight: int | None = None, slots: int | None = None) -> None:
        """The pod is full."""
        if load := self._settle(is_free=False):
            self._router.loads.refused(load, self.wish.audio_s, inflight=inflight, slots=slots)

    def closed(self) -> None:
        """The pod is draining, or no longer warm."""
        if load := self._settle(is_free=False):
            self._router.loads.closed(load, self.wish.audio_s)

    def failed(self) -> None:
        """The pod died, hung, or answered something that is no answer."""
        if load := self._settle():
            self._router.loads.failed(load, self.wish.audio_s)

    def abandoned(self) -> None:
        """Nobody waits for the answer any more; nothing is held against the pod."""
        if load := self._settle():
            self._router.loads.abandoned(load, self.wish.audio_s)

    def _settle(self, *, is_free: bool = True) -> PodLoad | None:
        """is_free: whether the end of the request may have left a place. A refusal has not: if it woke somebody, those who
        wait for a full pod would ask it in a circle, each woken by the refusal of the one before.
        """
        load, self._load = self._load, None
        if load is not None and self._is_overdue:
            load.overdue -= 1
        if load is not None and is_free:
            self._router.line.wake(self.pod.names)
        return load


class Watch:
    """Stands among *watches* while it is entered; what to call when the process it is about is lost, or silent."""

    def __init__(
        self,
        watches: dict[str, set["Watch"]],
        boot: str,
        on_lost: Callable[[], None],
        on_silent: Callable[[], None] | None,
    ) -> None:
        self.on_lost: Final = on_lost
        self.on_silent: Final = on_silent
        self._watches, self._boot = watches, boot

    def __enter__(self) -> None:
        self._watches.setdefault(self._boot, set()).add(self)

    def __exit__(self, *_: object) -> None:
        watches = self._watches[self._boot]
        watches.discard(self)
        if not watches:
            del self._watches[self._boot]


class Router:
    """Chooses pods from the snapshots of *source*; runs it between `start` and `aclose`, or inside `async with`."""

    def __init__(
        self, source: PodSource, *, clock: Clock = time.monotonic, rng: Random | None = None
    ) -> None:
        self.loads: Final = Loads(clock)
        self.line: Final = Line()
        """Who waits for a place; woken when a request of ours has left its place somewhere, or the pods have changed."""
        self._source = source
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311 - balancing, not secrecy
        self._background = Background({"pods.source": source.run, "pods.watch": self._watch})
        self._watches: dict[str, set[Watch]] = {}
        self._known: dict[str, float] = {}
        self._whole: Snapshot | None = None
        self._reading_whole = asyncio.Lock()
        self._wanted_at: dict[str, float] = {}
        self._warm_ups: dict[str, float] = {}
        self._epoch = ""
        self._epoch_seen_at = clock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Begin to follow the pods; does nothing the second time."""
        await self._background.start()

    async def aclose(self) -> None:
        """Stop following the pods."""
        await self._background.aclose()

    @property
    def snapshot(self) -> Snapshot | None:
        """What is known of the pods; None until they were read once."""
        return self._source.snapshot

    async def changed(self, after: Snapshot | None) -> Snapshot:
        """The newest snapshot, as soon as it is another one than *after*; waits for ever while there is none."""
        return await self._source.changed(after)

    async def route(
        self,
        model: str,
        language: str | None = None,
        *,
        deadline: Deadline,
        audio_s: float = AUDIO_PRIOR_S,
        exclude: Collection[str] = (),
    ) -> Route:
        """A warm pod for *model*, held for until *deadline*.

        language: a Whisper code, `auto`, or None for the one the model is served in. audio_s: seconds of speech.
        exclude: `boot`s of the pods that were tried already. Raises ModelNotFound, ModelNotWarm, RegistryUnavailable.
        """
        wish = Wish(model, language, audio_s)
        while True:
            if route := self.choose(wish, exclude=exclude):
                return route
            if deadline.has_passed:
                raise self._nothing_came(model)
            seen = self._source.snapshot
            with suppress(TimeoutError):
                async with asyncio.timeout(min(deadline.remaining_s(), READ_ALL_EVERY_S)):
                    await self._expect(model)
                    if route := self.choose(wish, exclude=exclude):
                        return route
                    await self._source.changed(seen)

    def choose(self, wish: Wish, *, exclude: Collection[str] = ()) -> Route | None:
        """A warm pod for *wish* out of what is known now; None when there is none that is not in *exclude*."""
        snapshot = self._view(wish.model)
        if snapshot is None:
            return None
        for leases, is_other_language in _candidates(snapshot, wish):
            choice = pick(
                leases,
                self.loads,
                exclude=exclude,
                rng=self._rng,
                audio_s=wish.audio_s,
                now=self._clock(),
                keep_expired=snapshot.frozen,
            )
            if choice is not None:
                reason = Reason.OTHER_LANGUAGE if is_other_language else choice.reason
                return Route(self, choice.pod, reason, choice.candidates, wish)
        return None

    def has_other(self, route: Route) -> bool:
        """Whether a pod besides the one of *route* is warm for its name and not silent."""
        snapshot, now = self._view(route.wish.model), self._clock()
        return snapshot is not None and any(
            lease.pod.boot != route.pod.boot and not lease.is_silent(now)
            for lease in snapshot.by_name.get(route.wish.model, ())
        )

    def watching(
        self, pod: PodRecord, on_lost: Callable[[], None], on_silent: Callable[[], None] | None = None
    ) -> Watch:
        """Inside, *on_lost* is called once the registry, being reachable, no longer holds this process of *pod*, and
        *on_silent* each time it is seen without its heartbeats.
        """
        return Watch(self._watches, pod.boot, on_lost, on_silent)

    async def read_all(self) -> Snapshot:
        """Every pod of every name, at most a second old. Raises RegistryUnavailable."""
        async with self._reading_whole:
            if self._whole is None or self._clock() - self._whole.taken_at >= READ_ALL_EVERY_S:
                self._whole = await self._source.read_all()
                self._remember_warm_ups(self._whole, self._whole.names)
            return self._whole

    def _view(self, model: str) -> Snapshot | None:
        """The snapshot that knows *model*: the followed one, or a whole one just read because it was a new name."""
        snapshot, whole = self._source.snapshot, self._whole
        if snapshot is not None and snapshot.covers(model):
            if model in snapshot.names:
                self._source.follow(
                    model
                )  # of the names it follows, the source drops the one asked for longest ago
                self._known[model] = self._clock()
            return snapshot
        if whole is not None and self._clock() - whole.taken_at <= ENTRY_TTL_S:
            return whole
        return snapshot

    async def _expect(self, model: str) -> None:
        """Return while pods of *model* may still come; raise ModelNotFound once it is certain that none exist."""
        snapshot = self._source.snapshot
        if snapshot is None:
            return
        if model not in snapshot.names and not self._was_known(model):
            try:
                whole = await self.read_all()
            except RegistryUnavailable:
                return
            if model not in whole.names:
                await self._want(model)
                if self._may_be_coming_back(whole):
                    return
                raise ModelNotFound(model, known=tuple(sorted(whole.names))[:MAX_NAMES_SHOWN])
            self._known[model] = self._clock()
        self._source.follow(model)
        if not snapshot.by_name.get(model):
            await self._want(model)

    def _was_known(self, model: str) -> bool:
        """Whether a pod announced *model* not long ago: then it is scaled to zero or restarting, not a mistake."""
        return self._clock() - self._known.get(model, float("-inf")) < KNOWN_FOR_S

    def _may_be_coming_back(self, whole: Snapshot) -> bool:
        """Whether the registry is empty, but so newly seen that pods may not have told it of themselves yet."""
        if whole.epoch != self._epoch:
            self._epoch, self._epoch_seen_at = whole.epoch, self._clock()
        return not whole.leases and self._clock() - self._epoch_seen_at < EMPTY_GRACE_S

    async def _want(self, model: str) -> None:
        """Note in the registry that *model* is asked for; at most once a second, and for so many names."""
        now = self._clock()
        if now - self._wanted_at.get(model, float("-inf")) < WANT_EVERY_S:
            return
        if len(self._wanted_at) >= MAX_WANTED_NAMES:
            self._wanted_at = {name: at for name, at in self._wanted_at.items() if now - at < WANT_EVERY_S}
        if len(self._wanted_at) < MAX_WANTED_NAMES:
            self._wanted_at[model] = now
            await self._source.want(model)

    def _nothing_came(self, model: str) -> ModelNotWarm | RegistryUnavailable:
        snapshot = self._view(model)
        if snapshot is None:
            return RegistryUnavailable("it was not read once since the start, and no fallback URL answered")
        measured_s = warm_up_s(snapshot, model) or self._warm_ups.get(model)
        return ModelNotWarm(model, retry_after_s=measured_s or WARM_UP_PRIOR_S)

    async def _watch(self) -> None:
        """Take over every new snapshot, wake who waits for a pod, and tell who waits for one that is gone."""
        seen: Snapshot | None = None
        boots: frozenset[str] = frozenset()
        while True:
            last, seen = seen, await self._source.changed(seen)
            self.loads.observe(seen)
            before, boots = boots, frozenset(lease.pod.boot for lease in seen.leases)
            if last is not None and (gone := before - boots):
                left = [lease.pod for lease in last.leases if lease.pod.boot in gone]
                self._remember_warm_ups(last, {name for pod in left for name in pod.names})
            self._wake_for_places(seen, has_new_pods=bool(boots - before))
            if not seen.frozen:
                self._tell_silent(seen)
                if self._watches.keys() - boots:
                    await self._tell_lost(boots)

    def _remember_warm_ups(self, snapshot: Snapshot, names: Collection[str]) -> None:
        """Keep what the pods of *names* in *snapshot* have measured: of some, the last pod may be gone by now, or soon."""
        for name in names:
            if (measured_s := warm_up_s(snapshot, name)) is not None:
                self._warm_ups[name] = measured_s

    def _wake_for_places(self, snapshot: Snapshot, *, has_new_pods: bool) -> None:
        """Wake as many as there are places in *snapshot*; all of them when a new pod may hold what they want."""
        if self.line.is_empty:
            return
        if has_new_pods:
            self.line.wake_all()
            return
        for pod in (lease.pod for lease in snapshot.leases):
            places = pod.slots + pod.queue - self.loads.inflight(pod)
            self.line.wake(pod.names, max(0, places))

    def _tell_silent(self, snapshot: Snapshot) -> None:
        for lease in snapshot.leases:
            if lease.pod.boot in self._watches and lease.is_silent(snapshot.taken_at):
                for watch in tuple(self._watches[lease.pod.boot]):
                    if watch.on_silent is not None:
                        watch.on_silent()

    async def _tell_lost(self, boots: frozenset[str]) -> None:
        """Of the watched pods outside *boots*, tell those that are in the registry no more; draining ones still are."""
        with suppress(RegistryUnavailable):
            whole = await self.read_all()
            alive = boots | {lease.pod.boot for lease in whole.leases}
            for boot in self._watches.keys() - alive:
                for watch in tuple(self._watches.get(boot, ())):
                    watch.on_lost()


def warm_up_s(snapshot: Snapshot, name: str) -> float | None:
    """Seconds from a process's start until it is warm, the median of the pods of *name* that have measured it.

    None while none of them has. Pods of one name have the same weights, and mostly the same kind of node.
    """
    measured = [
        lease.pod.load_s + lease.pod.warm_s
        for lease in snapshot.leases
        if name in lease.pod.names and lease.pod.warm_s > 0
    ]
    return median(measured) if measured else None


def _candidates(snapshot: Snapshot, wish: Wish) -> Iterator[tuple[Sequence[Lease], bool]]:
    """Pods warm for the wish, then those warm for its name in whatever language, marked as such.

    Weights that know English only are warm for English, whether it was named, left open or to be detected.
    """
    named = snapshot.by_name.get(wish.model, ())
    if wish.language is None or not named:
        yield named, False
        return
    language = "en" if wish.language == AUTO and is_english_only(named[0].pod.model) else wish.language
    yield snapshot.by_key.get((wish.model, language), ()), False
    yield named, True
