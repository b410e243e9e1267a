"""The pod's first requests are its own: each way in and out, once, through the whole HTTP application.

The engine is warm by then; what is left are the code paths around it (multipart, raw samples, events, rendering,
metrics), whose first run costs tens of milliseconds that the first caller should not pay. Runs in process, so it
needs no port, and is counted in no metric.
"""

import asyncio
import io
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from starlette.types import ASGIApp, Message

from everwarm_core.errors import WarmupFailed
from everwarm_core.openai_errors import error_from_response
from everwarm_core.requests import TranscriptionRequest, transcribe_query
from everwarm_stt.audio import SAMPLE_RATE, decode_audio
from everwarm_stt.prewarm import FEW_WORDS
from everwarm_stt.server.edge import mark_rehearsal

# A caller that samples nothing: whoever looks for a decode in the traces means one of a real utterance.
UNTRACED: Final = b"00-0000000000000000000000000000e4e4-000000000000e4e4-00"
BOUNDARY: Final = "everwarm-rehearsal"


@dataclass(frozen=True, slots=True)
class Scene:
    """One request of the rehearsal."""

    path: str
    query: str
    content_type: str
    body: bytes


async def rehearse(app: ASGIApp, *, model: str, language: str, speech: bytes, token: str | None) -> None:
    """Send *app* one request of each kind; raises WarmupFailed when one is not answered 200.

    speech: an audio file; token: the internal token, where one is asked for.
    """
    for scene in _scenes(model, language, speech):
        status, body = await _play(app, scene, token)
        if status != 200:
            reason = error_from_response(status, body, {})
            raise WarmupFailed(model, f"its own request to {scene.path} was answered {status}: {reason}")


def _scenes(model: str, language: str, speech: bytes) -> Iterator[Scene]:
    samples = decode_audio(speech, limit_s=60.0)[:FEW_WORDS]
    pcm = (samples * 32767).astype("<i2").tobytes()
    request = TranscriptionRequest(model=model, language=language)
    yield Scene("/v1/transcribe", urlencode(transcribe_query(request)), "audio/pcm;rate=16000", pcm)
    fields = [("model", model), ("language", language)]
    for further in ([("response_format", "json")], [("stream", "true")]):
        form = _multipart([*fields, *further], _wav(pcm))
        yield Scene("/v1/audio/transcriptions", "", f"multipart/form-data; boundary={BOUNDARY}", form)


async def _play(app: ASGIApp, scene: Scene, token: str | None) -> tuple[int, bytes]:
    """Status and body of the answer to *scene*."""
    headers = [
        (b"content-type", scene.content_type.encode()),
        (b"content-length", str(len(scene.body)).encode()),
        (b"traceparent", UNTRACED),
    ]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode("latin-1")))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": scene.path,
        "raw_path": scene.path.encode(),
        "query_string": scene.query.encode(),
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
    }
    mark_rehearsal(scope)
    unread = [scene.body]
    never_leaves = asyncio.Event()
    answered: list[Message] = []

    async def receive() -> Message:
        if not unread:
            await never_leaves.wait()
        return {"type": "http.request", "body": unread.pop(), "more_body": False}

    async def send(message: Message) -> None:
        answered.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in answered)
    return int(answered[0]["status"]), body


def _wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(pcm)
    return file.getvalue()


def _multipart(fields: Sequence[tuple[str, str]], file: bytes) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="speech.wav"\r\n\r\n'
    return b"".join([*parts, head.encode(), file, f"\r\n--{BOUNDARY}--\r\n".encode()])
