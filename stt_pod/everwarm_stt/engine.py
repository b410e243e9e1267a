"""The one loaded model of this process, and the decodes that run on it.

`Engine` wraps a single `faster_whisper.WhisperModel`; nothing else imports faster-whisper. CTranslate2 runs `slots`
decodes in parallel on one set of weights (`num_workers`), each called from a worker thread of the server, and
releases the GIL meanwhile. Settings are faster-whisper's own defaults, so a transcript is the same as from the plain
library; audio up to 30 s is one window, longer audio takes its long-form path, with silence cut out first. A
generation that has begun cannot be interrupted, so a cancelled request ends at the next window. The first decode in
a language is slower than later ones; proving the opposite is `prewarm`'s business. Only the pod's start loads, and
requests are refused until it has: two of them can never load twice.
"""

import copy
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal
from uuid import uuid4

import numpy as np
import structlog

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
from everwarm_core.requests import Task
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_core.transcript import Segment, Transcript, Word, joined_text
from everwarm_stt.audio import Pcm16k, duration_s
from everwarm_stt.weights import Weights

if TYPE_CHECKING:
    import faster_whisper
    from faster_whisper import transcribe as whisper

VadPolicy = Literal["recordings", "always", "never"]

WINDOW_S: Final = 30.0  # what Whisper's encoder sees at once; longer audio is a recording
FALLBACK_TEMPERATURES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # faster-whisper's default
VAD_WINDOWS: Final = 256  # 8 s of audio and some 16 MB for each run of the silence detector
LOWEST_LOGPROB: Final = -100.0  # stands for -inf, which JSON cannot carry; real averages stay above -20

log = structlog.stdlib.get_logger(__name__)


def never() -> bool:
    """The `cancelled` of a decode that nobody can cancel."""
    return False


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How one request is decoded.

    language: a Whisper code or `auto` (detected, one more encoder pass); prompt: text the transcript may follow on
    from, the last 224 tokens of it count; temperature: None or 0 is faster-whisper's automatic fallback, a value
    above is used alone; word_timestamps: also time each word; vad: when silence is cut out first; fallback: whether
    a decode that looks wrong is tried again with sampling, which takes a random number of tries.
    """

    language: str = AUTO
    task: Task = "transcribe"
    prompt: str | None = None
    temperature: float | None = None
    word_timestamps: bool = False
    beam_size: int = 5
    vad: VadPolicy = "recordings"
    fallback: bool = True

    @property
    def temperatures(self) -> list[float]:
        """Sampling temperatures, tried in turn until a decode looks right."""
        if self.temperature:
            return [self.temperature]
        return list(FALLBACK_TEMPERATURES) if self.fallback else [0.0]

    def cuts_silence(self, length_s: float) -> bool:
        """Whether audio of *length_s* seconds passes the voice activity detector first."""
        return self.vad == "always" or (self.vad == "recordings" and length_s > WINDOW_S)


@dataclass(frozen=True, slots=True)
class Piece:
    """One decoded segment and, when they were asked for, its words."""

    segment: Segment
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Decoding:
    """A decode under way: what is known before the first segment, and the segments as they come.

    language: the Whisper code in use (the detected one for `auto`), with its probability (1 when it was given);
    duration_s: length of the audio. pieces: to be iterated once, on a worker thread; raises DecodeCancelled when
    the request was cancelled.
    """

    language: str
    language_probability: float
    duration_s: float
    options: DecodeOptions
    pieces: Iterator[Piece]

    def transcript(self, pieces: Iterable[Piece] | None = None) -> Transcript:
        """The whole transcript: of *pieces* when a caller iterated them already, else decodes them now; blocks."""
        done = tuple(self.pieces if pieces is None else pieces)
        segments = tuple(piece.segment for piece in done)
        return Transcript(
            task=self.options.task,
            language=self.language,
            duration=self.duration_s,
            text=joined_text(segments),
            segments=segments,
            words=tuple(word for piece in done for word in piece.words)
            if self.options.word_timestamps
            else None,
        )


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
        attributes: dict[str, str] = {Attribute.MODEL: weights.model, Attribute.INSTANCE: engine_id}
        try:
            with telemetry.span(SpanName.LOAD, attributes=attributes):
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
        self, audio: Pcm16k, options: DecodeOptions, *, cancelled: Callable[[], bool] = never
    ) -> Transcript:
        """Transcribe *audio* whole; blocks, so call it from a worker thread.

        cancelled is asked before each 30 s window and between segments. Raises UnsupportedLanguage,
        InvalidParameter (translate on English-only weights), InvalidAudio (non-finite samples), DecodeCancelled.
        """
        return self.decode_segments(audio, options, cancelled=cancelled).transcript()

    def decode_segments(
        self, audio: Pcm16k, options: DecodeOptions, *, cancelled: Callable[[], bool] = never
    ) -> Decoding:
        """Begin to transcribe *audio*: blocks for features, silence and language detection; the rest happens while
        `pieces` is iterated. Same errors as `decode`.
        """
        self._check(audio, options)
        length_s = duration_s(audio)
        log.info("model.reused", tag=Tag.REUSE, instance=self.id, model=self.model, language=options.language)
        # A view of this request: shares weights and tokenizer, and carries its own `cancelled` to every window.
        if options.cuts_silence(length_s):
            bound_silence_detector()
        view = copy.copy(self._whisper)
        view.cancelled = cancelled
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
        return Decoding(
            language=info.language,
            language_probability=float(info.language_probability),
            duration_s=length_s,
            options=options,
            pieces=_pieces(segments, cancelled),
        )

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


_vad_lock: Final = threading.Lock()


class PiecewiseSession:
    """An ONNX session of the silence detector that is run on `VAD_WINDOWS` windows at a time.

    faster-whisper runs it on up to 320 s of audio at once, which takes 60 KB for each window of 32 ms: half a
    gigabyte for a long recording, part of which the allocator keeps. The state (h, c) is handed from run to run, so
    the probabilities are the same.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, output_names: list[str] | None, inputs: dict[str, Any]) -> list[Any]:
        """As `onnxruntime.InferenceSession.run` with inputs `input`, `h` and `c`."""
        windows, h, c = inputs["input"], inputs["h"], inputs["c"]
        outputs = []
        for start in range(0, len(windows), VAD_WINDOWS):
            piece = windows[start : start + VAD_WINDOWS]
            output, h, c = self._session.run(output_names, {"input": piece, "h": h, "c": c})
            outputs.append(output)
        return [np.concatenate(outputs, axis=0), h, c]


def bound_silence_detector() -> None:
    """Load faster-whisper's silence detector once per process, and bound the memory of its runs."""
    from faster_whisper.vad import get_vad_model

    with _vad_lock:  # its own cache lets two first callers load it twice
        detector = get_vad_model()
        if not isinstance(detector.session, PiecewiseSession):
            detector.session = PiecewiseSession(detector.session)


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


def _pieces(segments: "Iterable[whisper.Segment]", cancelled: Callable[[], bool]) -> Iterator[Piece]:
    for segment in segments:
        yield Piece(
            Segment(
                id=segment.id - 1,  # OpenAI counts from 0, faster-whisper from 1
                seek=segment.seek,
                start=float(segment.start),
                end=float(segment.end),
                text=segment.text,
                tokens=tuple(segment.tokens),
                temperature=float(segment.temperature or 0.0),
                avg_logprob=_finite(segment.avg_logprob, instead=LOWEST_LOGPROB),
                compression_ratio=_finite(segment.compression_ratio, instead=0.0),
                no_speech_prob=_finite(segment.no_speech_prob, instead=0.0),
            ),
            tuple(
                Word(
                    word=word.word,
                    start=float(word.start),
                    end=float(word.end),
                    probability=_finite(word.probability, instead=0.0),
                )
                for word in segment.words or ()
            ),
        )
        if cancelled():
            raise DecodeCancelled


def _finite(figure: float, *, instead: float) -> float:
    """*figure* as JSON can carry it: sampling can end in a token of probability 0, whose logarithm is -inf, and the
    score of an empty result is NaN.
    """
    return float(figure) if math.isfinite(figure) else instead
