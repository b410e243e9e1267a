"""One request for a transcript, from its headers to the last byte of its answer.

The order is the point. A place is taken before the body is read, so a full pod refuses for the price of a header; the
request is checked before it waits; the wait for a slot and the decode end when the client leaves; the slot is freed by
the end of the decode's thread (see `admission`), and the place before the answer is written, so a slow reader holds
neither. Audio is decoded on the slot's own thread: hours of silence in a few kilobytes then cost one slot's time and
memory, not that of everybody who waits. A streamed answer begins with its first segment, so what fails before that
is still a proper status.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Never

import structlog
from opentelemetry.trace import Span
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everwarm_core import telemetry
from everwarm_core.errors import (
    DecodeCancelled,
    EverwarmError,
    InternalError,
    ModelNotWarm,
    NoIdleSlot,
    PodDraining,
)
from everwarm_core.http.headers import IDLE_HEADER
from everwarm_core.registry.records import PodState
from everwarm_core.requests import (
    Task,
    TranscriptionRequest,
    parse_transcribe_query,
    parse_transcription_fields,
)
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_core.transcript import ResponseFormat, Transcript, render
from everwarm_stt.admission import Place, Slot
from everwarm_stt.audio import Pcm16k, decode_audio, decode_pcm
from everwarm_stt.engine import DecodeOptions, Engine, Piece, is_recording
from everwarm_stt.pod import LOADING_RETRY_AFTER_S, Pod
from everwarm_stt.server import body, events
from everwarm_stt.server.body import ClientLeft
from everwarm_stt.server.edge import Account, account_of, is_rehearsal
from everwarm_stt.server.instruments import Instruments
from everwarm_stt.turns import Deadline

CONTENT_TYPES: Final = {
    ResponseFormat.JSON: "application/json",
    ResponseFormat.VERBOSE_JSON: "application/json",
    ResponseFormat.TEXT: "text/plain; charset=utf-8",
    ResponseFormat.SRT: "application/x-subrip; charset=utf-8",
    ResponseFormat.VTT: "text/vtt; charset=utf-8",
}

Source = Callable[[], Pcm16k]
"""Makes samples of what was sent; blocks."""

log = structlog.stdlib.get_logger(__name__)


class Exchange(Response):
    """A response that reads the request itself: FastAPI's handlers return it untouched, before any body is read."""

    def __init__(self, serve: Callable[[Request, Send], Awaitable[None]]) -> None:
        super().__init__()
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        await self._serve(Request(scope, receive, send), send)


@dataclass(frozen=True, slots=True)
class Transcriber:
    """Serves requests for transcripts by *pod*."""

    pod: Pod
    instruments: Instruments

    def form(self, task: Task) -> Exchange:
        """OpenAI's multipart form."""
        return Exchange(partial(self._serve_form, task))

    def pcm(self) -> Exchange:
        """Raw samples, everything else in the query."""
        return Exchange(self._serve_pcm)

    async def _serve_form(self, task: Task, request: Request, send: Send) -> None:
        settings = self.pod.settings
        deadline = body.deadline_of(request)
        limit_bytes = settings.limit_upload_bytes
        body.refuse_declared_length(request, limit_bytes=limit_bytes, overhead_bytes=body.FORM_OVERHEAD_BYTES)
        async with AsyncExitStack() as held:
            place = await held.enter_async_context(self._admitted(request, deadline))
            async with body.in_time(deadline, settings.body_timeout_seconds):
                form = await held.enter_async_context(body.open_form(request, limit_bytes=limit_bytes))
            wanted = parse_transcription_fields(form.fields, task=task)
            job = self._job(
                request, wanted, partial(decode_audio, form.file, limit_s=settings.limit_audio_seconds)
            )
            if wanted.stream:
                await job.stream(place, request.receive, send)
                return
            async with while_client_listens(request.receive):
                transcript = await job.whole(place)
        await _answer(transcript, wanted, request.scope, request.receive, send)

    async def _serve_pcm(self, request: Request, send: Send) -> None:
        settings = self.pod.settings
        deadline = body.deadline_of(request)
        wanted = parse_transcribe_query(request.query_params.multi_items())
        rate = body.pcm_rate(request)
        limit_bytes = settings.limit_upload_bytes
        body.refuse_declared_length(request, limit_bytes=limit_bytes)
        self.pod.check_name(wanted.model)
        async with self._admitted(request, deadline) as place:
            async with body.in_time(deadline, settings.body_timeout_seconds):
                samples = await body.read_bytes(request, limit_bytes=limit_bytes)
            source = partial(decode_pcm, samples, rate=rate, limit_s=settings.limit_audio_seconds)
            job = self._job(request, wanted, source)
            async with while_client_listens(request.receive):
                transcript = await job.whole(place)
        await _answer(transcript, wanted, request.scope, request.receive, send)

    @asynccontextmanager
    async def _admitted(self, request: Request, deadline: Deadline | None) -> AsyncIterator[Place]:
        pod = self.pod
        if pod.state in (PodState.LOADING, PodState.WARMING) and not is_rehearsal(request.scope):
            raise ModelNotWarm(pod.settings.model, retry_after_s=LOADING_RETRY_AFTER_S)
        if IDLE_HEADER in request.headers and not pod.admission.has_idle_slot:
            raise NoIdleSlot
        async with pod.admission.admit(deadline) as place:
            yield place

    def _job(self, request: Request, wanted: TranscriptionRequest, source: Source) -> "Job":
        return Job(
            pod=self.pod,
            engine=self.pod.loaded_engine(),
            instruments=self.instruments,
            options=self.pod.options(wanted),
            source=source,
            account=account_of(request.scope),
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One decode to be done: what, how, and for whom."""

    pod: Pod
    engine: Engine
    instruments: Instruments
    options: DecodeOptions
    source: Source
    account: Account

    async def whole(self, place: Place) -> Transcript:
        """Wait for a slot and decode all of it. Raises what admission, audio and engine raise."""
        async with self._slot(place) as slot:
            with self._measured() as measured:
                transcript = await slot.run(
                    lambda: self.engine.decode(
                        self._audio(slot), self.options, cancelled=slot.cancelled, company=slot.company
                    )
                )
                measured.done(transcript)
        return transcript

    async def stream(self, place: Place, receive: Receive, send: Send) -> None:
        """Wait for a slot, decode, and send each segment's text as it is known.

        Raises as `whole` until the first segment, and ClientLeft; later failures become an event that clients raise.
        """
        decoded: asyncio.Queue[Decoded] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Decoded) -> None:
            loop.call_soon_threadsafe(decoded.put_nowait, event)

        deltas = events.Deltas()
        async with while_client_listens(receive) as tasks, self._slot(place) as slot:
            with self._measured() as measured:
                tasks.create_task(self._decode_streamed(decoded, tell, slot), name="streamed decode")
                event = await decoded.get()
                if isinstance(event, Exception):
                    raise event
                await send({"type": "http.response.start", "status": 200, "headers": list(_EVENT_HEADERS)})
                while isinstance(event, Piece):
                    if delta := deltas.of(event.segment.text):
                        await _send_event(send, events.delta_event(delta))
                    event = await decoded.get()
                if isinstance(event, Transcript):
                    measured.done(event)
                    await _send_event(send, events.done_event(event))
                else:
                    await _send_event(send, events.error_event(self._told_mid_stream(event)))
        # Only now, as the server reports the end of an answer like a client that left.
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _audio(self, slot: Slot) -> Pcm16k:
        """On the slot's thread: the samples; only they tell that this is a recording, before which utterances go."""
        audio = self.source()
        if is_recording(audio):
            slot.give_way()
        return audio

    async def _decode_streamed(
        self, decoded: "asyncio.Queue[Decoded]", tell: Callable[["Decoded"], None], slot: Slot
    ) -> None:
        try:
            await slot.run(partial(self._decode_into, tell, slot))
        except PodDraining as error:  # a hastened drain does not wait for the thread to say so
            decoded.put_nowait(error)

    def _decode_into(self, tell: Callable[["Decoded"], None], slot: Slot) -> None:
        """On the slot's thread: every segment, then the whole or what went wrong."""
        try:
            decoding = self.engine.decode_segments(
                self._audio(slot), self.options, cancelled=slot.cancelled, company=slot.company
            )
            pieces = []
            for piece in decoding.pieces:
                pieces.append(piece)
                tell(piece)
            tell(decoding.transcript(pieces))
        except Exception as error:  # noqa: BLE001  # handed over whole to the task that answers
            tell(error)

    def _told_mid_stream(self, error: Exception) -> EverwarmError:
        if isinstance(error, DecodeCancelled):
            return PodDraining()
        if isinstance(error, EverwarmError):
            return error
        log.error("request.failed", exc_info=error)
        return InternalError(f"an internal error; the log tells more under {self.account.request_id!r}")

    @asynccontextmanager
    async def _slot(self, place: Place) -> AsyncIterator[Slot]:
        """The slot, once it is ours; the wait is timed and traced."""
        began = time.perf_counter()
        async with AsyncExitStack() as held:
            with telemetry.span(SpanName.QUEUE):
                slot = await held.enter_async_context(place.slot())
            self.account.queue_s = time.perf_counter() - began
            try:
                yield slot
            except (
                DecodeCancelled
            ) as error:  # not by the caller, who would be gone: by a drain that has no more time
                raise PodDraining from error

    @contextmanager
    def _measured(self) -> Iterator["Measured"]:
        """Time and trace a decode; `Measured.done` closes its account, unless it fails first."""
        language = self.options.language
        is_proven = language in self.pod.languages or self.account.is_rehearsal
        if not is_proven:
            log.info("key.unproven", model=self.engine.model, language=language)
        attributes: dict[str, str | bool] = {
            Attribute.MODEL: self.engine.model,
            Attribute.INSTANCE: self.engine.id,
            Attribute.LANGUAGE: language,
            Attribute.PROVEN: is_proven,
        }
        with telemetry.span(SpanName.DECODE, attributes=attributes) as span:
            yield Measured(self, span)


@dataclass(slots=True)
class Measured:
    """A decode under way, on the clock."""

    job: Job
    span: Span
    began: float = field(default_factory=time.perf_counter)

    def done(self, transcript: Transcript) -> None:
        """The decode ended well with *transcript*."""
        job = self.job
        decode_s = job.account.decode_s = time.perf_counter() - self.began
        self.span.set_attributes(
            {
                Attribute.AUDIO_SECONDS: transcript.duration,
                Attribute.SEGMENTS: len(transcript.segments),
                Attribute.TOKENS: sum(len(segment.tokens) for segment in transcript.segments),
                Attribute.DETECTED_LANGUAGE: transcript.language,
            }
        )
        if job.account.is_rehearsal:
            return
        if job.options.language not in job.pod.languages:
            job.pod.prove(job.options.language)
        labels = {Attribute.MODEL.value: job.engine.model, Attribute.LANGUAGE.value: job.options.language}
        job.instruments.queue.record(job.account.queue_s, labels)
        job.instruments.decode.record(decode_s, labels)
        if transcript.duration > 0:
            job.instruments.real_time_factor.record(decode_s / transcript.duration, labels)


Decoded = Piece | Transcript | Exception
"""What a streamed decode hands over: segments, then the whole or what went wrong."""

_EVENT_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events
)


@asynccontextmanager
async def while_client_listens(receive: Receive) -> AsyncIterator[asyncio.TaskGroup]:
    """Inside, the client's leaving cancels what is awaited and is raised as ClientLeft at the end.

    Only after the body was read. The task group is the caller's to use; an error of one of its tasks, or of the
    body of the `async with`, comes out as itself.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_until_client_leaves(receive), name="client watch")
            try:
                yield tasks
            finally:
                watch.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _until_client_leaves(receive: Receive) -> Never:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientLeft


async def _send_event(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})


async def _answer(
    transcript: Transcript, wanted: TranscriptionRequest, scope: Scope, receive: Receive, send: Send
) -> None:
    form = wanted.response_format
    answer = Response(render(transcript, form, wanted.granularities), media_type=None)
    answer.headers["content-type"] = CONTENT_TYPES[form]
    await answer(scope, receive, send)
