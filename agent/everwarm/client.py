"""`Client`: an utterance goes in, its transcript comes out; which pod did it, and how often it had to be asked, is seen
to below (`everwarm.dispatch`).

With a Redis URL the client routes to pods itself; with a base URL it talks to a gateway or a single pod. Constructing
one does nothing, so it may be made at import time; `async with` (or `start` and `aclose`) opens and closes it. One
client serves any number of utterances at a time, on the event loop that opened it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pydantic import SecretStr

from everwarm.audio_input import AudioInput, is_quick, read_audio
from everwarm.calls import GLANCE_S, call_of, recording_s, transcript_of
from everwarm.credentials import SecretFile
from everwarm.deadline import Deadline
from everwarm.dispatch import (
    DirectDispatcher,
    Dispatcher,
    Exchange,
    PodHttp,
)
from everwarm.routing.router import Router
from everwarm.settings import AgentSettings, agent_settings
from everwarm.sources import pod_source
from everwarm_core import telemetry
from everwarm_core.errors import InvalidParameter
from everwarm_core.http.headers import REQUEST_ID_HEADER, new_request_id
from everwarm_core.requests import Task, TranscriptionRequest, parse_transcribe_query
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_core.transcript import Granularities, Transcript


class Client:
    """Transcribes utterances on warm pods.

    redis_url, base_url, namespace, token_file, api_key, fallback_urls, deadline_s: as `AgentSettings`, which they
    override; base_url wins over a Redis URL from the environment, redis_url over both.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        base_url: str | None = None,
        namespace: str | None = None,
        token_file: str | Path | None = None,
        api_key: str | None = None,
        fallback_urls: Sequence[str] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self._given = {
            "redis_url": redis_url,
            "base_url": base_url,
            "namespace": namespace,
            "token_file": None if token_file is None else Path(token_file),
            "api_key": None if api_key is None else SecretStr(api_key),
            "fallback_urls": None if fallback_urls is None else tuple(fallback_urls),
            "deadline_seconds": deadline_s,
        }
        self._opened: _Opened | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Open the connections' pool and begin to follow the pods; returns at once, Redis there or not.

        Does nothing while open. Raises InvalidParameter when neither arguments nor environment say where to go.
        """
        if self._opened is None:
            self._opened = _open(self._settings())
            await self._opened.http.start()
            if self._opened.router:
                await self._opened.router.start()

    async def aclose(self) -> None:
        """Close everything; utterances still under way fail."""
        opened, self._opened = self._opened, None
        if opened is not None:
            try:
                if opened.router:
                    await opened.router.aclose()
            finally:
                await opened.http.aclose()

    @property
    def router(self) -> Router | None:
        """The router in use; None while closed, and with a base URL."""
        return self._opened.router if self._opened else None

    async def transcribe(
        self,
        audio: AudioInput,
        *,
        model: str,
        language: str | None = None,
        prompt: str | None = None,
        temperature: float | None = None,
        word_timestamps: bool = False,
        task: Task = "transcribe",
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Transcript:
        """The transcript of *audio*.

        audio: a path, the bytes of an audio file, or float32 in [-1, 1] or int16 samples at 16 kHz, mono.
        language: a code such as `en`, `en-US`, `auto`, or None for what the model is served in. prompt: words that may
        come up. temperature: 0 to 1, None for the model's own. deadline_s: longest wait, hold and retries included;
        by default the client's, plus the length of audio beyond 30 s. request_id: the id that logs and traces on all
        sides carry; by default a fresh one.
        Raises InvalidRequest (the arguments, the audio), CapacityError (nobody had a place in time), PodFailed or
        InternalError (several pods failed on it), RegistryUnavailable.
        """
        if self._opened is None:
            raise InvalidParameter(
                "client", "is not open; use `async with Client(...)`, or await its start()"
            )
        request = _request(model, language, prompt, temperature, word_timestamps=word_timestamps, task=task)
        with telemetry.span(SpanName.TRANSCRIBE) as span:
            source = read_audio(audio) if is_quick(audio) else await asyncio.to_thread(read_audio, audio)
            span.set_attribute(Attribute.MODEL, request.model)
            span.set_attribute(Attribute.LANGUAGE, request.language or "")
            span.set_attribute(Attribute.AUDIO_SECONDS, source.audio_s)
            call = call_of(source, request, request_id or new_request_id())
            span.set_attribute(Attribute.REQUEST_ID, call.headers[REQUEST_ID_HEADER])
            limit_s = deadline_s or self._opened.settings.deadline_seconds + recording_s(source)
            async with self._opened.exchange.exchange(call, deadline=Deadline.after(limit_s)) as answer:
                span.set_attribute(Attribute.POD, answer.pod)
                return transcript_of(answer)

    async def glance(
        self,
        audio: AudioInput,
        *,
        model: str,
        language: str | None = None,
        prompt: str | None = None,
        word_timestamps: bool = False,
        deadline_s: float = GLANCE_S,
        request_id: str | None = None,
    ) -> Transcript | None:
        """The transcript of *audio* if a slot is idle now; None when none is, or when anything else is in the way.

        For looks at speech that goes on, which must not cost anybody a place. Arguments as of `transcribe`.
        """
        if self._opened is None:
            return None
        call = call_of(
            read_audio(audio),
            _request(model, language, prompt, None, word_timestamps=word_timestamps, task="transcribe"),
            request_id or new_request_id(),
        )
        answer = await self._opened.exchange.glance(call, deadline=Deadline.after(deadline_s))
        return None if answer is None else transcript_of(answer)

    def _settings(self) -> AgentSettings:
        return agent_settings(self._given)


class _Opened(NamedTuple):
    """What an open client holds; `router` is None with a base URL."""

    settings: AgentSettings
    http: PodHttp
    exchange: Exchange
    router: Router | None


def _open(settings: AgentSettings) -> _Opened:
    token = SecretFile(settings.token_file) if settings.token_file else None
    if settings.redis_url is None and settings.base_url is not None:
        http = PodHttp(token=token, api_key=settings.api_key.get_secret_value() if settings.api_key else None)
        return _Opened(settings, http, DirectDispatcher(settings.base_url, http), None)
    http = PodHttp(token=token)
    router = Router(pod_source(settings, token=token))
    return _Opened(settings, http, Dispatcher(router, http), router)


@lru_cache(maxsize=64)
def _request(
    model: str,
    language: str | None,
    prompt: str | None,
    temperature: float | None,
    *,
    word_timestamps: bool,
    task: Task,
) -> TranscriptionRequest:
    """The arguments, checked by the same rules as a pod would, so that a mistake costs no round trip.

    Most utterances ask what the last one asked.
    """
    fields = [("model", model), ("task", task), ("language", language or ""), ("prompt", prompt or "")]
    if temperature is not None:
        fields.append(("temperature", repr(float(temperature))))
    request = parse_transcribe_query(fields)
    return replace(request, granularities=Granularities(segments=True, words=word_timestamps))
