"""The local platform: what a cluster does for the STT pods, done for processes on one machine.

Inside `async with`, an embedded Valkey (or a given one) is the registry, each planned pod is a supervised process of
`everwarm_stt` configured by the same environment as in a container, and the gateway runs in this process. Pods find
their port themselves and tell it to the registry, which is also where the platform learns their state: it believes
what agents will see, not what it started. A pod keeps its id over restarts, as a container does inside its pod, so a
new life overwrites what the registry says of the last one.

Before `wait_until_warm` has returned once, a pod that keeps dying ends the platform with the reason it gave; after
that it is started again for ever, with growing waits. Leaving the block drains in order: gateway, pods (all at
once), Valkey. Used by `everwarm up` and `everwarm demo`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from everwarm.gateway import run_gateway
from everwarm.gateway.app import MetricsPage
from everwarm.platform.events import (
    GatewayStarted,
    PlatformEvent,
    PodChanged,
    PodExited,
    PodLogged,
    PodStarted,
    RegistryExited,
    RegistryStarted,
)
from everwarm.platform.logs import last_words, parse_line
from everwarm.platform.plan import PodPlan
from everwarm.platform.process import Exit, SupervisedProcess
from everwarm.platform.valkey import running_valkey
from everwarm.settings import GatewaySettings
from everwarm_core import pod_environment as variable
from everwarm_core.environment import PREFIX
from everwarm_core.errors import EverwarmError, PlatformError
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import PodRecord, PodState

START_DEATHS: Final = (
    3  # in a row before the platform was warm: a download may fail once, a wrong name fails for ever
)
POD_DRAIN_S: Final = 35.0  # the pod's own limit; it is killed a little later
_KILL_AFTER_S: Final = POD_DRAIN_S + 2.0

# Only this of our variables in the caller's environment is about the machine.
_INHERITED: Final = frozenset({"EVERWARM_CACHE_DIR"})


@dataclass(slots=True)
class _Pod:
    """A planned pod and what is known of it."""

    plan: PodPlan
    process: SupervisedProcess
    record: PodRecord | None = None
    dead_boot: str | None = None  # of the life that ended last: what the registry still says of it is past

    @property
    def is_warm(self) -> bool:
        """Whether its present life is warm for every key of its resource."""
        record, resource = self.record, self.plan.resource
        return (
            record is not None
            and record.boot != self.dead_boot
            and record.state is PodState.WARM
            and set(resource.spec.languages) <= set(record.languages)
            and set(resource.names) <= set(record.names)
        )


def _ignore(_: PlatformEvent) -> None:
    pass


@asynccontextmanager
async def running_platform(
    plans: tuple[PodPlan, ...],
    *,
    port: int = 8080,
    redis_url: str | None = None,
    namespace: str = "local",
    on_event: Callable[[PlatformEvent], None] = _ignore,
    metrics_page: MetricsPage | None = None,
) -> AsyncIterator["LocalPlatform"]:
    """The platform that runs *plans*, started and not yet warm inside the block, drained when it is left.

    port: the gateway's, on loopback; 0 takes a free one. redis_url: a registry to use instead of an embedded one.
    on_event is called from the event loop and must not block. metrics_page: what the gateway shows at /metrics. Raises PlatformError when a part cannot start,
    RegistryUnavailable when the given registry does not answer.
    """
    try:
        async with _registry(redis_url, on_event) as url, asyncio.TaskGroup() as group:
            platform = LocalPlatform(
                plans,
                port=port,
                redis_url=url,
                namespace=namespace,
                on_event=on_event,
                metrics_page=metrics_page,
            )
            platform.start(group)
            try:
                yield platform
            finally:
                await platform.drain()
    except BaseExceptionGroup as several:
        raise _first_of(several) from several


class LocalPlatform:
    """The parts and their state; made by `running_platform`."""

    def __init__(
        self,
        plans: tuple[PodPlan, ...],
        *,
        port: int,
        redis_url: str,
        namespace: str,
        on_event: Callable[[PlatformEvent], None],
        metrics_page: MetricsPage | None,
    ) -> None:
        self.redis_url = redis_url
        self.namespace = namespace
        self.url = ""
        """The gateway's base URL; empty until it listens."""
        self._port = port
        self._tell = on_event
        self._metrics_page = metrics_page
        self._pods = {pod_id: self._pod(pod_id, plan) for plan in plans for pod_id in (str(uuid4()),)}
        self._news = asyncio.Event()
        self._stop_gateway = asyncio.Event()
        self._failure: EverwarmError | None = None
        self._was_warm = False
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def pods(self) -> Mapping[str, str]:
        """The pods' names by the id they have in the registry."""
        return {pod_id: pod.plan.name for pod_id, pod in self._pods.items()}

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids of the pods that live now, by name."""
        return {pod.plan.name: pod.process.pid for pod in self._pods.values() if pod.process.pid is not None}

    @property
    def is_warm(self) -> bool:
        """Whether the gateway listens and every pod is warm for every key of its resource."""
        return bool(self.url) and all(pod.is_warm for pod in self._pods.values())

    async def wait_until_warm(self) -> None:
        """Return once `is_warm`; raises PlatformError when a pod keeps dying or the gateway cannot listen."""
        while not self.is_warm:
            await self._changed()
        self._was_warm = True

    async def wait_until_lost(self) -> None:
        """Return never; raises PlatformError when a part is lost that cannot be brought back."""
        while True:
            await self._changed()

    async def wait_for(self, condition: Callable[["LocalPlatform"], bool]) -> None:
        """Return once *condition* holds, looked at after each change; raises as `wait_until_warm` does."""
        while not condition(self):
            await self._changed()

    def record_of(self, pod_id: str) -> PodRecord | None:
        """What the registry says of a living pod; None before it registered, and between two lives."""
        pod = self._pods[pod_id]
        return None if pod.record is None or pod.record.boot == pod.dead_boot else pod.record

    def hasten(self) -> None:
        """Drain no longer: kill what is being drained."""
        for pod in self._pods.values():
            pod.process.hasten()
        if gateway := self._tasks.get("gateway"):
            gateway.cancel()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start all parts as tasks of *group*; called once, by `running_platform`."""
        for pod in self._pods.values():
            self._tasks[pod.plan.name] = group.create_task(pod.process.run(), name=pod.plan.name)
        self._tasks["gateway"] = group.create_task(self._serve(), name="gateway")
        self._tasks["watch"] = group.create_task(self._watch(), name="watch")

    async def drain(self) -> None:
        """Gateway first, so that nothing new comes; then all pods at once. Returns when they are gone."""
        self._stop_gateway.set()
        await asyncio.wait([self._tasks["gateway"]])
        for pod in self._pods.values():
            pod.process.stop(grace_s=_KILL_AFTER_S)
        if self._pods:
            await asyncio.wait([self._tasks[pod.plan.name] for pod in self._pods.values()])
        self._tasks["watch"].cancel()

    async def _changed(self) -> None:
        if self._failure:
            raise self._failure
        await self._news.wait()
        if self._failure:
            raise self._failure

    def _announce(self) -> None:
        """Wake everybody who waits for a change; later waits are for the next one."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _pod(self, pod_id: str, plan: PodPlan) -> _Pod:
        name = plan.name
        process = SupervisedProcess(
            (sys.executable, "-m", "everwarm_stt"),
            environment=environment_of(
                plan, pod_id=pod_id, redis_url=self.redis_url, namespace=self.namespace, inherited=os.environ
            ),
            on_start=lambda pid: self._tell(PodStarted(name, pid)),
            on_line=lambda line: self._tell(PodLogged(name, parse_line(line))),
            on_exit=lambda end: self._exited(pod_id, end),
        )
        return _Pod(plan, process)

    def _exited(self, pod_id: str, end: Exit) -> None:
        pod = self._pods[pod_id]
        if pod.record is not None:
            pod.dead_boot = pod.record.boot
        reason = "killed from outside" if end.was_killed else last_words(end.last_lines)
        self._tell(PodExited(pod.plan.name, end, reason))
        if not self._was_warm and end.deaths >= START_DEATHS and self._failure is None:
            self._failure = PlatformError(
                f"pod {pod.plan.name!r} died {end.deaths} times ({end.cause}) before it was warm: {reason}"
            )
        self._announce()

    async def _serve(self) -> None:
        """The gateway, until `drain`; that it cannot listen is for whoever waits."""
        settings = GatewaySettings(
            gateway_host="127.0.0.1",
            gateway_port=self._port,
            redis_url=self.redis_url,
            namespace=self.namespace,
            # This platform's pods alone are meant, whatever the environment says for others.
            base_url=None,
            token_file=None,
            api_key=None,
            fallback_urls=(),
        )
        try:
            await run_gateway(
                settings, ready=self._listening, stop=self._stop_gateway, metrics_page=self._metrics_page
            )
        except EverwarmError as error:
            self._failure = self._failure or error
            self._announce()

    def _listening(self, url: str) -> None:
        self.url = url
        self._tell(GatewayStarted(url))
        self._announce()

    async def _watch(self) -> None:
        """Follow the registry until cancelled; an outage is the supervisor's to end."""
        reader = RegistryReader(self.redis_url, self.namespace)
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.run(), name="registry")
            snapshot = None
            while True:
                snapshot = await reader.changed(snapshot)
                self._observe({lease.pod.id: lease.pod for lease in snapshot.leases})

    def _observe(self, records: Mapping[str, PodRecord]) -> None:
        for pod_id, pod in self._pods.items():
            record = records.get(pod_id)
            if record is None or record.boot == pod.dead_boot:
                continue
            before, pod.record = pod.record, record
            if before is None or (before.boot, before.state) != (record.boot, record.state):
                self._tell(PodChanged(pod.plan.name, record))
        self._announce()


def environment_of(
    plan: PodPlan, *, pod_id: str, redis_url: str, namespace: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a pod's process: what its resource says, what this place adds, and the caller's own.

    inherited: the caller's environment, of which `EVERWARM_*` stays behind.
    """
    place = {
        variable.NAMESPACE: namespace,
        variable.REDIS_URL: redis_url,
        variable.POD_ID: pod_id,
        variable.HOST: "127.0.0.1",
        variable.PORT: "0",
        variable.CPUS: f"{plan.cpus:g}",
        "PYTHONUNBUFFERED": "1",  # the last words of a pod that is killed are not lost in a buffer
    }
    return without_our_variables(inherited) | variable.pod_environment(plan.resource) | place


def without_our_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """*environment* without what speaks of another Everwarm: a cluster's Redis, its tokens, its namespace."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(PREFIX) or name in _INHERITED
    }


@asynccontextmanager
async def _registry(given_url: str | None, tell: Callable[[PlatformEvent], None]) -> AsyncIterator[str]:
    """The URL of the registry to use: the given one, else a server of our own that lives as long as the block."""
    if given_url is not None:
        async with RegistryReader(given_url, "local") as reader:
            await reader.read_all()  # a wrong URL is told now, not as pods that never become warm
        tell(RegistryStarted(given_url, is_embedded=False))
        yield given_url
        return
    async with running_valkey(
        on_line=lambda _: None, on_exit=lambda end: tell(RegistryExited(end))
    ) as server:
        tell(RegistryStarted(server.url, is_embedded=True))
        yield server.url


def _first_of(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to show for *several*: one of ours when there is one, else the first."""
    leaves = tuple(_leaves(several))
    return next((error for error in leaves if isinstance(error, EverwarmError)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
