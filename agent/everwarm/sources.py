"""Where a router learns which pods exist: the registry, a static list of URLs, or the list until the registry answers.

All three hand out the same frozen snapshots, so the router does not know which one it stands on. None of them raises
while running: a source that cannot be reached keeps its last snapshot, and live answers judge the pods.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Final, Protocol

import aiohttp

from everwarm.credentials import SecretFile
from everwarm.deadline import Clock
from everwarm.settings import AgentSettings
from everwarm_core.errors import InvalidParameter, RegistryUnavailable
from everwarm_core.http.headers import POD_HEADER
from everwarm_core.logs import library_logger
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import Lease, PodRecord, PodState, Snapshot

ASK_EVERY_S: Final = 2.0  # a static list is a makeshift; its pods are judged by answers in between
ASK_TIMEOUT_S: Final = 2.0
MAX_ANSWER_BYTES: Final = 1 << 20  # of /v1/models
UNKNOWN_QUEUE: Final = 4  # the spec's default; a static pod does not say

log = library_logger(__name__)


class PodSource(Protocol):
    """Snapshots of the pods, kept fresh while `run` runs; `RegistryReader` is one as it stands."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; None until the pods were really read once."""

    async def run(self) -> None:
        """Keep `snapshot` fresh until cancelled."""

    async def changed(self, after: Snapshot | None) -> Snapshot:
        """The newest snapshot as soon as it is another one than *after*."""

    def follow(self, name: str) -> None:
        """From the next snapshot on, include the pods that serve *name*."""

    async def read_all(self) -> Snapshot:
        """Every pod of every name, read now. Raises RegistryUnavailable."""

    async def want(self, name: str) -> None:
        """Leave a note that somebody asks for *name*, which nobody holds; lost silently when that cannot be told."""


class StaticSource:
    """Pods at *urls*, asked for their models and readiness every two seconds.

    A URL may be a Service with several pods behind it: it counts as one pod then, and connections spread the load.
    """

    def __init__(
        self, urls: Sequence[str], *, token: SecretFile | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._urls = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
        self._token = token
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._news = asyncio.Condition()

    @property
    def snapshot(self) -> Snapshot | None:
        """See PodSource; the first one is there when some URL has answered and none can answer any more."""
        return self._snapshot

    async def run(self) -> None:
        """Ask every URL, again and again."""
        rng = Random()  # noqa: S311 - jitter
        async with _asking_session() as session:
            while True:
                with suppress(RegistryUnavailable):
                    await self._ask_all(session)
                await asyncio.sleep(ASK_EVERY_S * rng.uniform(0.8, 1.2))

    async def changed(self, after: Snapshot | None) -> Snapshot:
        """See PodSource."""
        async with self._news:
            await self._news.wait_for(lambda: self._snapshot is not None and self._snapshot is not after)
        assert self._snapshot is not None
        return self._snapshot

    def follow(self, name: str) -> None:
        """Every name is followed anyway."""

    async def read_all(self) -> Snapshot:
        """See PodSource."""
        async with _asking_session() as session:
            return await self._ask_all(session)

    async def want(self, name: str) -> None:
        """Nobody reads notes here."""

    async def _ask_all(self, session: aiohttp.ClientSession) -> Snapshot:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(session, url)) for url in self._urls]
        now = self._clock()
        leases = tuple(
            Lease(pod, expires_at=now + 2 * ASK_EVERY_S + ASK_TIMEOUT_S)
            for pod in (task.result() for task in asked)
            if pod
        )
        if leases:
            snapshot = Snapshot(taken_at=now, epoch="static", leases=leases)
        elif self._snapshot is not None:
            snapshot = replace(self._snapshot, frozen=True)  # rather the network than all of them at once
        else:
            raise RegistryUnavailable("no fallback URL answers")
        async with self._news:
            self._snapshot = snapshot
            self._news.notify_all()
        return snapshot

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> PodRecord | None:
        """What the pod at *url* says of itself; None when it does not, or says nonsense."""
        headers = {}
        try:
            if self._token and (token := self._token.first()):
                headers["Authorization"] = f"Bearer {token}"
            async with session.get(f"{url}/readyz", headers=headers) as answer:
                is_ready = answer.status == 200
            async with session.get(f"{url}/v1/models", headers=headers) as answer:
                if answer.status != 200:
                    return None
                body = await answer.content.read(MAX_ANSWER_BYTES)
                return _record(url, body, answer.headers, is_ready=is_ready)
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.debug("pod.unreachable", url=url, error=str(error))
            return None


class FallbackSource:
    """The *registry*'s snapshots once it has any; those of the *fallback* until then."""

    def __init__(self, registry: PodSource, fallback: PodSource) -> None:
        self._registry = registry
        self._fallback = fallback

    @property
    def snapshot(self) -> Snapshot | None:
        """See PodSource."""
        return self._registry.snapshot or self._fallback.snapshot

    async def run(self) -> None:
        """Run the registry, and the fallback for as long as the registry was never read."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registry.run())
            makeshift = group.create_task(self._fallback.run())
            await self._registry.changed(None)
            log.info("registry.reached", instead_of="fallback")
            makeshift.cancel()

    async def changed(self, after: Snapshot | None) -> Snapshot:
        """See PodSource."""
        if self._registry.snapshot is not None:
            return await self._registry.changed(after)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_ended_by(self._registry.changed(None)))
                group.create_task(_ended_by(self._fallback.changed(after)))
        except* _Changed:
            pass
        assert self.snapshot is not None
        return self.snapshot

    def follow(self, name: str) -> None:
        """See PodSource."""
        self._registry.follow(name)
        self._fallback.follow(name)

    async def read_all(self) -> Snapshot:
        """See PodSource."""
        try:
            return await self._registry.read_all()
        except RegistryUnavailable:
            if self._registry.snapshot is not None:
                raise
            return await self._fallback.read_all()

    async def want(self, name: str) -> None:
        """See PodSource."""
        await self._registry.want(name)


def _asking_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_TIMEOUT_S))


class _Changed(Exception):
    """One of the sources has something new."""


async def _ended_by(change: Awaitable[Snapshot]) -> None:
    await change
    raise _Changed


def _record(url: str, body: bytes, headers: Mapping[str, str], *, is_ready: bool) -> PodRecord:
    """The record that a `/v1/models` answer amounts to; raises ValueError when it is none."""
    try:
        models = [model for model in json.loads(body)["data"] if isinstance(model["id"], str)]
    except (KeyError, TypeError) as error:
        raise ValueError("not a list of models") from error
    languages = {
        language
        for model in models
        if isinstance(model.get("languages"), list)
        for language in model["languages"]
        if isinstance(language, str)
    }
    slots = headers.get("x-everwarm-slots", "")
    return PodRecord(
        id=headers.get(POD_HEADER, url),
        url=url,
        state=PodState.WARM if is_ready else PodState.WARMING,
        model=models[0]["id"] if models else "",
        names=tuple(model["id"] for model in models),
        languages=tuple(sorted(languages)),
        slots=max(1, int(slots)) if slots.isdecimal() else 1,
        queue=UNKNOWN_QUEUE,
        inflight=0,
        version="",
        node="",
        started=0.0,
        load_s=0.0,
        warm_s=0.0,
        boot=url,
    )


def pod_source(settings: AgentSettings, *, token: SecretFile | None = None) -> PodSource:
    """The source that *settings* ask for: the registry, fallback URLs, or both.

    Raises InvalidParameter when they name neither.
    """
    static = StaticSource(settings.fallback_urls, token=token) if settings.fallback_urls else None
    if settings.redis_url is None:
        if static is None:
            raise InvalidParameter(
                "redis_url", "nothing says where the pods are; set EVERWARM_REDIS_URL or EVERWARM_BASE_URL"
            )
        return static
    try:
        registry = RegistryReader(settings.redis_url, settings.namespace, follow=())
    except ValueError as error:
        raise InvalidParameter("redis_url", str(error)) from error
    return FallbackSource(registry, static) if static else registry
