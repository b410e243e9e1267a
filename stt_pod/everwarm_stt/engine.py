"""The one loaded model of this process, and the decodes that run on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from everwarm_core.languages import AUTO
from everwarm_core.requests import Task
from everwarm_core.transcript import Segment, Transcript, Word

from everwarm_stt.audio import Pcm16k
from everwarm_stt.weights import Weights

VadPolicy = Literal["recordings", "always", "never"]


def never() -> bool:
    """The `cancelled` of a decode that nobody can cancel."""
    return False


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How one request is decoded.

    language: a Whisper code or `auto` (detected, one more encoder pass); prompt: text the transcript may follow on
    from, the last 224 tokens of it count; temperature: None or 0 is faster-whisper's automatic fallback, a value
    above is used alone; word_timestamps: also time each word; vad: when silence is cut out first.
    """

    language: str = AUTO
    task: Task = "transcribe"
    prompt: str | None = None
    temperature: float | None = None
    word_timestamps: bool = False
    beam_size: int = 5
    vad: VadPolicy = "recordings"


@dataclass(frozen=True, slots=True)
class Piece:
    """One decoded segment and, when they were asked for, its words."""

    segment: Segment
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Decoding:
    """A decode under way: what is known before the first segment, and the segments as they come.

    language: the Whisper code in use (the detected one for `auto`); duration_s: length of the audio.
    pieces: to be iterated once, on a worker thread; raises DecodeCancelled when the request was cancelled.
    """

    language: str
    language_probability: float
    duration_s: float
    options: DecodeOptions
    pieces: Iterator[Piece]

    def transcript(self) -> Transcript:
        """Decode what is left and return the whole; blocks."""
        raise NotImplementedError


class Engine:
    """One Whisper model in memory. `slots` decodes may run at a time, from as many threads, on one set of weights."""

    loads: ClassVar[int] = 0
    """Loads begun in this process; 1 for its whole life."""

    id: str
    """Random per engine; `instance` in the logs."""
    model: str
    slots: int
    load_s: float
    """Seconds the load took."""

    @classmethod
    def load(cls, weights: Weights, *, device: str, compute_type: str, slots: int, cpu_threads: int) -> Self:
        """Load *weights*; blocks for seconds, use a thread. Raises WeightsUnavailable when they cannot be loaded."""
        raise NotImplementedError

    @property
    def is_multilingual(self) -> bool:
        """Whether the weights know more than English (and can translate)."""
        raise NotImplementedError

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages the weights know, without `auto`."""
        raise NotImplementedError

    def decode(
        self, audio: Pcm16k, options: DecodeOptions, *, cancelled: Callable[[], bool] = never
    ) -> Transcript:
        """Transcribe *audio* whole; blocks, so call it from a worker thread.

        cancelled is asked before each 30 s window. Raises UnsupportedLanguage, InvalidParameter (translate on
        English-only weights), InvalidAudio (non-finite samples), DecodeCancelled.
        """
        raise NotImplementedError

    def decode_segments(
        self, audio: Pcm16k, options: DecodeOptions, *, cancelled: Callable[[], bool] = never
    ) -> Decoding:
        """Begin to transcribe *audio*: blocks for features and language detection; the rest happens while
        `pieces` is iterated. Same errors as `decode`."""
        raise NotImplementedError


class EngineHolder:
    """Loads at most once, whoever asks: concurrent askers wait for the same load and share its engine or error."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        raise NotImplementedError

    def get(self) -> Engine:
        """The engine, loaded by the first caller; blocks."""
        raise NotImplementedError
