"""`STT`: livekit-agents' speech-to-text, answered by pods that are warm already; whole utterances, or a stream of speech.

Making one costs nothing and opens nothing. Its client lives on a loop of its own (`own_loop`, which says why), opened
by the first utterance or by `prewarm`, which LiveKit calls when a session starts and which may as well be called from
`prewarm_fnc`, where no loop runs yet. What an utterance asks for is made anew for each: concurrent ones share nothing
that either could change. `stream` hears live audio by itself; who has a VAD of his own to cut utterances gets a
`StreamAdapter` around `recognize` from `create_stt`.
"""

import asyncio
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

from livekit.agents import APIConnectionError, APIConnectOptions, stt
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr
from livekit.agents.utils import AudioBuffer

from everwarm.audio_input import SAMPLE_RATE
from everwarm.connection import language_of
from everwarm.deadline import Deadline
from everwarm.dispatch import RECORDING_S
from everwarm.livekit.connection import Arguments, Fallback, Options, options_of
from everwarm.livekit.faults import livekit_error
from everwarm.livekit.own_loop import OwnLoop, Stopped
from everwarm.livekit.pods import Transcriber, Utterance, opened_pods
from everwarm.livekit.speech import samples_of, speech_event
from everwarm.livekit.stream import SpeechStream, load_detector
from everwarm_core.errors import EverwarmError, PlatformError
from everwarm_core.http.headers import new_request_id
from everwarm_core.transcript import Transcript


class STT(stt.STT[str]):
    """Transcribes speech with *model* on warm pods: a stream of it, or whole utterances.

    language: a code such as `en` or `en-US`, `auto`, or None for the one the model is served in. word_timestamps: ask
    for each word's times; costs the pod some time. fallback: `"local"` starts one pod on this machine, shared by all
    its processes, for as long as no other can be had (needs the package everwarm-stt).
    Of streams only: interim_results: tell how an utterance reads so far, every half a second, while a pod has a slot
    that nobody else needs. vad_threshold: probability that counts as speech, 0 to 1. prefix_padding_ms: audio from before
    the first word that belongs to an utterance. silence_duration_ms: silence that ends one.
    base_url (a gateway or a single pod), redis_url, namespace, token_file, api_key: as `everwarm.Client`; what is not
    given comes from EVERWARM_*. deadline_s: longest wait for a transcript, in seconds; by default the session's
    `conn_options.timeout`. Audio over 30 s adds its own length to either.
    Raises InvalidParameter or UnsupportedLanguage at once when these cannot work.
    """

    def __init__(
        self,
        *,
        model: str,
        language: str | None = None,
        word_timestamps: bool = False,
        fallback: Fallback = None,
        interim_results: bool = True,
        vad_threshold: float = 0.5,
        prefix_padding_ms: int = 300,
        silence_duration_ms: int = 500,
        base_url: str | None = None,
        redis_url: str | None = None,
        namespace: str | None = None,
        token_file: str | Path | None = None,
        api_key: str | None = None,
        deadline_s: float | None = None,
    ) -> None:
        options = options_of(
            model=model,
            language=language,
            word_timestamps=word_timestamps,
            fallback=fallback,
            arguments=Arguments(
                interim_results=interim_results,
                vad_threshold=vad_threshold,
                prefix_padding_ms=prefix_padding_ms,
                silence_duration_ms=silence_duration_ms,
                base_url=base_url,
                redis_url=redis_url,
                namespace=namespace,
                token_file=token_file,
                api_key=api_key,
                deadline_s=deadline_s,
            ),
        )
        capabilities = stt.STTCapabilities(
            streaming=True,
            interim_results=options.interim_results,
            aligned_transcript="word" if options.word_timestamps else False,
            offline_recognize=True,
        )
        capabilities.manual_flush = True  # no argument of early 1.8 releases, which do not look at it
        super().__init__(capabilities=capabilities)
        self.id: Final = uuid4().hex[:12]
        """Names this instance in logs."""
        self._options = options
        self._own_loop = OwnLoop(f"everwarm-stt-{self.id}", _opener(options))
        # A forgotten STT ends its thread; the interpreter's end does so too, and waits for it (own_loop).
        weakref.finalize(self, self._own_loop.stop).atexit = False

    async def __aenter__(self) -> Self:
        return self

    @property
    def model(self) -> str:
        """The model's name, as asked for."""
        return self._options.model

    @property
    def provider(self) -> str:
        """Always `Everwarm`."""
        return "Everwarm"

    @property
    def language(self) -> str | None:
        """The language of utterances that name none: a Whisper code, `auto`, or None."""
        return self._options.language

    def prewarm(self) -> None:
        """Begin to look for pods, and load what streams detect speech with, in the background; returns at once, from any
        thread, with or without a loop.
        """
        self.look_for_pods()
        self._own_loop.submit(_load_detector)

    def look_for_pods(self) -> None:
        """`prewarm` for who does not stream."""
        self._own_loop.submit(_prepare)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> SpeechStream:
        """A stream of speech in *language*, by default that of this STT; see its module for how errors are told.

        To be made in a running loop. Raises UnsupportedLanguage.
        """
        return SpeechStream(self, self._own_loop, self._options, language=language, conn_options=conn_options)

    async def aclose(self) -> None:
        """Close all connections; utterances under way fail, streams stay open. Used again, it opens them again."""
        await self._own_loop.aclose()

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        request_id = new_request_id()
        deadline = Deadline.after(self._options.deadline_s or conn_options.timeout)
        try:
            # A copy, since the caller may go on to use its list of frames.
            frames = list(buffer) if isinstance(buffer, list) else buffer
            asked = language_of(language, model=self.model) if isinstance(language, str) else self.language
            transcript = await self._own_loop.call(
                partial(_transcribe, frames, self._options, asked, request_id, deadline)
            )
        except EverwarmError as error:
            raise livekit_error(error, request_id=request_id) from error
        except Stopped as error:
            raise APIConnectionError(str(error)) from error
        return speech_event(transcript, request_id=request_id)


async def _prepare(transcriber: Transcriber) -> None:
    await transcriber.prepare()


async def _load_detector(_: Transcriber) -> None:
    await load_detector()


async def _transcribe(
    frames: AudioBuffer,
    options: Options,
    language: str | None,
    request_id: str,
    deadline: Deadline,
    transcriber: Transcriber,
) -> Transcript:
    samples = await asyncio.to_thread(samples_of, frames)
    audio_s = len(samples) / SAMPLE_RATE
    return await transcriber.transcribe(
        Utterance(
            samples=samples,
            model=options.model,
            language=language,
            word_timestamps=options.word_timestamps,
            request_id=request_id,
            deadline=deadline if audio_s <= RECORDING_S else deadline.later(audio_s),
        )
    )


def _opener(options: Options) -> Callable[[], AbstractAsyncContextManager[Transcriber]]:
    """What opens the Transcriber of *options*; nothing of the fallback is imported without it."""
    if options.fallback is None:
        return partial(opened_pods, options.settings, options.model, options.language)
    try:
        from everwarm.livekit.fallback import opened_with_fallback
        from everwarm.local_pod import ensure_installed
    except ModuleNotFoundError as error:
        raise PlatformError("fallback='local' needs file locks, which this system lacks") from error
    ensure_installed()
    return partial(opened_with_fallback, options.settings, options.model, options.language)
