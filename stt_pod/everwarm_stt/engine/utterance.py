"""One utterance through short encoder windows, by CTranslate2 directly.

The steps are faster-whisper's own (features, encode, search, split at timestamps, align words, go on behind the last
timestamp), with its functions wherever it has one, so results have the same shape and figures. What differs is the
size of the window (`windows`), one search without sampling, that the search is bounded, and that several utterances may
share it (`searches`). And behind the speech stands
what silence sounds like, as in openai/whisper and so in Whisper's training; faster-whisper puts zeros there, a sound of
middling loudness, which on a short window costs words. When `guards` doubt what
came out, nothing is repaired here: the caller decodes the utterance by faster-whisper itself, at the full window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from everwarm_core.errors import DecodeCancelled
from everwarm_core.languages import AUTO
from everwarm_stt.audio import Pcm16k
from everwarm_stt.engine.guards import (
    LANGUAGE_PROBABILITY,
    Attempt,
    Doubt,
    compression_ratio,
    deserves_beams,
    doubt,
    token_limit,
)
from everwarm_stt.engine.options import DecodeOptions
from everwarm_stt.engine.searches import Ask, Searches, search_encoded
from everwarm_stt.engine.windows import FRAMES_PER_S, window_for

if TYPE_CHECKING:
    import faster_whisper
    from faster_whisper import transcribe as whisper
    from faster_whisper.tokenizer import Tokenizer

# Arguments of faster-whisper's `transcribe` at their defaults, which reach CTranslate2 otherwise.
DYNAMIC_RANGE: Final = 2.0
"""Of log-mel features: openai/whisper cuts off 8 decades below the loudest, and divides by 4. What is silent stands there."""
BEAMS: Final = 5
"""Of the second search of a greedy utterance: faster-whisper's default."""
PREPENDED: Final = "\"'“¿([{-"
APPENDED: Final = "\"'.。,，!！?？:：”)]}、"  # its own punctuation, full width included


@dataclass(frozen=True, slots=True)
class Heard:
    """An utterance as the short windows gave it.

    language, language_probability: as in `Decoding`; segments: faster-whisper's; window: frames of the largest window in
    use; doubt: why it is not to be believed, None when it is. Of a doubt other than silence there are no segments.
    """

    language: str
    language_probability: float
    segments: "tuple[whisper.Segment, ...]"
    window: int
    doubt: Doubt | None = None


class UtteranceDecoder:
    """Decodes utterances on the loaded *model*, which has *workers*; blocks, on the caller's thread."""

    def __init__(self, model: "faster_whisper.WhisperModel", *, workers: int) -> None:
        self._is_multilingual: bool = model.model.is_multilingual
        self._hf_tokenizer = model.hf_tokenizer
        self._tokenizer = cache(self._new_tokenizer)
        self._searches = Searches(model, workers=workers)

    def decode(
        self,
        view: "faster_whisper.WhisperModel",
        audio: Pcm16k,
        options: DecodeOptions,
        prompt: Sequence[int],
        *,
        company: int = 1,
    ) -> Heard:
        """What is said in *audio*, up to 30 s of it.

        view: the model as this request sees it, which stops its encoder when the request is cancelled; prompt: tokens
        that the transcript follows on from; company: requests that share this one's turn, itself included.
        """
        features = view.feature_extractor(audio)
        frames = features.shape[-1] - 1  # its last one is padding
        silence = float(features.max()) - DYNAMIC_RANGE
        language, probability = options.language if self._is_multilingual else "en", 1.0
        segments: list[whisper.Segment] = []
        context, largest = list(prompt), 0
        silent: Doubt | None = None
        seek, last_speech_s = 0, 0.0
        while seek < frames:
            size = frames - seek
            window = window_for(size)
            largest = max(largest, window)
            padded = _padded(features[:, seek : seek + size], window, silence)
            # Alone goes who has no company, looks at what was encoded, or back.
            goes_alone = company == 1 or language == AUTO or options.word_timestamps or bool(context)
            encoded = view.encode(padded) if goes_alone else None
            if language == AUTO:
                language, probability = _detected(view, encoded)
                if probability < LANGUAGE_PROBABILITY:
                    return Heard(language, probability, (), largest, Doubt.LANGUAGE)
            tokenizer, suppressed = self._tokenizer(language, options.task)
            before, audio_s = view.get_prompt(tokenizer, context), size / FRAMES_PER_S
            limit = min(view.max_length, len(before) + token_limit(audio_s))
            ask = Ask(padded, before, limit, options.beam_size, suppressed, company)
            found = _found(self._result(view, ask, encoded), ask, tokenizer, audio_s)
            if options.fallback and ask.beam_size == 1 and deserves_beams(found.attempt):
                ask = replace(ask, beam_size=BEAMS)
                found = _found(self._result(view, ask, encoded), ask, tokenizer, audio_s)
            doubted = doubt(found.attempt) if options.fallback else None
            if doubted is Doubt.SILENCE:
                silent = doubted
            elif doubted is not None:
                return Heard(language, probability, (), largest, doubted)
            began = seek
            parts, seek, ends_at_timestamp = view._split_segments_by_timestamps(  # noqa: SLF001  # see the docstring
                tokenizer=tokenizer,
                tokens=found.tokens,
                time_offset=seek / FRAMES_PER_S,
                segment_size=size,
                segment_duration=size / FRAMES_PER_S,
                seek=seek,
            )
            for part in parts:  # a short window now and then hears the speech end behind the audio
                part["start"], part["end"] = (
                    min(part[edge], frames / FRAMES_PER_S) for edge in ("start", "end")
                )
            if options.word_timestamps:
                ends_s = _time_words(view, parts, tokenizer, encoded, size, last_speech_s)
                if ends_s is not None:
                    last_speech_s = ends_s
                    if not ends_at_timestamp and last_speech_s > began / FRAMES_PER_S:
                        seek = round(last_speech_s * FRAMES_PER_S)
            for part in parts:
                text = tokenizer.decode(part["tokens"])
                if part["start"] != part["end"] and text.strip():
                    context += part["tokens"]
                    segments.append(_segment(len(segments) + 1, began, part, text, found, options))
        return Heard(language, probability, tuple(segments), largest, silent)

    def _result(self, view: "faster_whisper.WhisperModel", ask: Ask, encoded: Any | None) -> Any:
        """CTranslate2's result of *ask*: of what was *encoded*, or else with others that wait as well."""
        if encoded is not None:
            (result,) = search_encoded(view, encoded, [ask])
            return result
        if view.cancelled():
            raise DecodeCancelled
        return self._searches.run(ask)

    def _new_tokenizer(self, language: str, task: str) -> "tuple[Tokenizer, tuple[int, ...]]":
        """A tokenizer for *language* and *task*, and the tokens that a search must not give; kept, as both take
        milliseconds to make.
        """
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        tokenizer = Tokenizer(self._hf_tokenizer, self._is_multilingual, task=task, language=language)
        return tokenizer, get_suppressed_tokens(tokenizer, [-1])


@dataclass(frozen=True, slots=True)
class _Found:
    """What one search gave: all *tokens*, timestamps among them, and what the guards look at."""

    tokens: list[int]
    attempt: Attempt


def _found(result: Any, ask: Ask, tokenizer: "Tokenizer", audio_s: float) -> _Found:
    """CTranslate2's *result* of *ask*, as the guards want it."""
    tokens = result.sequences_ids[0]
    spoken = tuple(token for token in tokens if token < tokenizer.eot)
    attempt = Attempt(
        text=tokenizer.decode(spoken).strip(),
        tokens=spoken,
        audio_s=audio_s,
        avg_logprob=result.scores[0]
        * len(tokens)
        / (len(tokens) + 1),  # as faster-whisper: the end counts too
        no_speech_prob=result.no_speech_prob,
        is_finished=len(ask.prompt) + len(tokens) < ask.limit,
    )
    return _Found(tokens, attempt)


def _time_words(
    view: "faster_whisper.WhisperModel",
    parts: list[dict[str, Any]],
    tokenizer: "Tokenizer",
    encoded: Any,
    size: int,
    last_speech_s: float,
) -> float | None:
    """Put times to the words of *parts*, which follow what ended at *last_speech_s*; returns where the last of them ends."""
    view.add_word_timestamps(
        [parts], tokenizer, encoded, size, PREPENDED, APPENDED, last_speech_timestamp=last_speech_s
    )
    ends = [word["end"] for part in parts for word in part["words"]]
    return float(ends[-1]) if ends else None


def _segment(
    number: int, seek: int, part: dict[str, Any], text: str, found: _Found, options: DecodeOptions
) -> "whisper.Segment":
    from faster_whisper.transcribe import Segment, Word

    return Segment(
        id=number,
        seek=seek,
        start=part["start"],
        end=part["end"],
        text=text,
        tokens=part["tokens"],
        temperature=0.0,
        avg_logprob=found.attempt.avg_logprob,
        compression_ratio=compression_ratio(found.attempt.text),
        no_speech_prob=found.attempt.no_speech_prob,
        words=[Word(**word) for word in part["words"]] if options.word_timestamps else None,
    )


def _detected(view: "faster_whisper.WhisperModel", encoded: Any) -> tuple[str, float]:
    """The likeliest language of what was *encoded*, and its probability."""
    token, probability = view.model.detect_language(encoded)[0][0]
    return token[2:-2], probability  # <|en|>


def _padded(features: NDArray[np.float32], window: int, silence: float) -> NDArray[np.float32]:
    """*features* (mels, frames) with *silence* behind them up to *window* frames."""
    padded = np.full((features.shape[0], window), silence, dtype=np.float32)
    padded[:, : features.shape[1]] = features
    return padded
