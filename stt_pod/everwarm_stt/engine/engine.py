"""The one loaded model of this process, and the decodes that run on it.

`Engine` wraps a single `faster_whisper.WhisperModel`. CTranslate2 runs `slots` decodes in parallel on one set of weights
(`num_workers`), each called from a worker thread of the server, and releases the GIL meanwhile. Settings are
faster-whisper's own defaults. An utterance goes through short encoder windows first (`utterance`); what these give is
used unless the guards doubt it, and silence is not decoded again. Everything else is faster-whisper's own work, so with
`window: full` a transcript is the same as from the plain library: up to 30 s is one window, longer audio takes its
long-form path, with silence cut out first. A search that has begun cannot be interrupted, so a cancelled request ends
at the next window. The first decode in a language is slower than later ones; proving the opposite is `prewarm`'s
business. Only the pod's start loads, and requests are refused until it has: two of them can never load twice.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import numpy as np
import structlog
from opentelemetry import trace

from everwarm_core import telemetry
from everwarm_core.errors import (
    DecodeCancelled,
    InvalidAudio,
    InvalidParameter,
    UnsupportedLanguage,
    WeightsUnavailable,
)
from everwarm_core.languages import AUTO
from everwarm_core.logs import Tag
from everwarm_core.telemetry import Attribute
from everwarm_core.transcript import Transcript
from everwarm_stt.audio import Pcm16k, duration_s
from everwarm_stt.engine.decoding import Decoding, Piece, pieces_of, without_sounds
from everwarm_stt.engine.guards import Doubt
from everwarm_stt.engine.memory import give_back_free_memory
from everwarm_stt.engine.options import WINDOW_S, DecodeOptions
from everwarm_stt.engine.silence import bound_silence_detector, holds_speech
from everwarm_stt.engine.utterance import Heard, UtteranceDecoder
from everwarm_stt.engine.windows import FULL_WINDOW
from everwarm_stt.weights import Weights

if TYPE_CHECKING:
    import faster_whisper

log = structlog.stdlib.get_logger(__name__)


def never() -> bool:
    """The `cancelled` of a decode that nobody can cancel."""
    return False


def import_libraries() -> None:
    """Import what a load needs, a tenth of a second. Whoever has a thread call `Engine.load` does this on its own
    meanwhile, before it imports anything else: one thread that imports waits for another.
    """
    import faster_whisper  # noqa: F401


def is_recording(audio: Pcm16k) -> bool:
    """Whether *audio* is longer than what Whisper sees at once."""
    return duration_s(audio) > WINDOW_S


class Engine:
    """One Whisper model in memory. `slots` decodes may run at a time, from as many threads, on one set of weights.

    id: random per engine, `instance` in the logs; model: the name it is served under; load_s: seconds the load took.
    """

    loads: ClassVar[int] = 0
    """Loads begun in this process; 1 for its whole life."""

    _loads_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        whisper_model: "faster_whisper.WhisperModel",
        *,
        engine_id: str,
        model: str,
        slots: int,
        load_s: float,
    ) -> None:
        self.id, self.model, self.slots, self.load_s = engine_id, model, slots, load_s
        self._whisper = whisper_model
        self.is_multilingual: bool = whisper_model.model.is_multilingual
        # faster-whisper lists every language of the newest weights; one without a token of its own in these (Cantonese
        # before large-v3) would be decoded into noise, with every fallback tried.
        self.languages: tuple[str, ...] = tuple(
            code
            for code in whisper_model.supported_languages
            if not self.is_multilingual or whisper_model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None
        )
        # A prompt may not contain Whisper's control tokens; in its vocabularies all of them follow the text tokens.
        self._first_control_token: int = whisper_model.hf_tokenizer.token_to_id("<|endoftext|>")
        self._utterances = UtteranceDecoder(whisper_model, workers=slots)
        self._doubts = telemetry.counter(telemetry.DOUBTS)

    @classmethod
    def load(
        cls, weights: Weights, *, device: str, compute_type: str, slots: int, cpu_threads: int
    ) -> "Engine":
        """Load *weights*; blocks for seconds, use a thread. Raises WeightsUnavailable when they cannot be loaded."""
        engine_id = uuid4().hex[:12]
        with cls._loads_lock:
            cls.loads += 1
        bound = log.bind(instance=engine_id, model=weights.model, language=None)
        bound.info("engine.created", tag=Tag.INIT, slots=slots, threads_per_slot=cpu_threads)
        bound.info("model.loading", tag=Tag.LOAD, origin=weights.origin, path=str(weights.path))
        started = time.monotonic()
        try:
            whisper_model = _new_whisper_model(
                str(weights.path),
                device=device,
                compute_type=compute_type,
                num_workers=slots,
                cpu_threads=cpu_threads,
                local_files_only=True,
            )
        # The libraries below raise bare Exception, RuntimeError and ValueError for files and devices they cannot use.
        except Exception as error:
            raise WeightsUnavailable(
                weights.model,
                f"{weights.path} cannot be loaded for device {device!r} as {compute_type!r}: {error}",
            ) from error
        load_s = time.monotonic() - started
        bound.info("model.loaded", tag=Tag.LOAD, load_s=round(load_s, 3))
        return cls(whisper_model, engine_id=engine_id, model=weights.model, slots=slots, load_s=load_s)

    def decode(
        self,
        audio: Pcm16k,
        options: DecodeOptions,
        *,
        cancelled: Callable[[], bool] = never,
        company: int = 1,
    ) -> Transcript:
        """Transcribe *audio* whole; blocks, so call it from a worker thread.

        cancelled is asked before each 30 s window and between segments; company: calls that share one slot, this one
        included, and come together. Raises UnsupportedLanguage, InvalidParameter (translate on English-only weights),
        InvalidAudio (non-finite samples), DecodeCancelled.
        """
        return self.decode_segments(audio, options, cancelled=cancelled, company=company).transcript()

    def decode_segments(
        self,
        audio: Pcm16k,
        options: DecodeOptions,
        *,
        cancelled: Callable[[], bool] = never,
        company: int = 1,
    ) -> Decoding:
        """Begin to transcribe *audio*: blocks for features, silence, language detection and short windows; what is left
        to do happens while `pieces` is iterated. Same errors as `decode`.
        """
        self._check(audio, options)
        length_s = duration_s(audio)
        log.info("model.reused", tag=Tag.REUSE, instance=self.id, model=self.model, language=options.language)
        # A view of this request: shares weights and tokenizer, and carries its own `cancelled` to every window.
        view = copy.copy(self._whisper)
        view.cancelled = cancelled
        if options.may_shrink(length_s):
            heard = self._heard(view, audio, options, company)
            if heard.doubt is None:
                return Decoding(
                    language=heard.language,
                    language_probability=heard.language_probability,
                    duration_s=length_s,
                    options=options,
                    pieces=pieces_of(heard.segments, cancelled),
                )
        if options.cuts_silence(length_s):
            bound_silence_detector()
        segments, info = view.transcribe(
            audio,
            language=None if options.language == AUTO else options.language,
            task=options.task,
            beam_size=options.beam_size,
            temperature=options.temperatures,
            initial_prompt=self._prompt_tokens(options.prompt),
            word_timestamps=options.word_timestamps,
            vad_filter=options.cuts_silence(length_s),
        )
        pieces = pieces_of(segments, cancelled)
        if options.may_shrink(length_s):  # what a short window was doubted for may be a sound
            pieces = without_sounds(pieces)
        return Decoding(
            language=info.language,
            language_probability=float(info.language_probability),
            duration_s=length_s,
            options=options,
            pieces=_tidied(pieces),
        )

    def _heard(
        self, view: "faster_whisper.WhisperModel", audio: Pcm16k, options: DecodeOptions, company: int
    ) -> Heard:
        """*audio* by short windows. Where these are in doubt, and the detector of speech may be asked, it decides whether
        nothing was said, and whether something was where this was all the doubt.
        """
        heard = self._utterances.decode(
            view, audio, options, self._prompt_tokens(options.prompt) or (), company=company
        )
        span = trace.get_current_span()
        if heard.doubt is not None:
            span.set_attribute(Attribute.DOUBT, heard.doubt)
            self._doubts.add(1, {Attribute.MODEL.value: self.model, Attribute.DOUBT.value: heard.doubt})
            if options.vad != "never" and heard.doubt is not Doubt.LANGUAGE:
                if not holds_speech(audio):
                    heard = replace(heard, segments=(), doubt=None)
                elif heard.doubt is Doubt.SILENCE:
                    heard = replace(heard, doubt=None)
        span.set_attribute(Attribute.WINDOW, heard.window if heard.doubt is None else FULL_WINDOW)
        return heard

    def _check(self, audio: Pcm16k, options: DecodeOptions) -> None:
        if options.language not in (AUTO, *self.languages):
            raise UnsupportedLanguage(options.language, model=None if self.is_multilingual else self.model)
        if options.task == "translate" and not self.is_multilingual:
            raise InvalidParameter("task", f"model {self.model!r} knows English only and cannot translate")
        if not np.isfinite(audio).all():
            raise InvalidAudio("the audio holds samples that are no finite numbers")

    def _prompt_tokens(self, prompt: str | None) -> list[int] | None:
        """*prompt* as faster-whisper encodes it, without control tokens: `<|startoftranscript|>` typed by a caller
        would otherwise end the prompt and confuse the decoder.
        """
        if prompt is None or not prompt.strip():
            return None
        encoded = self._whisper.hf_tokenizer.encode(" " + prompt.strip(), add_special_tokens=False)
        return [token for token in encoded.ids if token < self._first_control_token]


def _tidied(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """*pieces* of full windows; what only those need is given back after them."""
    try:
        yield from pieces
    finally:
        give_back_free_memory()


def _new_whisper_model(path: str, **arguments: Any) -> "faster_whisper.WhisperModel":
    """A WhisperModel whose copies end at the next window once `cancelled` says so."""
    from faster_whisper import WhisperModel

    logging.getLogger("faster_whisper").setLevel(
        logging.WARNING
    )  # at INFO it adds two lines to every request

    class CancellableWhisperModel(WhisperModel):  # type: ignore[misc]  # it ships no types
        """Asks before every encoder pass: segments alone would miss windows of silence, which yield none."""

        cancelled: Callable[[], bool] = staticmethod(never)

        def encode(self, features: Any) -> Any:
            if self.cancelled():
                raise DecodeCancelled
            return super().encode(features)

    return CancellableWhisperModel(path, **arguments)
