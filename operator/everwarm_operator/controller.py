"""The loop between what is declared and what is: takes a resource from the queue, looks at everything known of it, and
writes what the pure `reconcile` says is missing.

Whoever hears something only names the resource: kopf's watches (`handlers`), the registry (`registries`), the periodic
resync. Workers take one resource each, so there is one writer for it at a time; a write that fails leaves the rest for
the next try, which looks at everything anew. The answers to our writes go into the store at once, for the watch tells
of them a moment later, and a second look in between must not write again.

Every reconcile is a trace of its own, linked to the trace of whoever applied the resource, if it says so in its
`traceparent` annotation; that annotation is never written by us.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Final

import structlog
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, Span

from everwarm_core import telemetry
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_operator.cluster import Cluster, Refused
from everwarm_operator.desired import Platform
from everwarm_operator.events import Memory
from everwarm_operator.gate import GatePatch
from everwarm_operator.platform_secrets import PlatformSecrets
from everwarm_operator.reconcile import Instant, Observed, Outcome, Rival, reconcile, reject
from everwarm_operator.registries import Clock, Registries
from everwarm_operator.store import Declared, Key, Store
from everwarm_operator.work_queue import WorkQueue

TRACE_ANNOTATION: Final = "traceparent"

log = structlog.stdlib.get_logger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Controller:
    """Reconciles what is in *store*; runs inside `run`.

    secrets: what pods need to find in their namespace; redis_url: the registry's; clock: monotonic seconds; wall: aware datetimes.
    """

    def __init__(
        self,
        cluster: Cluster,
        platform: Platform,
        secrets: PlatformSecrets | None = None,
        *,
        redis_url: str,
        workers: int,
        resync_s: float,
        clock: Clock = time.monotonic,
        wall: Callable[[], datetime] = _now,
    ) -> None:
        self.store: Final = Store()
        self.queue: Final = WorkQueue[Key]()
        self._cluster = cluster
        self._platform = platform
        self._secrets = secrets
        self._workers = workers
        self._resync_s = resync_s
        self._clock = clock
        self._wall = wall
        self._registries = Registries(redis_url, self._heard_of_pods, clock=clock)
        self._memories: dict[Key, Memory] = {}
        self._duration = telemetry.histogram(telemetry.RECONCILE_DURATION)
        self._errors = telemetry.counter(telemetry.RECONCILE_ERRORS)
        self._warm_duration = telemetry.histogram(telemetry.POD_WARM_DURATION)
        telemetry.gauge(telemetry.WARM_PODS, self._warm_pods)
        telemetry.gauge(telemetry.DESIRED_PODS, self._desired_pods)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registries.run(), name="registries")
            group.create_task(self._resync(), name="resync")
            for number in range(self._workers):
                group.create_task(self._work(), name=f"worker {number}")

    def forget(self, key: Key) -> None:
        """The resource *key* is gone; its objects go by their owner references, its rivals may have its names."""
        rivals = self.store.rival_keys(key)
        self.store.drop_model(key)
        self.queue.forget(key)
        self._memories.pop(key, None)
        for rival in rivals:
            self.queue.add(rival)
        if self._secrets is not None:
            self._secrets.doubt(key.namespace)
            self.changed(next((other for other in self.store if other.namespace == key.namespace), None))
        self._registries.keep({known.namespace for known in self.store})

    def changed(self, key: Key | None) -> None:
        """Something about *key* may have changed."""
        if key is not None:
            self.queue.add(key)

    def declared(self, key: Key) -> None:
        """The resource *key* was declared, or declared anew: its rivals' names may be free, or taken, now."""
        self.queue.add(key)
        for rival in self.store.rival_keys(key):
            self.queue.add(rival)

    def _heard_of_pods(self, namespace: str, uids: Collection[str] | None) -> None:
        if uids is None:
            for key in self.store:
                if key.namespace == namespace:
                    self.queue.add(key)
            return
        for uid in uids:
            self.changed(self.store.owner_of_pod(uid))

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._resync_s)
            for key in self.store:
                self.queue.add(key)

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            with structlog.contextvars.bound_contextvars(namespace=key.namespace, name=key.name):
                try:
                    recheck_s = await self._reconcile(key)
                except Exception as error:  # the edge: the resource is tried again, whatever it was
                    self._errors.add(1, {Attribute.ERROR: type(error).__name__})
                    delay_s = self.queue.failed(key)
                    if isinstance(error, Refused):
                        log.warning("reconcile.refused", reason=str(error), again_s=delay_s)
                    else:
                        log.exception("reconcile.failed", again_s=delay_s)
                else:
                    self.queue.done(key)
                    if recheck_s is not None:
                        self.queue.add_later(key, recheck_s)

    async def _reconcile(self, key: Key) -> float | None:
        """One look at *key* and what follows from it; returns when to look again though nothing moves."""
        declared = self.store.model(key)
        if declared is None or declared.is_deleting:
            self._memories.pop(key, None)
            return None
        began = self._clock()
        with telemetry.span(
            SpanName.RECONCILE, attributes=_told_of(key), links=tuple(_links(declared))
        ) as span:
            outcome = self._decide(key, declared)
            _describe(span, outcome)
            try:
                await self._apply(key, outcome)
            except Refused as error:
                if error.is_about_content:
                    await self._report(key, self._decide(key, declared, refusal=error.message))
                raise
            await self._open_gates(key, outcome, span)
            await self._report(key, outcome)
        self._memories[key] = outcome.memory
        self._duration.record(self._clock() - began)
        return outcome.recheck_after_s

    def _decide(self, key: Key, declared: Declared, *, refusal: str | None = None) -> Outcome:
        now = Instant(self._wall(), self._clock())
        observed = Observed(
            resource=declared.observed,
            objects=self.store.objects(key),
            pods=self.store.pods(key),
            rivals=tuple(
                Rival(rival.model, rival.observed)
                for rival in self.store.rivals(key)
                if rival.model is not None
            ),
            refusal=refusal,
            memory=self._memories.get(key, Memory()),
        )
        registry = self._registries.of(key.namespace)
        if declared.model is None:
            assert declared.error is not None
            return reject(declared.error, observed, registry, now)
        return reconcile(declared.model, observed, self._platform, registry, now)

    async def _apply(self, key: Key, outcome: Outcome) -> None:
        if self._secrets is not None:
            await self._secrets.provide(key.namespace, lambda: self.store.uids(key.namespace))
        known = self.store.objects(key)
        for manifest in outcome.apply:
            self.store.put_object(await self._cluster.apply(manifest, force=manifest.key in known))

    async def _open_gates(self, key: Key, outcome: Outcome, span: Span) -> None:
        """Write the gates; *span* links to the start of each pod that is let in, which is another trace."""
        leases = self._registries.of(key.namespace).leases if outcome.gates else {}
        for patch in outcome.gates:
            try:
                pod = await self._cluster.patch_pod_condition(
                    key.namespace, patch.pod_name, patch.condition, uid=patch.pod_uid
                )
            except Refused as error:
                if not error.is_about_another:
                    raise
                log.info("gate.obsolete", pod=patch.pod_name, reason=error.reason)
            else:
                self.store.put_pod(pod)
                self._note_warm(key, patch)
                lease = leases.get(patch.pod_uid)
                if patch.verdict.is_open and lease and (start := telemetry.linked(lease.pod.traceparent)):
                    span.add_link(start)

    async def _report(self, key: Key, outcome: Outcome) -> None:
        if outcome.status is not None:
            try:
                self.store.put_model(
                    await self._cluster.patch_status(key.namespace, key.name, outcome.status)
                )
            except Refused as error:
                if not error.is_about_another:
                    raise
                return  # it was deleted meanwhile; its watch tells so
        for event in outcome.events:
            await self._cluster.create_event(key.namespace, event, at=self._wall())

    def _note_warm(self, key: Key, patch: GatePatch) -> None:
        """How long a pod took from its creation to its first opened gate."""
        pod = self.store.pod(patch.pod_uid)
        is_first = pod is not None and pod.restart_count == 0
        if patch.verdict.is_open and is_first and pod is not None and pod.created_at is not None:
            took_s = (self._wall() - pod.created_at).total_seconds()
            self._warm_duration.record(took_s, {Attribute.RESOURCE.value: f"{key.namespace}/{key.name}"})

    def _warm_pods(self, _: CallbackOptions) -> Iterator[Observation]:
        for key in self.store:
            warm = sum(pod.gate is not None and pod.gate.is_open for pod in self.store.pods(key))
            yield Observation(warm, _told_of(key))

    def _desired_pods(self, _: CallbackOptions) -> Iterator[Observation]:
        for key in self.store:
            declared = self.store.model(key)
            if declared is not None and declared.model is not None:
                yield Observation(declared.model.spec.replicas, _told_of(key))


def _told_of(key: Key) -> dict[str, str]:
    return {Attribute.RESOURCE.value: f"{key.namespace}/{key.name}"}


def _links(declared: Declared) -> Iterator[Link]:
    """The trace of whoever applied the resource."""
    given = (declared.body["metadata"].get("annotations") or {}).get(TRACE_ANNOTATION)
    if context := telemetry.linked(given or ""):
        yield Link(context)


def _describe(span: Span, outcome: Outcome) -> None:
    span.set_attributes(
        {
            Attribute.APPLIED: [f"{manifest.kind}/{manifest.name}" for manifest in outcome.apply],
            Attribute.GATES: [f"{patch.pod_name}: {patch.verdict.reason}" for patch in outcome.gates],
            Attribute.STATUS_CHANGED: outcome.status is not None,
            Attribute.EVENTS: len(outcome.events),
        }
    )
