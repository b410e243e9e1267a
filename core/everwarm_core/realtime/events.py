"""The events of OpenAI's realtime protocol that transcription sessions use, both ways.

Incoming ones are validated at this border and nowhere else; what is wrong becomes `InvalidEvent`, which the session
answers with an `error` event that names the client's own. Outgoing ones are plain JSON, in the shapes of
https://platform.openai.com/docs/api-reference/realtime-server-events (validated in tests against `openai.types.realtime`).
"""

import base64
import binascii
import json
from secrets import token_hex
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from everwarm_core.errors import EverwarmError, InvalidEvent, http_error
from everwarm_core.openai_errors import error_body
from everwarm_core.realtime.config import BetaSession, GaSession
from everwarm_core.transcript import Transcript, usage_of

MAX_EVENT_CHARS: Final = 1 << 21
"""15 MiB upstream. This is half a minute of pcm in base64: an event must not hold the loop for long."""


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    event_id: Annotated[str, Field(max_length=512)] | None = None


class SessionUpdate(_Event):
    """Change the session, in GA's words."""

    type: Literal["session.update"]
    session: GaSession


class BetaSessionUpdate(_Event):
    """Change the session, in the beta's words."""

    type: Literal["transcription_session.update"]
    session: BetaSession


class Append(_Event):
    """More audio, in base64."""

    type: Literal["input_audio_buffer.append"]
    audio: str


class Commit(_Event):
    """The utterance ends here."""

    type: Literal["input_audio_buffer.commit"]


class Clear(_Event):
    """Forget the audio since the last utterance."""

    type: Literal["input_audio_buffer.clear"]


ClientEvent = SessionUpdate | BetaSessionUpdate | Append | Commit | Clear

_CLIENT_EVENT: Final = TypeAdapter[ClientEvent](Annotated[ClientEvent, Field(discriminator="type")])
_TYPES: Final = frozenset(
    {
        "session.update", "transcription_session.update", "input_audio_buffer.append",
        "input_audio_buffer.commit", "input_audio_buffer.clear",
    }
)  # fmt: skip


def parse_event(text: str) -> ClientEvent:
    """The event in *text*; raises InvalidEvent."""
    if len(text) > MAX_EVENT_CHARS:
        raise InvalidEvent(
            f"the event is longer than {MAX_EVENT_CHARS} characters; send less audio at a time"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("the message is no JSON") from error
    if not isinstance(document, dict):
        raise InvalidEvent("the message is no JSON object")
    given = document.get("event_id")
    event_id = given if isinstance(given, str) and len(given) <= 512 else None
    kind = document.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise InvalidEvent(
            f"type {str(kind)[:80]!r} is no event of a transcription session; known: {', '.join(sorted(_TYPES))}",
            event_id=event_id,
            param="type",
        )
    try:
        return _CLIENT_EVENT.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"] if part != kind)
        raise InvalidEvent(f"{path}: {first['msg']}", event_id=event_id, param=path) from error


def decode_audio(event: Append) -> bytes:
    """The bytes of *event*; raises InvalidEvent."""
    try:
        return base64.b64decode(event.audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEvent("audio: is no base64", event_id=event.event_id, param="audio") from error


def server_event(kind: str, **fields: object) -> str:
    """An event of type *kind* as JSON."""
    return json.dumps({"type": kind, "event_id": f"event_{token_hex(10)}", **fields})


def error_event(error: EverwarmError) -> str:
    """`error`: what the client did wrong. Trouble of ours is never told this way, since clients take it as the end."""
    told: dict[str, Any] = {**error_body(error)["error"]}
    told["event_id"] = error.event_id if isinstance(error, InvalidEvent) else None
    return server_event("error", error=told)


def item_of(item_id: str) -> dict[str, Any]:
    """The conversation item of an utterance, whose transcript comes later."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }


def delta_event(item_id: str, delta: str) -> str:
    """More of the transcript, which will not change."""
    return server_event(
        "conversation.item.input_audio_transcription.delta", item_id=item_id, content_index=0, delta=delta
    )


def completed_event(item_id: str, transcript: Transcript) -> str:
    """The final transcript."""
    return server_event(
        "conversation.item.input_audio_transcription.completed",
        item_id=item_id,
        content_index=0,
        transcript=transcript.text,
        languages=[{"code": transcript.language}],
        usage=usage_of(transcript.duration).model_dump(),
    )


def failed_event(item_id: str, error: EverwarmError) -> str:
    """There will be no transcript."""
    wire = http_error(error)
    told = {"type": wire.type, "code": wire.code, "message": str(error), "param": error.param}
    return server_event(
        "conversation.item.input_audio_transcription.failed", item_id=item_id, content_index=0, error=told
    )
