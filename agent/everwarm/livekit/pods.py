"""How an utterance reaches pods elsewhere, for one STT: `everwarm.Client`, and whether it can have a pod at all.

The second question only matters to a fallback, and must be cheap: with a registry it is answered from the snapshot
the client follows anyway, with a gateway or a single pod by two small GETs.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import quote

import aiohttp

from everwarm.client import Client
from everwarm.credentials import SecretFile
from everwarm.deadline import Deadline
from everwarm.livekit.speech import Samples
from everwarm.settings import AgentSettings
from everwarm_core.errors import (
    DeadlineExceeded,
    EverwarmError,
    ModelNotFound,
    ModelNotWarm,
    PodFailed,
    RegistryUnavailable,
)
from everwarm_core.transcript import Transcript

PREPARE_S: Final = 5.0  # longest look for a pod in the background; the first utterance looks again
MAX_ANSWER_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance and all that is asked of it; *language* is a Whisper code, `auto` or None."""

    samples: Samples = field(repr=False)
    model: str
    language: str | None
    word_timestamps: bool
    request_id: str
    deadline: Deadline


class Transcriber(Protocol):
    """What turns utterances into transcripts; lives on one event loop."""

    async def prepare(self) -> None:
        """Do ahead of the first utterance whatever it would else wait for; never raises."""

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """The transcript. Raises EverwarmError."""

    async def glance(self, utterance: Utterance) -> Transcript | None:
        """The transcript if a slot is idle now; None when none is, or when anything else is in the way."""


async def ask(client: Client, utterance: Utterance) -> Transcript:
    """The transcript that *client* gets within what is left of the utterance's deadline."""
    left_s = utterance.deadline.remaining_s()
    if not left_s:
        raise DeadlineExceeded(deadline_s=utterance.deadline.limit_s, waiting_for="a pod to ask")
    return await client.transcribe(
        utterance.samples,
        model=utterance.model,
        language=utterance.language,
        word_timestamps=utterance.word_timestamps,
        deadline_s=left_s,
        request_id=utterance.request_id,
    )


async def glance_at(client: Client, utterance: Utterance) -> Transcript | None:
    """What *client* sees of the utterance, on a slot that is idle now."""
    try:
        return await client.glance(
            utterance.samples,
            model=utterance.model,
            language=utterance.language,
            word_timestamps=utterance.word_timestamps,
            request_id=utterance.request_id,
        )
    except EverwarmError:
        return None


class Pods:
    """The pods that *settings* lead to, for *model* in *language*; opened by `opened_pods`."""

    def __init__(
        self,
        client: Client,
        http: aiohttp.ClientSession,
        settings: AgentSettings,
        model: str,
        language: str | None,
    ) -> None:
        self._client = client
        self._http = http
        self._model, self._language = model, language
        self._base_url = (settings.base_url or "").rstrip("/")
        self._token = SecretFile(settings.token_file) if settings.token_file else None
        self._api_key = settings.api_key.get_secret_value() if settings.api_key else None

    async def prepare(self) -> None:
        """See Transcriber: begins to follow the model's pods."""
        await self.why_none(within_s=PREPARE_S)

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """See Transcriber."""
        return await ask(self._client, utterance)

    async def glance(self, utterance: Utterance) -> Transcript | None:
        """See Transcriber."""
        return await glance_at(self._client, utterance)

    async def why_none(self, *, within_s: float) -> str | None:
        """Why no pod is warm for the model; None when one is. Waits for one, or for an answer, for at most *within_s*."""
        router = self._client.router
        if router is None:
            return await self._why_closed(within_s)
        try:
            with await router.route(self._model, self._language, deadline=Deadline.after(within_s)):
                return None
        except (ModelNotFound, ModelNotWarm, RegistryUnavailable) as error:
            return str(error)

    async def _why_closed(self, within_s: float) -> str | None:
        """`why_none` as the gateway, or the single pod, at the base URL tells it."""
        try:
            async with asyncio.timeout(within_s):
                async with self._http.get(f"{self._base_url}/readyz") as answer:
                    if answer.status != 200:
                        return f"{self._base_url} is not ready (HTTP {answer.status})"
                return await self._why_model_is_cold()
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            return f"{self._base_url} cannot be asked: {type(error).__name__} {error}".rstrip()

    async def _why_model_is_cold(self) -> str | None:
        url = f"{self._base_url}/v1/models/{quote(self._model)}"
        async with self._http.get(url, headers=self._headers()) as answer:
            if answer.status in {401, 403}:
                return None  # it is there; that our key is wrong must be told, not hidden by a fallback
            if answer.status != 200:
                return f"{self._base_url} does not serve {self._model!r} (HTTP {answer.status})"
            model = json.loads(await answer.content.read(MAX_ANSWER_BYTES))
        # A gateway counts pods; a pod that is ready is one.
        is_warm = isinstance(model, dict) and model.get("warm_pods", 1) != 0
        return None if is_warm else f"no pod behind {self._base_url} holds {self._model!r} warm"

    def _headers(self) -> dict[str, str]:
        secret = self._api_key or (self._token.first() if self._token else None)
        return {"Authorization": f"Bearer {secret}"} if secret else {}


@asynccontextmanager
async def opened_pods(settings: AgentSettings, model: str, language: str | None) -> AsyncIterator[Pods]:
    """The pods, with their client open inside the context."""
    client = Client(
        settings.redis_url,
        base_url=settings.base_url,
        namespace=settings.namespace,
        token_file=settings.token_file,
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        fallback_urls=settings.fallback_urls,
        deadline_s=settings.deadline_seconds,
    )
    async with client, aiohttp.ClientSession() as http:
        yield Pods(client, http, settings, model, language)


def found_no_pod(error: Exception) -> bool:
    """Whether *error* means that no pod could be had, rather than that pods were busy or failed on the utterance."""
    if isinstance(error, PodFailed):
        return isinstance(error.__cause__, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return isinstance(error, ModelNotFound | ModelNotWarm | RegistryUnavailable)
