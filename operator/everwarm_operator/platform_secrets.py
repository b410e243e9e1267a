"""Sees to it that the installation's Secret is there, and a copy of what pods need in every other namespace with pods.

Made by the operator and not by Helm: a chart rendered without a cluster (GitOps) would make another token each time.
It belongs to the operator's Deployment, so it is kept over upgrades and goes with the release; a copy belongs to the
WhisperModels beside it and goes with the last of them. Secrets are not watched, which would take the right to read all
of them: the ones we know by name are read again once in a while, and a lost one is written again as it was.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from everwarm_core.errors import PlatformError
from everwarm_operator.cluster import Cluster
from everwarm_operator.desired.platform import Home
from everwarm_operator.desired.platform_secret import (
    BundledValkey,
    ExternalRedis,
    completed,
    copy_owners,
    data_of,
    for_pods,
    is_current,
    missing_keys,
    secret,
)
from everwarm_operator.registries import Clock

SECRET_BYTES: Final = 32  # of randomness in a token or password: 256 bits, which no digest gives away

log = structlog.stdlib.get_logger(__name__)


class PlatformSecrets:
    """The Secret and its copies; *refresh_s* is how often what is there is looked at again."""

    def __init__(
        self,
        cluster: Cluster,
        home: Home,
        registry: BundledValkey | ExternalRedis,
        *,
        refresh_s: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._home = home
        self._registry = registry
        self._refresh_s = refresh_s
        self._clock = clock
        self._data: dict[str, str] = {}
        self._read_at = float("-inf")
        self._provided: dict[str, float] = {}
        self._turn = asyncio.Lock()

    async def ensure(self) -> Mapping[str, str]:
        """The Secret's data, made or completed where that is ours to do. Raises PlatformError, Refused."""
        home = self._home
        live = await self._cluster.read("Secret", home.namespace, home.secret_name)
        held = data_of(live) if live else self._data
        if not home.is_managed:
            self._check(found=live is not None, held=held)
            wanted = held
        else:
            wanted = completed(held, self._registry, make_secret=_random_word)
            if live is None or wanted != held:
                owners = [await self._deployment_reference(home.deployment)] if home.deployment else []
                await self._cluster.apply(
                    secret(home.namespace, home.secret_name, wanted, owners=owners), force=True
                )
                log.info("platform_secret.written", namespace=home.namespace, name=home.secret_name)
        if wanted != self._data:
            self._provided.clear()
        self._data, self._read_at = wanted, self._clock()
        return wanted

    async def provide(self, namespace: str, resources: Callable[[], Mapping[str, str]]) -> None:
        """Have pods find the Secret in *namespace*; *resources* gives its WhisperModels, name by UID. Raises as `ensure`."""
        async with self._turn:
            if self._clock() - self._read_at >= self._refresh_s:
                await self.ensure()
            provided_at = self._provided.get(namespace, float("-inf"))
            if namespace == self._home.namespace or self._clock() - provided_at < self._refresh_s:
                return
            data, name = for_pods(self._data), self._home.secret_name
            live = await self._cluster.read("Secret", namespace, name)
            owners = resources()
            if live is None or not is_current(live, data, list(owners)):
                copy = secret(namespace, name, data, owners=copy_owners(owners))
                await self._cluster.apply(copy, force=True)
                log.info("platform_secret.copied", namespace=namespace, name=name)
            self._provided[namespace] = self._clock()

    def doubt(self, namespace: str) -> None:
        """A resource of *namespace* is gone, and the copy may go with it: look again when it is next needed."""
        self._provided.pop(namespace, None)

    def _check(self, *, found: bool, held: Mapping[str, str]) -> None:
        where = f"Secret {self._home.secret_name!r} in namespace {self._home.namespace!r}"
        if not found:
            raise PlatformError(
                f"{where} does not exist; create it, or let the operator make one of its own (leave out existingSecret)"
            )
        if missing := missing_keys(held, self._registry):
            raise PlatformError(f"{where} lacks {', '.join(missing)}; add what is missing")

    async def _deployment_reference(self, name: str) -> dict[str, str]:
        live = await self._cluster.read("Deployment", self._home.namespace, name)
        if live is None:
            raise PlatformError(
                f"Deployment {name!r} in namespace {self._home.namespace!r}, which the platform's Secret is to belong"
                " to, does not exist; set EVERWARM_OPERATOR_NAME to the operator's own"
            )
        return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": live["metadata"]["uid"]}


def _random_word() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)
