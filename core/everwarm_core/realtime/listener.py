"""One stream of audio, cut into utterances, each transcribed: what happens is told as it happens.

While somebody speaks, the utterance so far is decoded every now and then, on a slot that nobody else needs, and what two
such glances agree on is told as stable. When a silence begins the utterance is decoded at once, before it is certain
that it is over (eager finalisation): if speech does not go on, the transcript is there when the end is. The samples of
that decode are those of the final one, so nothing differs but the time. If it cannot be had, the utterance is decoded
when it has ended, by whoever has a place until the deadline.

The audio of an utterance is kept until its final, and finals are told in the order in which people spoke, however long
one of them takes. Everything is bounded: the audio kept, the utterances unfinished (beyond them the reader waits, and
with it the sender), and the decodes under way, of which an unfinished utterance has one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from secrets import token_hex
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np

from everwarm_core import telemetry
from everwarm_core.errors import EverwarmError, InternalError, NothingToCommit, UtteranceTooLong
from everwarm_core.logs import library_logger
from everwarm_core.realtime.agreement import Agreement
from everwarm_core.realtime.audio import BYTES_PER_S, SAMPLE_RATE, Samples
from everwarm_core.realtime.endpoint import (
    CUT_AFTER_S,
    PAUSE_WINDOWS,
    Cut,
    Endpointer,
    Endpointing,
    Mark,
    Paused,
    Resumed,
    Started,
    Stopped,
)
from everwarm_core.realtime.speech import WINDOW, SpeechDetector
from everwarm_core.telemetry import Attribute
from everwarm_core.transcript import Transcript

UNFINISHED_UTTERANCES: Final = 4
"""Ended and not yet transcribed, per stream; one is usual, a second comes while a pod is being replaced."""
EARLY_PATIENCE_S: Final = 1.0
"""After the end of an utterance; an early decode that is not there by then may hang with its pod."""
MANUAL_PREFIX_MS: Final = 1000
"""Where the caller says when an utterance ends: kept before its first word, which the detector may have missed."""
SILENCE_KEPT_S: Final = 10.0
"""There too: what is transcribed of a stream in which no speech was heard."""
WINDOWS_A_TURN: Final = 16
"""Windows judged before other tasks get their turn, some 2 ms: a whole file may come in one piece."""

_NOTHING: Final = np.empty(0, np.int16)

log = library_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """Who is to transcribe, and how: a model's name, a Whisper code, `auto` or None, and words that may come up.

    word_timestamps: whether finals, those foreseen included, are to tell when each word was said.
    """

    model: str
    language: str | None = None
    prompt: str | None = None
    word_timestamps: bool = False


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is to be transcribed. pcm: s16le, 16 kHz, mono."""

    item_id: str
    pcm: bytes
    wish: Wish

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.pcm) / BYTES_PER_S


class Transcriber(Protocol):
    """Whoever turns utterances into transcripts; to be inherited from."""

    def check(self, wish: Wish) -> None:  # noqa: ARG002 - whoever knows what cannot be wants it
        """Raise EverwarmError for a *wish* that cannot come true, before anything is said."""
        return

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """The transcript, however many tries that takes; raises EverwarmError when the deadline has passed."""

    async def glance(self, utterance: Utterance) -> Transcript | None:
        """The same on a slot that is idle now; None when there is none, or when anything else is in the way."""

    def adopt(self, utterance: Utterance) -> None:  # noqa: ARG002 - whoever counts utterances wants it
        """What a glance gave is taken as the final of *utterance*, which nobody is asked for any more; raises EverwarmError
        where it may not be had.
        """
        return


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened to the utterance *item_id*. Times are milliseconds from the first sample of the stream."""

    item_id: str


@dataclass(frozen=True, slots=True)
class SpeechStarted(Happening):
    """Somebody began to speak; *at_ms* is where the utterance's audio begins."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped(Happening):
    """The speech ended at *at_ms*, some time ago."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Committed(Happening):
    """The utterance is complete; *previous_item_id* came before it."""

    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class Interim(Happening):
    """How the utterance reads so far; may change. stable: what was added to the part that will not."""

    text: str
    stable: str


@dataclass(frozen=True, slots=True)
class Foreseen(Happening):
    """What the final will be, should nobody speak on."""

    transcript: Transcript
    start_ms: int


@dataclass(frozen=True, slots=True)
class Completed(Happening):
    """The final transcript. rest: what is missing behind the stable parts told; the audio began at *start_ms*."""

    transcript: Transcript
    rest: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class Failed(Happening):
    """There will be no transcript."""

    error: EverwarmError


@dataclass(frozen=True, slots=True)
class Habits:
    """How a listener works. glance_s: new audio between two glances, 0 for none; limit_s: longest utterance that a caller
    may make by saying himself when it ends; is_eager: whether a pause is decoded before it is known to be the end.
    """

    glance_s: float = 0.5
    limit_s: float = 120.0
    is_eager: bool = True


@dataclass(slots=True, eq=False)
class _Item:
    """The utterance that is open. start: its first sample; attempt: the decode under way for it."""

    id: str
    start: int
    agreement: Agreement = field(default_factory=Agreement)
    glanced: int = 0
    attempt: "asyncio.Task[Transcript | None] | None" = None
    foreseen: "asyncio.Task[Transcript | None] | None" = None
    """The attempt that holds unless speech goes on."""


class Listener(AbstractAsyncContextManager["Listener"]):
    """Listens to one stream; a context manager around everything that runs for it. *tell* is awaited, one call at a time
    for each utterance; what it raises ends the listener.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        tell: Callable[[Happening], Awaitable[None]],
        *,
        endpointing: Endpointing,
        wish: Callable[[], Wish],
        habits: Habits | None = None,
    ) -> None:
        self._transcriber = transcriber
        self._tell = tell
        self._wish = wish
        self._habits = habits or Habits()
        self._detector = SpeechDetector()
        self._endpointer = Endpointer(endpointing)
        self._audio = bytearray()
        self._base = 0
        """Sample at which `_audio` begins."""
        self._judged = 0
        """Sample up to which the detector has listened."""
        self._closed = 0
        """Sample up to which the stream belongs to utterances that have ended."""
        self._item: _Item | None = None
        self._last_id: str | None = None
        self._last_told = asyncio.Event()
        self._last_told.set()
        self._room = asyncio.Semaphore(UNFINISHED_UTTERANCES)
        self._unfinished = 0
        self._tasks = asyncio.TaskGroup()
        self._final_duration = telemetry.histogram(telemetry.FINAL_DURATION)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._drop_attempt()
        await self._tasks.__aexit__(kind, error, where)

    @property
    def is_busy(self) -> bool:
        """Whether an utterance is open or has no transcript yet."""
        return self._item is not None or self._unfinished > 0

    def follow(self, endpointing: Endpointing) -> None:
        """Tell utterances apart by *endpointing* from now on."""
        self._endpointer.rules = endpointing

    async def hear(self, samples: Samples) -> None:
        """The next samples, int16 at 16 kHz. Returns when they were judged; waits while too many utterances are unfinished.

        Raises UtteranceTooLong, and hears nothing, while a caller that ends utterances himself does not.
        """
        if (
            self._is_manual
            and self._item
            and self._end - self._item.start > self._habits.limit_s * SAMPLE_RATE
        ):
            raise UtteranceTooLong(self._habits.limit_s)
        self._audio += samples.astype("<i2", copy=False).tobytes()
        count = 0
        while self._judged + WINDOW <= self._end:
            window = np.frombuffer(self._bytes(self._judged, self._judged + WINDOW), "<i2")
            self._judged += WINDOW
            for mark in self._endpointer.feed(self._detector.probability(window)):
                await self._act(mark)
            self._glance_if_due()
            count += 1
            if count % WINDOWS_A_TURN == 0:
                await asyncio.sleep(0)
        self._trim()

    async def commit(self, tail: Samples = _NOTHING) -> None:
        """The utterance ends here, behind *tail*, whatever the detector says. Raises NothingToCommit."""
        self._audio += tail.astype("<i2", copy=False).tobytes()
        if self._item is None:
            if self._end == self._base:
                raise NothingToCommit
            self._open(self._base)
        elif self._item.foreseen is None:
            self._drop_attempt()
        await self._close(self._end)
        self._forget()

    def clear(self) -> None:
        """Forget the audio since the last utterance."""
        self._drop_attempt()
        self._item = None
        self._forget()

    async def finish(self) -> None:
        """The stream is over: end an open utterance, and return when all have their transcripts."""
        if self._item is not None:
            await self.commit()
        await self._last_told.wait()

    @property
    def _is_manual(self) -> bool:
        return self._endpointer.rules.silence_ms is None

    @property
    def _end(self) -> int:
        return self._base + len(self._audio) // 2

    def _bytes(self, start: int, end: int) -> bytes:
        return bytes(self._audio[2 * (start - self._base) : 2 * (end - self._base)])

    async def _act(self, mark: Mark) -> None:
        match mark:
            case Started(at):
                prefix_ms = max(self._endpointer.rules.prefix_ms, MANUAL_PREFIX_MS if self._is_manual else 0)
                item = self._open(max(self._base, self._closed, at - prefix_ms * SAMPLE_RATE // 1000))
                await self._tell(SpeechStarted(item.id, _ms(item.start)))
            case Paused(at):
                self._foresee(at)
            case Resumed():
                self._drop_attempt()
            case Cut(at):
                self._drop_attempt()
                await self._stop(at, at)
            case Stopped(at):
                await self._stop(at, at + PAUSE_WINDOWS * WINDOW)
            case _:
                raise AssertionError(mark)

    def _open(self, start: int) -> _Item:
        self._item = _Item(f"item_{token_hex(10)}", start, glanced=start)
        return self._item

    async def _stop(self, at: int, end: int) -> None:
        assert self._item is not None
        await self._tell(SpeechStopped(self._item.id, _ms(at)))
        await self._close(end)

    async def _close(self, end: int) -> None:
        """The open utterance ends at sample *end*: have it transcribed."""
        item, self._item = self._item, None
        assert item is not None
        if item.foreseen is None and item.attempt is not None:
            item.attempt.cancel()
        utterance = self._utterance(item, end)
        self._closed = end
        await self._tell(Committed(item.id, self._last_id))
        await self._room.acquire()
        self._unfinished += 1
        before, self._last_told, self._last_id = self._last_told, asyncio.Event(), item.id
        self._tasks.create_task(self._complete(item, utterance, before, self._last_told), name="utterance")

    async def _complete(
        self, item: _Item, utterance: Utterance, before: asyncio.Event, told: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        ended = loop.time()
        outcome: Happening
        try:
            transcript = await self._final(item.foreseen, utterance)
            rest = item.agreement.finish(transcript.text)
            outcome = Completed(item.id, transcript, rest, _ms(item.start))
            labels = {Attribute.MODEL.value: utterance.wish.model}
            self._final_duration.record(loop.time() - ended, labels)
        except EverwarmError as error:
            outcome = Failed(item.id, error)
        except Exception:  # the edge of an utterance: the stream goes on without it
            log.exception("utterance.failed", item=item.id)
            outcome = Failed(
                item.id, InternalError(f"an internal error; the log tells more under {item.id!r}")
            )
        await before.wait()
        await self._tell(outcome)
        self._unfinished -= 1
        self._room.release()
        told.set()

    async def _final(
        self, early: "asyncio.Task[Transcript | None] | None", utterance: Utterance
    ) -> Transcript:
        """What the *early* decode gives, if it gives anything soon; else what is asked for now, or whichever comes first."""
        if early is None:
            return await self._transcriber.transcribe(utterance)
        await asyncio.wait([early], timeout=EARLY_PATIENCE_S)
        late: asyncio.Task[Transcript | Exception] | None = None
        if not early.done():
            late = self._tasks.create_task(self._asked_now(utterance), name="late final")
            await asyncio.wait([early, late], return_when=asyncio.FIRST_COMPLETED)
        if early.done() and not (late and late.done()) and (transcript := early.result()) is not None:
            if late:
                late.cancel()
            self._transcriber.adopt(utterance)
            return transcript
        outcome = await (late or self._asked_now(utterance))
        early.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _asked_now(self, utterance: Utterance) -> Transcript | Exception:
        try:
            return await self._transcriber.transcribe(utterance)
        except Exception as error:  # noqa: BLE001  # this utterance's alone: raised where it is awaited
            return error

    def _glance_if_due(self) -> None:
        item, glance_s = self._item, self._habits.glance_s
        if item is None or not glance_s or self._is_manual or item.attempt is not None:
            return
        if self._endpointer.is_silent or not self._may_try(item):  # what follows a pause matters more
            return
        if self._judged - item.glanced >= glance_s * SAMPLE_RATE:
            item.glanced = self._judged
            so_far = self._utterance(item, self._judged)
            # Its words need no times, for they are told as text.
            so_far = replace(so_far, wish=replace(so_far.wish, word_timestamps=False))
            item.attempt = self._tasks.create_task(self._glance(item, so_far), name="glance")

    async def _glance(self, item: _Item, so_far: Utterance) -> Transcript | None:
        """A look at the utterance so far."""
        transcript = await self._transcriber.glance(so_far)
        if self._item is item:
            if transcript is not None:
                await self._tell(
                    Interim(item.id, transcript.text, stable=item.agreement.hear(transcript.text))
                )
            if item.attempt is asyncio.current_task():
                item.attempt = None
        return transcript

    def _foresee(self, end: int) -> None:
        """The utterance may have ended: try to have its final by the time that is certain."""
        item = self._item
        assert item is not None
        if self._habits.is_eager and self._may_try(item):
            early = self._early(item, self._utterance(item, end), item.attempt)
            item.attempt = item.foreseen = self._tasks.create_task(early, name="early final")

    async def _early(
        self, item: _Item, utterance: Utterance, glance: "asyncio.Task[Transcript | None] | None"
    ) -> Transcript | None:
        transcript = await self._transcriber.glance(utterance)
        if transcript is None and glance is not None and not glance.done():
            await asyncio.wait([glance])  # it may be what holds the only slot
            transcript = await self._transcriber.glance(utterance)
        if transcript is not None and self._item is item and item.foreseen is asyncio.current_task():
            await self._tell(Foreseen(item.id, transcript, _ms(item.start)))
        return transcript

    def _utterance(self, item: _Item, end: int) -> Utterance:
        """What was said from the beginning of *item* to sample *end*; copied, for the stream goes on."""
        return Utterance(item.id, self._bytes(item.start, end), self._wish())

    def _may_try(self, item: _Item) -> bool:
        """Whether the utterance is short enough to be decoded more than once."""
        return self._judged - item.start <= (CUT_AFTER_S + 1) * SAMPLE_RATE

    def _drop_attempt(self) -> None:
        if self._item is not None and self._item.attempt is not None:
            self._item.attempt.cancel()
            self._item.attempt = self._item.foreseen = None

    def _forget(self) -> None:
        self._base = self._judged = self._end
        self._audio.clear()
        self._endpointer.go_on_at(self._judged)  # in the middle of what would have been a window

    def _trim(self) -> None:
        """Keep what an utterance may still need."""
        if self._item is not None:
            needed = self._item.start
        elif self._is_manual:
            needed = self._end - int(SILENCE_KEPT_S * SAMPLE_RATE)
        else:
            needed = self._end - (self._endpointer.rules.prefix_ms * SAMPLE_RATE // 1000 + 4 * WINDOW)
        needed = min(needed, self._judged)
        if needed - self._base > SAMPLE_RATE:  # a second at a time: moving bytes costs more than keeping them
            del self._audio[: 2 * (needed - self._base)]
            self._base = needed


def _ms(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE
