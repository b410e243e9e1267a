"""`Relay`: one request passed on, from its headers to the last byte of its answer, as an ASGI response.

In order: key, place, the key's limits, declared length and content type are checked before anything of the body is
read, so a refusal costs no upload. Then two things happen at once: a task records the body on a tape (and later notices
that the caller has left), while the request waits until the model is known and hands the tape to the dispatcher.
Exactly one answer comes out, in OpenAI's shape when it is an error. When the caller leaves, everything is cancelled,
and with the connection the pod's place is given up.
"""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everwarm.audio_input import PCM_BYTES_PER_S, PCM_TYPE, guessed_s, longest_s
from everwarm.deadline import Deadline
from everwarm.dispatch import RECORDING_S, Answer, Call, Exchange
from everwarm.gateway.admission import Admission
from everwarm.gateway.edge import request_id_of, tell_limits
from everwarm.gateway.form import FormHead
from everwarm.gateway.keys import Keyring
from everwarm.gateway.limits import Caller, Utterance
from everwarm.gateway.tape import BodyTape, ByteBudget
from everwarm.routing.loads import AUDIO_PRIOR_S
from everwarm.routing.router import Wish
from everwarm.settings import GatewaySettings
from everwarm_core import telemetry
from everwarm_core.errors import (
    CapacityError,
    EverwarmError,
    InternalError,
    InvalidParameter,
    InvalidRequest,
    NoIdleSlot,
    Unauthorized,
    UploadTooLarge,
    UploadTooSlow,
    http_error,
)
from everwarm_core.http.headers import DEADLINE_HEADER, IDLE_HEADER, REQUEST_ID_HEADER, parse_deadline_s
from everwarm_core.openai_errors import error_body, error_headers, error_json
from everwarm_core.realtime.sessions import Sessions
from everwarm_core.requests import (
    Task,
    TranscriptionRequest,
    parse_transcribe_query,
    parse_transcription_fields,
)
from everwarm_core.telemetry import Attribute

ATTEMPTS_HEADER: Final = "x-everwarm-attempts"
MAX_QUERY_FIELDS: Final = 64
MAX_TOLD_BYTES: Final = 262_144  # of an answer parsed for its length, while nobody else is served; a guess
CALLER_LEFT: Final = 499  # as nginx counts it; nobody reads this answer

_PASSED_ON: Final = frozenset({"content-type", "retry-after", "x-should-retry", "cache-control"})

log = structlog.get_logger(__name__)


class Door:
    """What all relays of a gateway share."""

    def __init__(self, settings: GatewaySettings, exchange: Exchange) -> None:
        self.settings: Final = settings
        self.exchange: Final = exchange
        self.admission: Final = Admission(settings.gateway_limit_requests)
        self.budget: Final = ByteBudget(settings.gateway_limit_buffer_bytes)
        self.sessions: Final = Sessions.of(settings)
        self.keys: Final = Keyring(settings.gateway_api_keys_file) if settings.gateway_api_keys_file else None
        self.anybody: Final = Caller()
        self.durations: Final = telemetry.histogram(telemetry.REQUEST_DURATION)
        self.refusals: Final = telemetry.counter(telemetry.REFUSALS)

    def caller(self, authorization: str) -> Caller:
        """Who shows *authorization*, the header of that name; raises Unauthorized unless it is a bearer's known key.

        While no keys are configured everybody is the same nameless caller, whom nothing limits.
        """
        if self.keys is None:
            return self.anybody
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized
        return self.keys.caller(key.strip())


def token_refused() -> InternalError:
    """What a caller is told of a pod's 401: it is never his key that a pod has looked at."""
    return InternalError("the pods do not take the gateway's internal token; check EVERWARM_TOKEN_FILE")


class _CallerLeft(Exception):
    """The caller closed the connection before it had its answer."""


class Relay(Response):
    """Answers the request of its scope by way of a pod.

    task: what the path asks for; None on `/v1/transcribe`, whose query says it and whose body is raw PCM.
    """

    def __init__(self, door: Door, *, route: str, task: Task | None) -> None:
        super().__init__()
        self._door = door
        self._route = route
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay the request; raises nothing of its own."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        outgoing = _Outgoing(send, request_id_of(scope))
        with telemetry.server_span("POST", self._route, headers) as span:
            span.set_attribute(Attribute.REQUEST_ID, outgoing.request_id)
            await self._admitted(scope, headers, receive, outgoing)
            span.set_attribute(Attribute.POD, outgoing.pod)
            telemetry.answered(span, outgoing.status)
            self._account(outgoing)

    async def _admitted(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, outgoing: "_Outgoing"
    ) -> None:
        """Check all that can be checked before the body is read, then relay; any error becomes the answer."""
        door = self._door
        try:
            caller = door.caller(headers.get("authorization", ""))
            outgoing.caller = caller.name
            tell_limits(scope, caller)
            is_glance = IDLE_HEADER in headers
            with door.admission.place(), caller.utterance(is_glance=is_glance) as utterance:
                tell_limits(scope, utterance)
                given_s = _given_deadline_s(headers)
                size = _declared_size(headers, door.settings.limit_body_bytes)
                door.budget.ensure_room(size or 0)
                form = _expected_form(headers.get("content-type", ""), self._task)
                tape = BodyTape(limit_bytes=door.settings.limit_body_bytes, budget=door.budget, size=size)
                try:
                    upload = _Upload(tape, form, utterance, given_s)
                    await self._held(scope, headers, receive, upload, outgoing)
                finally:
                    tape.erase()
        except EverwarmError as error:
            await self._refused(error, outgoing)
        except Exception:  # the edge: whatever it is, the caller gets an answer and the log its trace
            log.exception("request.failed", route=self._route)
            reason = f"an internal error; the log tells more under request id {outgoing.request_id!r}"
            await outgoing.error(InternalError(reason))

    async def _held(
        self,
        scope: Scope,
        headers: Mapping[str, str],
        receive: Receive,
        upload: "_Upload",
        outgoing: "_Outgoing",
    ) -> None:
        """Record the body and pass it on at the same time; both end when the answer is out or the caller has left."""
        limit_s = self._door.settings.gateway_upload_seconds
        try:
            async with asyncio.TaskGroup() as group:
                recording = group.create_task(_record(receive, upload.tape, upload.form, limit_s))
                try:
                    await self._passed_on(scope, headers, upload, outgoing)
                except EverwarmError as error:
                    upload.utterance.costs(0.0)
                    await self._refused(error, outgoing)
                finally:
                    recording.cancel()
        except* _CallerLeft:
            outgoing.is_left()

    async def _passed_on(
        self, scope: Scope, headers: Mapping[str, str], upload: "_Upload", outgoing: "_Outgoing"
    ) -> None:
        request = await _asked(upload.tape, upload.form, self._task, scope["query_string"])
        outgoing.model = request.model
        path = scope["raw_path"].decode("ascii")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("ascii")
        audio_s = upload.audio_s()
        upload.utterance.costs(audio_s)
        call = Call(
            path,
            {"content-type": headers["content-type"], REQUEST_ID_HEADER: outgoing.request_id},
            upload.tape,
            Wish(request.model, request.language, audio_s),
        )
        deadline = self._deadline(upload)
        if upload.utterance.is_glance:
            glance = await self._door.exchange.glance(call, deadline=deadline)
            if glance is None:
                raise NoIdleSlot
            await outgoing.answer(glance)
            return
        async with self._door.exchange.exchange(call, deadline=deadline) as answer:
            upload.charge(answer)
            await outgoing.answer(answer)

    def _deadline(self, upload: "_Upload") -> Deadline:
        """The caller's own deadline; else the default, plus what a recording may last and the upload may take."""
        if upload.given_s is not None:
            return Deadline.after(upload.given_s)
        settings, most_s = self._door.settings, upload.most_s()
        limit_s = settings.deadline_seconds + (most_s if most_s > RECORDING_S else 0.0)
        return Deadline.after(
            limit_s if upload.tape.is_complete else limit_s + settings.gateway_upload_seconds
        )

    async def _refused(self, error: EverwarmError, outgoing: "_Outgoing") -> None:
        if isinstance(error, CapacityError):
            self._door.refusals.add(1, {"reason": http_error(error).code})
        if isinstance(error, Unauthorized) and outgoing.model:
            # It was our token that a pod did not take; the caller's key was fine.
            error = token_refused()
        await outgoing.error(error)

    def _account(self, outgoing: "_Outgoing") -> None:
        took_s = outgoing.seconds()
        self._door.durations.record(
            took_s, {"http.route": self._route, "http.response.status_code": outgoing.status}
        )
        log.info(
            "request.answered",
            route=self._route,
            caller=outgoing.caller,
            model=outgoing.model,
            status=outgoing.status,
            pod=outgoing.pod,
            attempts=outgoing.attempts,
            seconds=round(took_s, 4),
        )


@dataclass(frozen=True, slots=True)
class _Upload:
    """What comes in with one request: its body, and whose place and seconds it takes.

    form: None for raw samples; given_s: the caller's own deadline.
    """

    tape: BodyTape
    form: FormHead | None
    utterance: Utterance
    given_s: float | None

    def audio_s(self) -> float:
        """Seconds of audio, as well as they are known by now: exact for whole raw samples and WAV files."""
        size = self.tape.size
        if self.form is not None:
            return guessed_s(self.form.file_head, size)
        return AUDIO_PRIOR_S if size is None else size / PCM_BYTES_PER_S

    def most_s(self) -> float:
        """Seconds that it can hardly exceed."""
        return self.audio_s() if self.form is None else longest_s(self.form.file_head, self.tape.size)

    def charge(self, answer: Answer) -> None:
        """Take from the caller what *answer* was worth: nothing for an error, else what it tells, else what is known."""
        if not self.utterance.caller.is_metered:
            return
        told_s = None if self.form is None else _told_s(answer)
        audio_s = self.audio_s() if told_s is None else told_s
        self.utterance.costs(0.0 if answer.status >= 400 else audio_s)


class _Outgoing:
    """The one answer of a request: whoever is first begins it."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._began = time.perf_counter()
        self._has_started = False
        self._has_ended = False
        self.request_id: Final = request_id
        self.status = 500
        self.caller = ""
        self.model = ""
        self.pod = ""
        self.attempts = 0

    def seconds(self) -> float:
        """Since the request came in."""
        return time.perf_counter() - self._began

    def is_left(self) -> None:
        """The caller went away; if that was after the answer, nothing has happened."""
        if not self._has_ended:
            self.status = CALLER_LEFT

    async def answer(self, answer: Answer) -> None:
        """Hand on what a pod has said."""
        self.pod, self.attempts = answer.pod, answer.attempts
        headers = {
            name.lower(): value
            for name, value in answer.headers.items()
            if name.lower() in _PASSED_ON or name.lower().startswith("x-everwarm-")
        }
        headers[ATTEMPTS_HEADER] = str(answer.attempts)
        timings = [*answer.headers.getall("server-timing", []), f"gateway;dur={self.seconds() * 1000:.1f}"]
        headers["server-timing"] = ", ".join(timings)
        if answer.stream is None:
            await self._whole(answer.status, headers, answer.body or b"")
            return
        await self._start(answer.status, headers)
        async for piece in answer.stream:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._end()

    async def error(self, error: EverwarmError) -> None:
        """Tell *error*; in the middle of an event stream as an event, which OpenAI's clients raise."""
        if self._has_ended:
            return
        if self._has_started:
            event = f"data: {json.dumps(error_body(error))}\n\n".encode()
            await self._send({"type": "http.response.body", "body": event, "more_body": True})
            await self._end()
            return
        headers = {"content-type": "application/json", **error_headers(error)}
        await self._whole(http_error(error).status, headers, error_json(error))

    async def _whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        await self._start(status, {**headers, "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": body})
        self._has_ended = True

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self._has_started = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})
        self._has_ended = True


async def _record(receive: Receive, tape: BodyTape, form: FormHead | None, limit_s: float) -> None:
    """Record the body, however it ends; then wait until the caller leaves and raise _CallerLeft.

    form: read along until it is decisive. limit_s: seconds the body may take.
    """
    try:
        async with asyncio.timeout(limit_s):
            await _record_all(receive, tape, form)
    except TimeoutError:
        tape.fail(UploadTooSlow(limit_s))
    except EverwarmError as error:
        tape.fail(error)
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _CallerLeft


async def _record_all(receive: Receive, tape: BodyTape, form: FormHead | None) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _CallerLeft
        if piece := message.get("body", b""):
            if form is not None and not form.is_decisive:
                form.feed(piece)
            tape.append(piece)
        if not message.get("more_body", False):
            if form is not None:
                form.ensure_decisive()
            tape.finish()
            return


async def _asked(
    tape: BodyTape, form: FormHead | None, task: Task | None, query: bytes
) -> TranscriptionRequest:
    """The request as far as routing needs it, as soon as it is known. Raises what is wrong with it or with the body."""
    if form is None or task is None:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        return parse_transcribe_query(fields)
    while not form.is_decisive:
        if tape.error is not None:
            raise tape.error
        await tape.grew()
    if form.is_complete:
        return parse_transcription_fields(form.fields, task=task)
    # The rest may still come after the file; how fields fit together is for the pod to judge.
    return parse_transcription_fields([f for f in form.fields if f[0] in ("model", "language")], task=task)


def _told_s(answer: Answer) -> float | None:
    """Seconds of audio in a JSON answer: verbose_json's `duration`, json's `usage`, whole seconds rounded up."""
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    if not is_json or answer.body is None or len(answer.body) > MAX_TOLD_BYTES:
        return None
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    usage = document.get("usage")
    for told in (document.get("duration"), usage.get("seconds") if isinstance(usage, dict) else None):
        if isinstance(told, int | float) and 0 <= told < math.inf:
            return float(told)
    return None


def _expected_form(content_type: str, task: Task | None) -> FormHead | None:
    """The form to be read; None for raw samples, of which nothing needs reading and whose rate is the pod's business."""
    if task is not None:
        return FormHead(content_type)
    if not content_type:
        raise InvalidParameter("content-type", f"missing; send raw samples as {PCM_TYPE!r}")
    return None


def _declared_size(headers: Mapping[str, str], limit_bytes: int) -> int | None:
    """The body's length as declared; raises UploadTooLarge when even that is too much."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequest("content-length is no number")
    if len(text) > 15 or int(text) > limit_bytes:
        raise UploadTooLarge(limit_bytes)
    return int(text)


def _given_deadline_s(headers: Mapping[str, str]) -> float | None:
    """The caller's own deadline in seconds; raises InvalidParameter when it is no number of milliseconds."""
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    return parse_deadline_s(text)
