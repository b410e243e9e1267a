"""What a decode yields: segments with the figures Whisper judges them by, as they come, and the transcript they make."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from everwarm_core.errors import DecodeCancelled
from everwarm_core.transcript import Segment, Transcript, Word, joined_text
from everwarm_stt.engine.guards import is_sound
from everwarm_stt.engine.options import DecodeOptions

if TYPE_CHECKING:
    from faster_whisper import transcribe as whisper

LOWEST_LOGPROB: Final = -100.0  # stands for -inf, which JSON cannot carry; real averages stay above -20


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


def pieces_of(segments: "Iterable[whisper.Segment]", cancelled: Callable[[], bool]) -> Iterator[Piece]:
    """faster-whisper's *segments* in our words; raises DecodeCancelled between two of them."""
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


def without_sounds(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Those of *pieces* that are speech, numbered anew."""
    number = 0
    for piece in pieces:
        segment = piece.segment
        if not is_sound(segment.text, avg_logprob=segment.avg_logprob, no_speech_prob=segment.no_speech_prob):
            yield replace(piece, segment=segment.model_copy(update={"id": number}))
            number += 1


def _finite(figure: float, *, instead: float) -> float:
    """*figure* as JSON can carry it: sampling can end in a token of probability 0, whose logarithm is -inf, and the
    score of an empty result is NaN.
    """
    return float(figure) if math.isfinite(figure) else instead
