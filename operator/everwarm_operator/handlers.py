"""kopf's part: it watches, we note what it saw and name the resource that may be concerned.

Index functions run before any handler, and handlers only once every kind was listed: so the store is whole before the
first reconcile, and after a restart nothing that exists is taken for missing. An index of kopf's own is not kept. Events
carry no state of ours in the objects: no finalizers, no annotations, nothing that a deleted operator would leave behind.

All of them are coroutines though none waits for anything: kopf calls plain functions in threads, and store and queue live
on the event loop.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import kopf

from everwarm_core.spec import API_VERSION
from everwarm_operator.controller import Controller
from everwarm_operator.naming import POD_LABELS
from everwarm_operator.store import Key

SILENT_STREAM_S: Final = (
    70.0  # a watch that was quiet for so long may be dead; the server's own are cut at 30 to 60 min
)
REQUEST_TIMEOUT_S: Final = 30.0  # of kopf's lists; its default is 300
IDLE_S: Final = 1.0  # kopf keeps a task for each object that has just changed
EXIT_S: Final = 0.5  # for handlers that run when it ends; ours do nothing that takes time
DELETED: Final = "DELETED"

_GROUP, _VERSION = API_VERSION.split("/")
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


def make_registry(controller: Controller) -> kopf.OperatorRegistry:
    """Everything that kopf is to watch for *controller*."""
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
    controller: Controller, namespaces: tuple[str, ...], *, ready: asyncio.Event, stop: asyncio.Event
) -> None:
    """Watch until *stop* is set; *ready* is set once every kind was listed."""
    await kopf.operator(
        registry=make_registry(controller),
        namespaces=namespaces,
        clusterwide=not namespaces,
        standalone=True,
        ready_flag=ready,
        stop_flag=stop,
    )
