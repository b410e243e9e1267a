"""kopf's part: it watches, we note what it saw and name the resource that may be concerned.

Index functions run before any handler, and handlers only once every kind was listed: so the store is whole before the
first reconcile, and after a restart nothing that exists is taken for missing. An index of kopf's own is not kept. Events
carry no state of ours in the objects: no finalizers, no annotations, nothing that a deleted operator would leave behind.

kopf finds out which kinds there are when it starts, and again at each event of a CRD. That is not to be relied upon for
our own: the API server tells that a CRD is established before it lists the kind, so the last event may come too early
and the kind is never watched; and a watch that ends before its first list leaves
kopf waiting for it for ever. So kopf starts once the kind is there, and the operator ends when it goes, for the kubelet
to start it again.

All of them are coroutines though none waits for anything: kopf calls plain functions in threads, and store and queue live
on the event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import kopf
import structlog

# What `kopf.operator` takes and raises; kopf has no public names for them.
from kopf._cogs.clients.errors import APINotFoundError
from kopf._cogs.structs.references import Insights

from everwarm_core.spec import API_VERSION
from everwarm_operator.cluster import Cluster, Refused
from everwarm_operator.controller import Controller
from everwarm_operator.naming import POD_LABELS
from everwarm_operator.store import Key

SILENT_STREAM_S: Final = (
    70.0  # a watch that was quiet for so long may be dead; the server's own are cut at 30 to 60 min
)
REQUEST_TIMEOUT_S: Final = 30.0  # of kopf's lists; its default is 300
IDLE_S: Final = 1.0  # kopf keeps a task for each object that has just changed
EXIT_S: Final = 0.5  # for handlers that run when it ends; ours do nothing that takes time
LOOK_S: Final = 1.0  # between two looks whether our kind is there
DELETED: Final = "DELETED"

log = structlog.stdlib.get_logger(__name__)

_GROUP, _VERSION = API_VERSION.split("/")
KIND: Final = kopf.Resource(_GROUP, _VERSION, "whispermodels", namespaced=True)
_OWNED: Final = (
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("policy", "v1", "poddisruptionbudgets"),
)


class _NoDifferences(kopf.DiffBaseStorage):
    """Says that nothing of an object is compared with what it was, which only handlers of changes would need.

    kopf's own copies every object of every event three times for it: a sixth of the operator's CPU time while a thousand
    resources come to be (py-spy, `bench operator_scale`).
    """

    def build(self, **_: object) -> kopf.BodyEssence:
        """Nothing."""
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> None:
        """Nothing was stored."""

    def store(self, **_: object) -> None:
        """Store nothing."""


def make_registry(controller: Controller, end: Callable[[], Awaitable[None]]) -> kopf.OperatorRegistry:
    """Everything that kopf is to watch for *controller*; *end* is awaited before kopf itself ends."""
    registry = kopf.OperatorRegistry()
    labels = dict(POD_LABELS)

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: object) -> None:
        settings.posting.enabled = False
        settings.watching.inactivity_timeout = SILENT_STREAM_S
        settings.networking.request_timeout = REQUEST_TIMEOUT_S
        settings.queueing.idle_timeout = IDLE_S
        settings.queueing.exit_timeout = EXIT_S
        settings.peering.standalone = True
        settings.persistence.diffbase_storage = _NoDifferences()

    @kopf.on.login(registry=registry)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.cleanup(registry=registry)
    async def ending(**_: object) -> None:
        await end()

    @kopf.index(_GROUP, _VERSION, "whispermodels", registry=registry)
    async def whispermodel_seen(body: kopf.Body, **_: object) -> None:
        controller.store.put_model(dict(body))

    @kopf.on.event(_GROUP, _VERSION, "whispermodels", registry=registry)
    async def whispermodel_changed(type: str | None, body: kopf.Body, **_: object) -> None:  # noqa: A002 - kopf's
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        if type == DELETED:
            controller.forget(key)
        else:
            controller.declared(key)

    @kopf.index("", "v1", "pods", labels=labels, registry=registry)
    async def pod_seen(body: kopf.Body, **_: object) -> None:
        controller.store.put_pod(dict(body))

    @kopf.on.event("", "v1", "pods", labels=labels, registry=registry)
    async def pod_changed(type: str | None, body: kopf.Body, **_: object) -> None:  # noqa: A002
        pod = dict(body)
        controller.changed(controller.store.drop_pod(pod) if type == DELETED else controller.store.owner(pod))

    for group, version, plural in _OWNED:
        _watch_owned(controller, registry, group, version, plural, labels)
    return registry


def _watch_owned(
    controller: Controller,
    registry: kopf.OperatorRegistry,
    group: str,
    version: str,
    plural: str,
    labels: Mapping[str, str],
) -> None:
    @kopf.index(group, version, plural, labels=dict(labels), id=f"{plural}_seen", registry=registry)
    async def seen(body: kopf.Body, **_: object) -> None:
        controller.store.put_object(dict(body))

    @kopf.on.event(group, version, plural, labels=dict(labels), id=f"{plural}_changed", registry=registry)
    async def changed(type: str | None, body: kopf.Body, **_: object) -> None:  # noqa: A002
        live = dict(body)
        controller.changed(
            controller.store.drop_object(live) if type == DELETED else controller.store.owner(live)
        )


async def watch(
    controller: Controller,
    cluster: Cluster,
    namespaces: tuple[str, ...],
    *,
    ready: asyncio.Event,
    stop: asyncio.Event,
    before_end: Callable[[], Awaitable[None]],
) -> bool:
    """Watch until told to stop, or until our kind, once there, is gone: then returns False.

    ready: set once every kind was listed. stop: tells to stop; kopf takes the signals over, and it is set in the end.
    before_end: ends whatever else runs on this loop. kopf waits 5 s for what it finds there still to end by itself, and
    would find its own waiter for *stop* too.
    """
    if not await _comes(cluster, stop):
        return True
    insights, gone = Insights(), asyncio.Event()

    async def end() -> None:
        await before_end()
        stop.set()

    async with asyncio.TaskGroup() as group:
        following = group.create_task(_follow_kind(insights, gone, stop), name="follow the kind")
        try:
            await kopf.operator(
                registry=make_registry(controller, end),
                namespaces=namespaces,
                clusterwide=not namespaces,
                standalone=True,
                insights=insights,
                ready_flag=ready,
                stop_flag=stop,
            )
        except APINotFoundError as error:  # the kind is gone, and its list told so first
            log.info("kind.not_found", reason=str(error))
            gone.set()
        following.cancel()
    return not gone.is_set()


async def _comes(cluster: Cluster, stop: asyncio.Event) -> bool:
    """Wait for our kind; False when told to stop first."""
    is_told = False
    while not stop.is_set():
        try:
            if await cluster.serves(API_VERSION, KIND.plural):
                return True
        except Refused as error:
            log.warning("kind.unknown", reason=str(error))
        else:
            if not is_told:
                log.warning(
                    "kind.awaited", kind=str(KIND), hint="install the CRD, as the chart does by default"
                )
            is_told = True
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
    return False


async def _follow_kind(insights: Insights, gone: asyncio.Event, stop: asyncio.Event) -> None:
    await insights.ready_resources.wait()
    async with insights.revised:
        await insights.revised.wait_for(lambda: KIND not in insights.watched_resources)
    gone.set()
    stop.set()
