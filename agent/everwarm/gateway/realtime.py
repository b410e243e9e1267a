"""`GET /v1/realtime`: the gateway listens, and any warm pod transcribes.

A session is not tied to a pod: each utterance is sent when it is complete, by the same dispatch as a file, with its
retries, its ejections and its deadline. So the audio is here until its final is there, and a pod that dies, hangs or
drains in the middle of a session costs one utterance some time. A key's limits count utterances, as they do for files;
glances, which take idle slots only, are free until one is the final.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.types import Receive, Scope, Send

from everwarm.audio_input import PCM_TYPE
from everwarm.client import GLANCE_S, UTTERANCE_S, transcript_of
from everwarm.deadline import Deadline
from everwarm.dispatch import BytesBody, Call, Exchange
from everwarm.gateway.limits import Caller
from everwarm.gateway.relay import Door
from everwarm.routing.router import Wish as RouterWish
from everwarm_core import telemetry
from everwarm_core.errors import EverwarmError, UnsupportedLanguage
from everwarm_core.http.headers import REQUEST_ID_HEADER
from everwarm_core.http.websocket import AsgiSocket, Handshake
from everwarm_core.keys import is_english_only
from everwarm_core.languages import AUTO
from everwarm_core.realtime.listener import Transcriber, Utterance, Wish
from everwarm_core.realtime.session import SocketClosed
from everwarm_core.requests import TranscriptionRequest, transcribe_query
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_core.transcript import Transcript


@dataclass(frozen=True, slots=True)
class AnyPod(Transcriber):
    """A `Transcriber` that has *caller*'s utterances transcribed by way of *exchange*, each within *deadline_s*."""

    exchange: Exchange
    caller: Caller
    deadline_s: float

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """See Transcriber."""
        seconds, wish = utterance.seconds, utterance.wish
        deadline = Deadline.after(self.deadline_s + (seconds if seconds > UTTERANCE_S else 0.0))
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
            async with self.exchange.exchange(_call(utterance), deadline=deadline) as answer:
                span.set_attribute(Attribute.POD, answer.pod)
                return transcript_of(answer)

    async def glance(self, utterance: Utterance) -> Transcript | None:
        """See Transcriber."""
        answer = await self.exchange.glance(_call(utterance), deadline=Deadline.after(GLANCE_S))
        return None if answer is None else transcript_of(answer)

    def adopt(self, utterance: Utterance) -> None:
        """See Transcriber: an utterance like any other for the caller's limits."""
        with self.caller.utterance(utterance.seconds):
            return


@dataclass(frozen=True, slots=True)
class Realtime:
    """The ASGI application behind the path."""

    door: Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection to its end."""
        handshake, socket = Handshake.of(scope), AsgiSocket(receive, send)
        try:
            try:
                caller = self.door.caller(handshake.authorization or "")
                self.door.sessions.ensure_room()
                if handshake.model is not None:
                    check(Wish(handshake.model))
            except EverwarmError as error:
                await socket.refuse(error, {})
                return
            await socket.accept({}, subprotocol=handshake.subprotocol)
            transcriber = AnyPod(self.door.exchange, caller, self.door.settings.deadline_seconds)
            await self.door.sessions.serve(socket, transcriber, model=handshake.model, check=check)
        except SocketClosed:
            return


def check(wish: Wish) -> None:
    """Raise UnsupportedLanguage for what no pod of that name could do; whether there are pods may change any moment."""
    if is_english_only(wish.model) and wish.language not in (None, AUTO, "en"):
        assert wish.language is not None
        raise UnsupportedLanguage(wish.language, model=wish.model)


def _call(utterance: Utterance) -> Call:
    wish = utterance.wish
    request = TranscriptionRequest(wish.model, language=wish.language, prompt=wish.prompt)
    return Call(
        f"/v1/transcribe?{urlencode(transcribe_query(request))}",
        {"content-type": PCM_TYPE, REQUEST_ID_HEADER: utterance.item_id},
        BytesBody(utterance.pcm),
        RouterWish(wish.model, wish.language, utterance.seconds),
    )
