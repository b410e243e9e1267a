"""Pods elsewhere first; while none can be had, one pod of this machine's own, shared by all its worker processes.

Two states. *On pods* an utterance goes to a pod; before the first one, and after a while without a success, it is asked
cheaply whether there is any. When there is none, or none that can be connected to, the utterance and those after it
are *local*: they wait for nothing but the local pod, and a task looks for pods every few seconds. As soon as it finds
one, utterances go to pods again, those included that still wait for the local pod to become warm, and the local
pod is left; its guardian ends it when nobody came back for a while. A pod that is merely full is no reason to start
another model.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Self

from everwarm.background import Background
from everwarm.client import Client
from everwarm.livekit.pods import Pods, Utterance, ask, found_no_pod, glance_at, opened_pods
from everwarm.local_pod import LOOK_EVERY_S, LocalPod
from everwarm.settings import AgentSettings
from everwarm_core.errors import DeadlineExceeded, EverwarmError, PlatformError, PodFailed
from everwarm_core.logs import library_logger
from everwarm_core.transcript import Transcript

NO_POD_AFTER_S: Final = 2.0  # without a pod or an answer; a registry is read in a tenth of that
TRUST_S: Final = 2.0  # after a success nothing is asked for so long
RETURN_EVERY_S: Final = 3.0  # between two looks for pods
RETURN_WAIT_S: Final = 1.0  # of one look
LOCAL_TRIES: Final = 3  # for one utterance, while its pod dies under it

log = library_logger(__name__)


class PodsElseLocal:
    """A Transcriber over *pods* (None when nothing says where they are) and *local*."""

    def __init__(self, pods: Pods | None, local: LocalPod) -> None:
        self._pods = pods
        self._local = local
        self._is_local = pods is None
        self._fell_back = asyncio.Event()
        self._succeeded_at = float("-inf")
        self._in_use = 0
        self._client: Client | None = None
        self._client_url = ""
        self._opening = asyncio.Lock()
        self._background = Background({} if pods is None else {"pods.return": self._return_to_pods})

    async def __aenter__(self) -> Self:
        await self._background.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._background.aclose()
        await self._leave()

    async def prepare(self) -> None:
        """See Transcriber: without pods the local one is started now."""
        try:
            while self._is_local or not await self._have_pods():
                if await self._local.look() is not None:
                    return
                await asyncio.sleep(LOOK_EVERY_S)
        except PlatformError as error:
            log.warning("local_pod.failed", reason=str(error))

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """See Transcriber."""
        while True:
            if not self._is_local and await self._have_pods():
                assert self._pods is not None
                try:
                    transcript = await self._pods.transcribe(utterance)
                except EverwarmError as error:
                    if not found_no_pod(error):
                        raise
                    self._fall_back(str(error))
                else:
                    self._succeeded_at = time.monotonic()
                    return transcript
            if (local := await self._transcribe_locally(utterance)) is not None:
                return local

    async def glance(self, utterance: Utterance) -> Transcript | None:
        """See Transcriber: of whoever was used last, for a look is no reason to start or to leave anything."""
        if not self._is_local and self._pods is not None:
            return await self._pods.glance(utterance)
        return None if self._client is None else await glance_at(self._client, utterance)

    async def _have_pods(self) -> bool:
        """Whether to send to pods; falls back when there are none."""
        assert self._pods is not None
        if time.monotonic() - self._succeeded_at < TRUST_S:
            return True
        reason = await self._pods.why_none(within_s=NO_POD_AFTER_S)
        if reason is not None:
            self._fall_back(reason)
        return reason is None

    def _fall_back(self, reason: str) -> None:
        if not self._is_local:
            self._is_local = True
            self._succeeded_at = float("-inf")
            self._fell_back.set()
            log.warning("fallback.begun", model=self._local.model, reason=reason)

    async def _return_to_pods(self) -> None:
        assert self._pods is not None
        while True:
            await self._fell_back.wait()
            await asyncio.sleep(RETURN_EVERY_S)
            if await self._pods.why_none(within_s=RETURN_WAIT_S) is None:
                self._is_local = False
                self._fell_back.clear()
                log.info("fallback.ended", model=self._local.model)
                await self._leave_if_unused()

    async def _transcribe_locally(self, utterance: Utterance) -> Transcript | None:
        """The local pod's transcript; None when pods are back before it is warm."""
        self._in_use += 1
        failures = 0
        try:
            while self._is_local:
                url = await self._local.look()
                if url is not None:
                    try:
                        return await ask(await self._client_for(url), utterance)
                    except PodFailed:
                        failures += 1
                        if failures == LOCAL_TRIES:
                            raise
                if utterance.deadline.has_passed:
                    raise DeadlineExceeded(
                        deadline_s=utterance.deadline.limit_s,
                        waiting_for=f"the local pod of {utterance.model!r} to become warm",
                    )
                await asyncio.sleep(LOOK_EVERY_S)
            return None
        finally:
            self._in_use -= 1
            await self._leave_if_unused()

    async def _client_for(self, url: str) -> Client:
        async with self._opening:
            if self._client is None or url != self._client_url:
                if self._client is not None:
                    await self._client.aclose()
                self._client, self._client_url = Client(base_url=url), url
                await self._client.start()
            return self._client

    async def _leave_if_unused(self) -> None:
        async with self._opening:
            if not self._is_local and not self._in_use:
                await self._leave()

    async def _leave(self) -> None:
        self._local.leave()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


@asynccontextmanager
async def opened_with_fallback(
    settings: AgentSettings, model: str, language: str | None
) -> AsyncIterator[PodsElseLocal]:
    """Pods, and the local pod behind them, open inside the context."""
    async with AsyncExitStack() as stack:
        pods = None
        if settings.redis_url or settings.base_url or settings.fallback_urls:
            pods = await stack.enter_async_context(opened_pods(settings, model, language))
        local = LocalPod(model, language, idle_s=settings.local_pod_idle_seconds)
        yield await stack.enter_async_context(PodsElseLocal(pods, local))
