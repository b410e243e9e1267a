"""`SpeechStream`: live audio in, LiveKit's speech events out, with nothing but pods behind it.

A `Listener` runs in the caller's loop: it detects speech, ends utterances and keeps the audio of each until its final.
What is decoded goes through the STT's own loop to any warm pod, so a pod that dies costs a retry and no word.
What LiveKit is told, and in which order, is `narration`'s.

**An utterance that fails.** By then the client has been to all pods that it could find, until the deadline: nobody tries it
again, and its words are lost. LiveKit's base class would start a stream anew that raises; there is no connection here that
this could mend, and the audio which the listener holds would be lost with it. So the stream goes on, and the error is emitted as
recoverable: an agent may ask the caller to say that again. It raises, unrecoverable, when more utterances in a row failed
than `conn_options.max_retry`, or at once when all others would fail as well (a wrong key, an unknown model). An AgentSession
then opens another stream, and closes after `max_unrecoverable_errors` of those in a row, 3 by default; a FallbackAdapter
goes on with its next STT. Any final resets both counts.
"""

import asyncio
import time
from functools import partial
from typing import Any, Final, Self

import numpy as np
from livekit import rtc
from livekit.agents import APIConnectionError, APIConnectOptions, APIError, stt
from livekit.agents.types import NOT_GIVEN, NotGivenOr

from everwarm.connection import language_of
from everwarm.deadline import Deadline
from everwarm.livekit import pods
from everwarm.livekit.connection import Options
from everwarm.livekit.faults import concerns_all, livekit_error
from everwarm.livekit.narration import Moment, Narrator
from everwarm.livekit.own_loop import OwnLoop, Stopped
from everwarm.livekit.speech import averaged, mono
from everwarm_core.errors import DecodeCancelled, EverwarmError
from everwarm_core.groups import first_of
from everwarm_core.languages import AUTO
from everwarm_core.logs import library_logger
from everwarm_core.realtime.audio import SAMPLE_RATE
from everwarm_core.realtime.listener import (
    Completed,
    Failed,
    Habits,
    Happening,
    Listener,
    Transcriber,
    Utterance,
    Wish,
)
from everwarm_core.realtime.speech import SpeechDetector
from everwarm_core.transcript import Transcript

GLANCE_S: Final = Habits().glance_s

log = library_logger(__name__)


async def load_detector() -> None:
    """Load the detector of speech for all streams of this process, off the loop; at once when it is there."""
    await asyncio.to_thread(SpeechDetector)


class SpeechStream(stt.RecognizeStream):
    """One stream of *owner*, made by its `stream`."""

    def __init__(
        self,
        owner: stt.STT[Any],
        own_loop: OwnLoop[pods.Transcriber],
        options: Options,
        *,
        language: NotGivenOr[str],
        conn_options: APIConnectOptions,
    ) -> None:
        self._options = options
        self._language = options.language
        self.update_options(language=language)
        super().__init__(stt=owner, conn_options=conn_options, sample_rate=SAMPLE_RATE)
        self._transcriber = _Elsewhere(own_loop, options.deadline_s or conn_options.timeout)
        self._narrator = Narrator(options.interim_results)
        self._heard = 0
        """Samples that were heard."""
        self._failures = 0
        """Utterances in a row that failed."""

    async def __aenter__(self) -> Self:
        return self

    def update_options(self, *, language: NotGivenOr[str] = NOT_GIVEN) -> None:
        """Set the language of utterances that end from now on, of this stream alone; raises UnsupportedLanguage."""
        if isinstance(language, str):
            self._language = language_of(language, model=self._options.model)

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Push audio to be recognized, at any one rate; several channels are averaged."""
        super().push_frame(mono(frame))

    async def _run(self) -> None:
        await load_detector()
        fault: BaseException | None = None
        try:
            async with Listener(
                self._transcriber,
                self._tell,
                endpointing=self._options.endpointing,
                wish=self._wish,
                habits=Habits(glance_s=GLANCE_S if self._options.interim_results else 0.0),
            ) as listener:
                async for pushed in self._input_ch:
                    await self._hear(listener, pushed)
                await listener.finish()
        except* APIError as group:
            fault = first_of(group)
        if fault is not None:
            raise fault

    async def _hear(
        self, listener: Listener, pushed: "rtc.AudioFrame | stt.RecognizeStream._FlushSentinel"
    ) -> None:
        if isinstance(pushed, rtc.AudioFrame):
            samples = averaged(pushed)
            self._heard += len(samples)
            await listener.hear(samples)
            await asyncio.sleep(
                0
            )  # a channel that has frames does not wait: others get their turn in a burst too
        elif self._narrator.is_open:
            await listener.commit()
        elif self._narrator.is_idle and not self._is_last:
            self._event_ch.send_nowait(self._narrator.nothing(self._moment))

    @property
    def _is_last(self) -> bool:
        """Whether no more input will come: the end of the input is told as a flush too."""
        return self._input_ch.closed and self._input_ch.empty()

    async def _tell(self, happening: Happening) -> None:
        for event in self._narrator.events(happening, self._moment):
            self._event_ch.send_nowait(event)
        if isinstance(happening, Completed):
            self._failures = 0
        elif isinstance(happening, Failed):
            self._fail(happening.item_id, happening.error)

    def _fail(self, request_id: str, error: EverwarmError) -> None:
        self._failures += 1
        log.warning(
            "utterance.failed",
            request_id=request_id,
            model=self._options.model,
            reason=str(error),
            in_a_row=self._failures,
        )
        told = livekit_error(error, request_id=request_id)
        if not concerns_all(error) and self._failures <= self._conn_options.max_retry:
            self._emit_error(told, recoverable=True)
        elif told.retryable:  # the base class would start this stream anew
            raise APIConnectionError(
                f"{self._failures} utterances in a row failed, the last one because {told}", retryable=False
            ) from error
        else:
            raise told from error

    @property
    def _moment(self) -> Moment:
        return Moment(
            now=time.time(),
            heard_s=self._heard / SAMPLE_RATE,
            offset_s=self.start_time_offset,
            language="" if self._language in (None, AUTO) else str(self._language),
        )

    def _wish(self) -> Wish:
        return Wish(self._options.model, self._language, word_timestamps=self._options.word_timestamps)


class _Elsewhere(Transcriber):
    """A listener's Transcriber that has each utterance transcribed on *own_loop*, for at most *limit_s* seconds."""

    def __init__(self, own_loop: OwnLoop[pods.Transcriber], limit_s: float) -> None:
        self._own_loop = own_loop
        self._limit_s = limit_s

    async def transcribe(self, utterance: Utterance) -> Transcript:
        try:
            return await self._own_loop.call(partial(_transcribe, self._asked(utterance)))
        except Stopped as error:
            raise DecodeCancelled from error

    async def glance(self, utterance: Utterance) -> Transcript | None:
        try:
            return await self._own_loop.call(partial(_glance, self._asked(utterance)))
        except (EverwarmError, Stopped):  # what opening the client raised; the final will tell it
            return None

    def _asked(self, utterance: Utterance) -> pods.Utterance:
        wish = utterance.wish
        return pods.Utterance(
            samples=np.frombuffer(utterance.pcm, "<i2"),
            model=wish.model,
            language=wish.language,
            word_timestamps=wish.word_timestamps,
            request_id=utterance.item_id,
            deadline=Deadline.after(self._limit_s),
        )


async def _transcribe(utterance: pods.Utterance, transcriber: pods.Transcriber) -> Transcript:
    return await transcriber.transcribe(utterance)


async def _glance(utterance: pods.Utterance, transcriber: pods.Transcriber) -> Transcript | None:
    return await transcriber.glance(utterance)
