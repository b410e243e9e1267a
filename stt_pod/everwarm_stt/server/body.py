"""What strangers send, read with an eye on the clock and on the bytes, and never before admission.

Nothing in here believes a header: `content-length` only allows an early refusal, the bytes that really come are
counted. Multipart is parsed while it arrives, by Starlette's parser; files above 1 MiB go to a temporary file, so a
full queue of large uploads costs disk, not memory.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from everwarm_core.errors import (
    DeadlineExceeded,
    InvalidAudio,
    InvalidParameter,
    InvalidRequest,
    UploadTooLarge,
    UploadTooSlow,
)
from everwarm_core.http.headers import DEADLINE_HEADER, parse_deadline_s
from everwarm_stt.turns import Deadline

MAX_FIELDS: Final = 64  # OpenAI's API knows about ten
MAX_FIELD_BYTES: Final = 65_536  # the longest prompt, in the widest characters
FORM_OVERHEAD_BYTES: Final = 1 << 20  # fields, part headers and boundaries beside the file

DEFAULT_PCM_RATE_HZ: Final = 16_000


class FormParser(MultiPartParser):
    """Starlette's parser, which takes a form that breaks off for a short one; this knows."""

    has_ended = False

    def on_end(self) -> None:
        """The last boundary has come."""
        self.has_ended = True


class ClientLeft(Exception):
    """The connection is gone, so there is nobody to tell anything."""


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form: its text fields in order, and the audio as a seekable file."""

    fields: tuple[tuple[str, str], ...]
    file: BinaryIO


def deadline_of(request: Request) -> Deadline | None:
    """When the caller wants to be told no rather than to wait on; raises InvalidParameter."""
    value = request.headers.get(DEADLINE_HEADER)
    if value is None:
        return None
    seconds = parse_deadline_s(value)
    return Deadline(seconds, asyncio.get_running_loop().time() + seconds)


def declared_length(request: Request) -> int | None:
    """The `content-length`, as far as it is a number; None when there is none."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None


def refuse_declared_length(request: Request, *, limit_bytes: int, overhead_bytes: int = 0) -> None:
    """Raise UploadTooLarge when the request says itself that its body is too large."""
    length = declared_length(request)
    if length is not None and length > limit_bytes + overhead_bytes:
        raise UploadTooLarge(limit_bytes)


def pcm_rate(request: Request) -> int:
    """Samples per second by `content-type: audio/pcm;rate=N`; raises InvalidParameter for any other type."""
    value = request.headers.get("content-type", "")
    kind, options = parse_options_header(value)
    if kind.lower() != b"audio/pcm":
        raise InvalidParameter("content-type", f"{value[:80]!r} is not 'audio/pcm;rate=16000'")
    if options.get(b"channels", b"1") != b"1":
        raise InvalidParameter("content-type", "send one channel of s16le samples")
    rate = options.get(b"rate", str(DEFAULT_PCM_RATE_HZ).encode())
    if not rate.isdigit() or len(rate) > 6:
        raise InvalidParameter("content-type", "rate is no number of samples per second")
    return int(rate)


@asynccontextmanager
async def in_time(deadline: Deadline | None, limit_s: float) -> AsyncIterator[None]:
    """Inside, the body must have arrived: raises UploadTooSlow after *limit_s*, DeadlineExceeded if that is sooner."""
    ends_at = asyncio.get_running_loop().time() + limit_s
    is_deadline = deadline is not None and deadline.at < ends_at
    try:
        async with asyncio.timeout_at(deadline.at if deadline and is_deadline else ends_at):
            yield
    except TimeoutError as error:
        if deadline and is_deadline:
            raise DeadlineExceeded(deadline_s=deadline.seconds, waiting_for="the body") from error
        raise UploadTooSlow(limit_s) from error


async def read_bytes(request: Request, *, limit_bytes: int) -> bytes:
    """The whole body; raises UploadTooLarge as soon as it is longer, InvalidAudio when it is empty, or ClientLeft."""
    body = bytearray()
    async for chunk in _counted(request, limit_bytes=limit_bytes, allowed_bytes=limit_bytes):
        body += chunk
    if not body:
        raise InvalidAudio("the body is empty; send s16le samples")
    return bytes(body)


@asynccontextmanager
async def open_form(request: Request, *, limit_bytes: int) -> AsyncIterator[Form]:
    """The multipart form of *request*, its files closed at the end.

    limit_bytes: of the audio file. Raises UploadTooLarge, InvalidParameter (no such form, no audio), InvalidRequest
    (broken multipart, too many fields) or ClientLeft.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind.lower() != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidParameter("content-type", "send multipart/form-data with a boundary")
    chunks = _counted(request, limit_bytes=limit_bytes, allowed_bytes=limit_bytes + FORM_OVERHEAD_BYTES)

    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not parser.has_ended:  # raised in here, as only then does the parser close the file it has begun
            raise MultiPartException("it breaks off")

    parser = FormParser(
        request.headers, whole(), max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(f"the multipart form cannot be read: {error.message}") from error
    try:
        fields = tuple((name, value) for name, value in form.multi_items() if isinstance(value, str))
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise InvalidParameter("file", "missing; send the audio as a part with a file name")
        if upload.size is not None and upload.size > limit_bytes:
            raise UploadTooLarge(limit_bytes)
        if not upload.size:
            raise InvalidAudio("the file is empty")
        yield Form(fields, upload.file)
    finally:
        await form.close()


async def _counted(request: Request, *, limit_bytes: int, allowed_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes; *limit_bytes* is what the refusal names once *allowed_bytes* are passed."""
    count = 0
    try:
        async for chunk in request.stream():
            count += len(chunk)
            if count > allowed_bytes:
                raise UploadTooLarge(limit_bytes)
            yield chunk
    except ClientDisconnect as error:
        raise ClientLeft from error
