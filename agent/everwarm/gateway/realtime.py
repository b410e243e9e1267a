"""`GET /v1/realtime`: the gateway listens, and any warm pod transcribes.

A session is not tied to a pod: each utterance is sent when it is complete, by the same dispatch as a file, with its
retries, its ejections and its deadline. So the audio is here until its final is there, and a pod that dies, hangs or
drains in the middle of a session costs one utterance some time. A key's limits count utterances, as they do for files;
glances, which take idle slots only, are free until one is the final.
"""

from dataclasses import dataclass

from everwarm.audio_input import Pcm
from everwarm.calls import GLANCE_S, call_of, recording_s, transcript_of
from everwarm.deadline import Deadline
from everwarm.dispatch import Call, Exchange
from everwarm.gateway.limits import Caller
from everwarm.gateway.relay import Door, token_refused
from everwarm_core import telemetry
from everwarm_core.errors import Unauthorized
from everwarm_core.http.realtime import RealtimeEndpoint
from everwarm_core.http.websocket import Handshake
from everwarm_core.keys import ensure_knows
from everwarm_core.realtime.listener import Transcriber, Utterance, Wish
from everwarm_core.requests import TranscriptionRequest
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_core.transcript import Transcript


@dataclass(frozen=True, slots=True)
class AnyPod(Transcriber):
    """A `Transcriber` that has *caller*'s utterances transcribed by way of *exchange*, each within *deadline_s*."""

    exchange: Exchange
    caller: Caller
    deadline_s: float

    def check(self, wish: Wish) -> None:
        """See Transcriber: what no pod of that name could do. Whether there are pods may change any moment."""
        ensure_knows(wish.model, wish.language)

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """See Transcriber."""
        seconds, wish = utterance.seconds, utterance.wish
        deadline = Deadline.after(self.deadline_s + recording_s(Pcm(utterance.pcm)))
        attributes: dict[str, str | float] = {
            Attribute.MODEL: wish.model,
            Attribute.LANGUAGE: wish.language or "",
            Attribute.AUDIO_SECONDS: seconds,
            Attribute.REQUEST_ID: utterance.item_id,
        }
        with (
            telemetry.span(SpanName.TRANSCRIBE, attributes=attributes) as span,
            self.caller.utterance(seconds),
        ):
            try:
                async with self.exchange.exchange(_call(utterance), deadline=deadline) as answer:
                    span.set_attribute(Attribute.POD, answer.pod)
                    return transcript_of(answer)
            except Unauthorized as error:
                raise token_refused() from error

    async def glance(self, utterance: Utterance) -> Transcript | None:
        """See Transcriber."""
        answer = await self.exchange.glance(_call(utterance), deadline=Deadline.after(GLANCE_S))
        return None if answer is None else transcript_of(answer)

    def adopt(self, utterance: Utterance) -> None:
        """See Transcriber: an utterance like any other for the caller's limits."""
        with self.caller.utterance(utterance.seconds):
            return


def realtime_endpoint(door: Door) -> RealtimeEndpoint:
    """The application behind the path."""

    def welcome(handshake: Handshake) -> Transcriber:
        caller = door.caller(handshake.authorization or "")
        return AnyPod(door.exchange, caller, door.settings.deadline_seconds)

    return RealtimeEndpoint(door.sessions, welcome)


def _call(utterance: Utterance) -> Call:
    wish = utterance.wish
    request = TranscriptionRequest(wish.model, language=wish.language, prompt=wish.prompt)
    return call_of(Pcm(utterance.pcm), request, utterance.item_id)
