"""One client's realtime session: OpenAI's events on one side, a `Listener` on the other.

The reader does one event after the other, so a client that sends faster than its audio can be judged, or than its
utterances are transcribed, is slowed down by its own connection. `error` events tell a client's mistakes and nothing
else, because LiveKit's plugin and Pipecat take any of them as the end; an utterance that cannot be transcribed is a `failed`
one. Nothing is made for a session that has sent no audio yet: idle ones cost a few kilobytes.

When the place shuts down a session goes on until nobody speaks and every transcript is out, and is then closed with
1012, which asks clients to come again. What was sent by then may still be on its way, so that is decided a moment later:
stock clients do not say again what they have said.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from secrets import token_hex
from typing import Final, Protocol

import numpy as np
import structlog

from everwarm_core.errors import (
    EverwarmError,
    InvalidEvent,
    InvalidRequest,
    NothingToCommit,
    SessionOver,
    UtteranceTooLong,
)
from everwarm_core.groups import first_of
from everwarm_core.realtime.audio import AudioDecoder, Samples
from everwarm_core.realtime.config import SessionConfig
from everwarm_core.realtime.events import (
    Append,
    BetaSessionUpdate,
    Clear,
    ClientEvent,
    Commit,
    SessionUpdate,
    completed_event,
    decode_audio,
    delta_event,
    error_event,
    failed_event,
    item_of,
    parse_event,
    server_event,
)
from everwarm_core.realtime.listener import (
    Committed,
    Completed,
    Failed,
    Foreseen,
    Habits,
    Happening,
    Interim,
    Listener,
    SpeechStarted,
    SpeechStopped,
    Transcriber,
    Wish,
)
from everwarm_core.realtime.speech import shared_network

SEND_TIMEOUT_S: Final = 10.0
"""A client that does not read for so long, with the connection's buffers full, is gone or stuck."""
ON_ITS_WAY_S: Final = 0.25
"""Audio that a client had sent when the place began to shut down, or when a final was told, is here by then."""
ERRORS_IN_A_ROW: Final = 16
"""Wrong events after which a client is not worth the answers any more."""
WAITING_AUDIO_BYTES: Final = 1 << 20
"""Audio that may come before the model is named: 20 s of pcm."""

NORMAL: Final = 1000
POLICY: Final = 1008
DEFECT: Final = 1011
RESTART: Final = 1012

log = structlog.stdlib.get_logger(__name__)


class SocketClosed(Exception):
    """The client went away."""


class Socket(Protocol):
    """A WebSocket that was accepted."""

    async def receive(self) -> str:
        """The next text message. Raises SocketClosed, and InvalidEvent for a binary one."""

    async def send(self, text: str) -> None:
        """Send *text*; waits while the client does not read. Raises SocketClosed."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye; does nothing when the client is gone."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """idle_s: longest silence of a client; length_s: longest session; both in seconds."""

    idle_s: float = 900.0
    length_s: float = 3600.0


class _Goodbye(Exception):
    """The session ends, from our side."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Session:
    """One session over *socket*, whose utterances *transcriber* transcribes.

    model: what the client named when it connected.
    """

    def __init__(
        self,
        socket: Socket,
        transcriber: Transcriber,
        *,
        model: str | None,
        habits: Habits,
        limits: SessionLimits,
    ) -> None:
        self.id: Final = f"sess_{token_hex(10)}"
        self._socket = socket
        self._transcriber = transcriber
        self._habits = habits
        self._limits = limits
        self._config = SessionConfig(model=model)
        self._stack = AsyncExitStack()
        self._listener: Listener | None = None
        self._decoder: AudioDecoder | None = None
        self._waiting = bytearray()
        """Audio that came before the model was named."""
        self._errors = 0
        self._is_too_long = False
        self._is_draining = False
        self._stays_until = 0.0
        """While draining: what may be on its way is waited for."""
        self._patience: asyncio.Timeout | None = None
        """Around the wait for the next event."""
        self._ends_at = 0.0
        self._expires_at = 0

    async def run(self) -> None:
        """Serve the client until it leaves, a limit is reached, or the place drains."""
        self._ends_at = asyncio.get_running_loop().time() + self._limits.length_s
        self._expires_at = int(time.time() + self._limits.length_s)
        try:
            async with self._stack:
                await self._tell_session("session.created")
                while True:
                    await self._step()
        except* SocketClosed:
            pass
        except* _Goodbye as ending:
            goodbye = first_of(ending)
            assert isinstance(goodbye, _Goodbye)
            await self._socket.close(goodbye.code, goodbye.reason)
        except* Exception:  # the edge of a session: the client learns that it is over, the log why
            log.exception("session.failed", session=self.id)
            await self._socket.close(DEFECT, "an internal error; the log tells more")

    def drain(self) -> None:
        """End as soon as nobody speaks and every transcript is out."""
        self._is_draining = True
        self._stay_a_moment()
        self._leave_if_due()

    async def _step(self) -> None:
        try:
            await self._do(parse_event(await self._next()))
            self._errors = 0
        except InvalidRequest as error:
            self._errors += 1
            await self._send(error_event(error))
            if self._errors >= ERRORS_IN_A_ROW:
                raise _Goodbye(POLICY, "too many events that are wrong") from error

    async def _next(self) -> str:
        self._leave_if_due()
        loop = asyncio.get_running_loop()
        until = min(loop.time() + self._limits.idle_s, self._ends_at)
        try:
            async with asyncio.timeout_at(self._stays_until if self._may_leave else until) as self._patience:
                return await self._socket.receive()
        except TimeoutError:
            if self._may_leave:
                raise _Goodbye(RESTART, "shutting down; connect again") from None
            is_old = loop.time() >= self._ends_at
            what = (
                f"it lasted {self._limits.length_s:g} s"
                if is_old
                else f"nothing was sent for {self._limits.idle_s:g} s"
            )
            await self._send(error_event(SessionOver(what)))
            raise _Goodbye(NORMAL, what) from None
        finally:
            self._patience = None

    @property
    def _may_leave(self) -> bool:
        return self._is_draining and not (self._listener and self._listener.is_busy)

    def _leave_if_due(self) -> None:
        if self._may_leave and self._patience is not None:
            self._patience.reschedule(self._stays_until)

    def _stay_a_moment(self) -> None:
        self._stays_until = asyncio.get_running_loop().time() + ON_ITS_WAY_S

    async def _do(self, event: ClientEvent) -> None:
        match event:
            case Append():
                await self._append(event)
            case Commit():
                await self._commit()
            case Clear():
                if self._listener:
                    self._flush()
                    self._listener.clear()
                await self._send(server_event("input_audio_buffer.cleared"))
            case SessionUpdate():
                await self._update(event)
                await self._tell_session("session.updated")
            case BetaSessionUpdate():
                await self._update(event)
                shown = self._config.beta(self.id, expires_at=self._expires_at)
                await self._send(server_event("transcription_session.updated", session=shown))

    async def _update(self, event: SessionUpdate | BetaSessionUpdate) -> None:
        try:
            config = self._config.updated(event.session)
            if config.model is not None:
                self._transcriber.check(config.wish())
        except EverwarmError as error:  # the client's own words are wrong, whatever class says so
            raise InvalidEvent(str(error), event_id=event.event_id, param=error.param) from error
        if config.form is not self._config.form:
            self._decoder = None
        self._config = config
        if self._listener:
            self._listener.follow(config.endpointing)
        if config.model is not None and self._waiting:
            waiting, self._waiting = bytes(self._waiting), bytearray()
            await self._hear(waiting)

    async def _append(self, event: Append) -> None:
        audio = decode_audio(event)
        if self._config.model is not None:
            await self._hear(audio)
            return
        if len(self._waiting) + len(audio) > WAITING_AUDIO_BYTES:
            raise InvalidEvent(
                "there is much audio and no model yet; name one in session.update", event_id=event.event_id
            )
        self._waiting += audio

    async def _hear(self, audio: bytes) -> None:
        if self._listener is None:
            await asyncio.to_thread(shared_network)
            self._listener = await self._stack.enter_async_context(
                Listener(
                    self._transcriber,
                    self._tell,
                    endpointing=self._config.endpointing,
                    wish=self._wish,
                    habits=self._habits,
                )
            )
        if self._decoder is None:
            self._decoder = AudioDecoder(self._config.form)
        try:
            await self._listener.hear(self._decoder.decode(audio))
        except UtteranceTooLong:
            if not self._is_too_long:  # told once, for the client may be far ahead with its sending
                self._is_too_long = True
                raise

    async def _commit(self) -> None:
        self._wish()  # says so when no model is known
        if self._listener is None:
            raise NothingToCommit
        await self._listener.commit(self._flush())

    def _flush(self) -> Samples:
        """What the decoder still holds of the audio so far, which ends here."""
        self._is_too_long = False
        return self._decoder.flush() if self._decoder else np.empty(0, np.int16)

    def _wish(self) -> Wish:
        return self._config.wish()

    async def _tell(self, happening: Happening) -> None:
        item_id = happening.item_id
        match happening:
            case SpeechStarted(at_ms=at_ms) if self._detects:
                await self._send(
                    server_event("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=at_ms)
                )
            case SpeechStopped(at_ms=at_ms):
                await self._send(
                    server_event("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=at_ms)
                )
            case Committed(previous_item_id=previous):
                for kind, fields in (
                    ("input_audio_buffer.committed", {"item_id": item_id}),
                    ("conversation.item.added", {"item": item_of(item_id)}),
                    ("conversation.item.done", {"item": item_of(item_id)}),
                ):
                    await self._send(server_event(kind, previous_item_id=previous, **fields))
            case Interim(stable=stable) if stable:
                await self._send(delta_event(item_id, stable))
            case Completed(transcript=transcript, rest=rest):
                if rest:
                    await self._send(delta_event(item_id, rest))
                await self._send(completed_event(item_id, transcript))
            case Failed(error=error):
                await self._send(failed_event(item_id, error))
            case SpeechStarted() | Interim() | Foreseen():
                pass
        if isinstance(happening, Completed | Failed):
            self._stay_a_moment()
            # The listener counts the utterance as done once this returns.
            asyncio.get_running_loop().call_soon(self._leave_if_due)

    @property
    def _detects(self) -> bool:
        """Whether the client is told of what the detector hears."""
        return self._config.endpointing.silence_ms is not None

    async def _tell_session(self, kind: str) -> None:
        await self._send(server_event(kind, session=self._config.ga(self.id, expires_at=self._expires_at)))

    async def _send(self, event: str) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._socket.send(event)
        except TimeoutError as error:
            log.info("session.stuck", session=self.id)
            raise SocketClosed("the client does not read") from error
