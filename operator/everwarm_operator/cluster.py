"""The API server, as far as the operator asks it itself: six requests, each of which means the same however often it is sent.

Objects are applied on the server's side under one field manager, so foreign fields stay and ours are ours; statuses and
a pod's gate are patched by merge. Reading is kopf's part (`handlers`), whose watches fill `observed`; only what is not
watched is read here, by name.

The requests are made through `kubernetes.aio`'s transport (TLS, tokens that rotate, proxies), not through its typed
calls: those refuse fields that are newer than the client before anything is sent.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from aiohttp import ClientError
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from everwarm_core import telemetry
from everwarm_core.errors import PlatformError
from everwarm_core.spec import API_VERSION
from everwarm_core.telemetry import Attribute
from everwarm_operator.events import Event
from everwarm_operator.manifest import Manifest
from everwarm_operator.naming import FIELD_MANAGER
from everwarm_operator.observed import Json, format_time

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
REQUEST_TIMEOUT_S: Final = 20.0  # the server's own limit is 60; a slow one is better asked again

_PLURALS: Final = {
    "Deployment": "deployments",
    "Service": "services",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Secret": "secrets",
}
_VERSIONS: Final = {"Deployment": "apps/v1", "Secret": "v1"}  # of what is read


class Refused(Exception):
    """The API server answered *status* with *reason* (its word, such as NotFound) and *message*; 0 when it did not."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message

    @property
    def is_about_another(self) -> bool:
        """Whether what was meant does not exist any more: it is gone, or another one has its name.

        Of an object with another UID than the one meant, `pods/status` says that the UID is immutable.
        """
        return self.status in (404, 409) or (self.status == 422 and "metadata.uid" in self.message)

    @property
    def is_about_content(self) -> bool:
        """Whether the same request would be refused again, for what it says or for what stands there already."""
        return self.status in (400, 403, 409, 422)


class Cluster:
    """Writes to one API server, inside `async with`."""

    def __init__(self) -> None:
        self._writes = telemetry.counter(telemetry.API_WRITES)
        self._api: ApiClient | None = None

    async def __aenter__(self) -> Self:
        """Find the API server: `KUBECONFIG` or the pod's ServiceAccount. Raises PlatformError."""
        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # typed in part only
        except ConfigException:
            try:
                await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # typed in part only
            except ConfigException as error:
                raise PlatformError(
                    f"no cluster to operate on: {error}; set KUBECONFIG, or run in a pod with a ServiceAccount"
                ) from error
        self._api = ApiClient(configuration)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close the connections."""
        if self._api is not None:
            await self._api.close()  # type: ignore[no-untyped-call]  # typed in part only

    async def read(self, kind: str, namespace: str, name: str) -> Json | None:
        """The object of *kind*, a Deployment or a Secret; None when there is none."""
        return await self._get(_path(_VERSIONS[kind], kind, namespace, name))

    async def serves(self, api_version: str, plural: str) -> bool:
        """Whether there is a kind called *plural* in *api_version*, which has a group, for whoever looks for it.

        The list of groups is another part's of the API server, and may be later.
        """
        groups, found = await self._get("/apis"), await self._get(f"/apis/{api_version}")
        return (
            groups is not None
            and found is not None
            and any(
                version["groupVersion"] == api_version
                for each in groups["groups"]
                for version in each["versions"]
            )
            and any(kind["name"] == plural for kind in found["resources"])
        )

    async def apply(self, manifest: Manifest, *, force: bool) -> Json:
        """Make the object as *manifest* says; returns it as it is now.

        force: take back fields that others have set, in an object known to be ours. Without it, an object that is
        there although nobody has seen it (its labels are not ours) is refused as a conflict instead of taken over.
        """
        return await self._write(
            manifest.kind,
            "PATCH",
            _path(manifest.api_version, manifest.kind, manifest.namespace, manifest.name),
            manifest.body,
            content_type=APPLY,
            query={"fieldManager": FIELD_MANAGER, "force": str(force).lower()},
        )

    async def patch_status(self, namespace: str, name: str, status: Json) -> Json:
        """Make *status* the status of WhisperModel *name*, its lists replacing those that stand; returns the resource."""
        path = f"/apis/{API_VERSION}/namespaces/{quote(namespace)}/whispermodels/{quote(name)}/status"
        return await self._write("WhisperModel/status", "PATCH", path, {"status": status}, content_type=MERGE)

    async def patch_pod_condition(self, namespace: str, name: str, condition: Json, *, uid: str) -> Json:
        """Set one condition of pod *name*, if it still is the pod with *uid*; returns the pod.

        Other conditions are not touched.
        """
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}/status"
        body = {"metadata": {"uid": uid}, "status": {"conditions": [condition]}}
        return await self._write("Pod/status", "PATCH", path, body, content_type=STRATEGIC)

    async def create_event(self, namespace: str, event: Event, *, at: datetime) -> None:
        """Write *event* as having happened *at*, as `kubectl describe` shows it."""
        moment = format_time(at)
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{event.name[:200]}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1" if event.kind == "Pod" else API_VERSION,
                "kind": event.kind,
                "namespace": namespace,
                "name": event.name,
                "uid": event.uid,
            },
            "type": event.type.value,
            "reason": event.reason,
            "message": event.message,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        await self._write("Event", "POST", f"/api/v1/namespaces/{quote(namespace)}/events", body)

    async def _get(self, path: str) -> Json | None:
        try:
            return await self._ask("GET", path)
        except Refused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _write(
        self,
        written: str,
        method: str,
        path: str,
        body: Json,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        self._writes.add(1, {Attribute.WRITTEN: written})
        return await self._ask(method, path, body, content_type=content_type, query=query)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        assert self._api is not None, "used inside `async with`"
        method, url, headers, data, _ = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Content-Type": content_type, "Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(
                method, url, header_params=headers, body=data, _request_timeout=REQUEST_TIMEOUT_S
            )
            content = await response.read()  # type: ignore[no-untyped-call]  # typed in part only
        except ApiException as error:
            raise _refused(error.status, error.body) from error
        except (ClientError, TimeoutError, OSError) as error:
            raise Refused(0, "Unreachable", str(error) or type(error).__name__) from error
        if response.status >= 400:
            raise _refused(response.status, content)
        answer: Json = json.loads(content)
        return answer


def _path(api_version: str, kind: str, namespace: str, name: str) -> str:
    root = "apis" if "/" in api_version else "api"  # the core group has none
    return f"/{root}/{api_version}/namespaces/{quote(namespace)}/{_PLURALS[kind]}/{quote(name)}"


def _refused(status: int | None, body: str | bytes | None) -> Refused:
    try:
        told = json.loads(body or "{}")
    except ValueError:
        told = {}
    return Refused(
        status or 0, str(told.get("reason") or "Unknown"), str(told.get("message") or body or "no answer")
    )
