"""Whether what a short window gave may be believed.

A short window fails in ways that can be seen: it repeats itself, runs on without an end, says more than anybody can in
that time, says nothing, or is unsure of its own words. Each is a `Doubt`, and the utterance is decoded again at the full window:
a bad shrink costs time, never words. Only whether anybody speaks at all is left to the detector of speech, which is better
at that and costs less. What looks right and is wrong is not caught here; against that stand the floor and the
margin in `windows`. Thresholds beside a reference are that reference's, the others were chosen on the accuracy set.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

COMPRESSION_RATIO: Final = 2.4  # openai/whisper: text that zlib shrinks by more repeats itself
LOG_PROBABILITY: Final = -0.8  # stricter than openai/whisper's -1.0
NO_SPEECH: Final = 0.2  # openai/whisper has 0.6, for what it then drops unheard; this only asks the detector
GREEDY_LOG_PROBABILITY: Final = -0.5
GREEDY_NO_SPEECH: Final = 0.1
"""A greedy search that is less sure than the one, while Whisper thinks of silence more than the other, is worth a wider one."""
NO_SPEECH_AT_ALL: Final = 0.6  # openai/whisper's, for what it drops when it is unsure of its words as well
LANGUAGE_PROBABILITY: Final = 0.5  # faster-whisper's
TOKENS_PER_S: Final = 10.0
"""Text tokens in a second of audio; fast speech has 6, spelled numbers and names some more."""
FREE_TOKENS: Final = 12
"""Beyond the pace: the ends of short utterances are cut closely."""
REPEATED_NGRAM: Final = 4
"""Tokens of a phrase which, said three times in a row, is a loop."""


class Doubt(StrEnum):
    """Why a decode on a short window is not believed."""

    UNFINISHED = "unfinished"
    REPETITION = "repetition"
    UNSURE = "unsure"
    WORDLESS = "wordless"
    SILENCE = "silence"
    LANGUAGE = "language"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a search on a short window gave.

    tokens: of the text, without timestamps; audio_s: seconds of audio in the window; avg_logprob: mean natural logarithm
    of the tokens' probabilities; no_speech_prob: Whisper's own guess that nobody speaks; is_finished: whether the
    search ended by itself, not at `token_limit`.
    """

    text: str
    tokens: tuple[int, ...]
    audio_s: float
    avg_logprob: float
    no_speech_prob: float
    is_finished: bool


def token_limit(audio_s: float) -> int:
    """Text tokens that *audio_s* seconds of speech can hold; a search that needs more is a loop."""
    return int(TOKENS_PER_S * audio_s) + FREE_TOKENS


def doubt(attempt: Attempt) -> Doubt | None:
    """Why *attempt* is not to be believed without more ado; None when it is. The last to be asked about is silence."""
    if not attempt.is_finished:
        return Doubt.UNFINISHED
    if compression_ratio(attempt.text) > COMPRESSION_RATIO or has_loop(attempt.tokens):
        return Doubt.REPETITION
    if not has_words(attempt.text):
        return Doubt.WORDLESS
    if attempt.avg_logprob < LOG_PROBABILITY:
        return Doubt.UNSURE
    return Doubt.SILENCE if attempt.no_speech_prob > NO_SPEECH else None


def deserves_beams(attempt: Attempt) -> bool:
    """Whether a greedy *attempt* may have missed words that a search with beams, on what is encoded already, would find.

    A short window costs greedy searches more than others: they cannot leave a wrong first word.
    """
    is_half_silent = (
        attempt.no_speech_prob > GREEDY_NO_SPEECH and attempt.avg_logprob < GREEDY_LOG_PROBABILITY
    )
    return attempt.is_finished and (is_half_silent or attempt.avg_logprob < LOG_PROBABILITY)


def has_words(text: str) -> bool:
    """Whether *text* holds a letter or a digit: of music and other sounds Whisper makes full stops and notes."""
    return any(map(str.isalnum, text))


def is_sound(text: str, *, avg_logprob: float, no_speech_prob: float) -> bool:
    """Whether what a full window gave on a second try is no speech but what Whisper makes of a sound."""
    return not has_words(text) or (no_speech_prob > NO_SPEECH_AT_ALL and avg_logprob < LOG_PROBABILITY)


def compression_ratio(text: str) -> float:
    """How much zlib shrinks *text*, as openai/whisper measures repetition."""
    encoded = text.encode("utf-8")
    return len(encoded) / len(zlib.compress(encoded))


def has_loop(tokens: Sequence[int]) -> bool:
    """Whether some phrase of up to `REPEATED_NGRAM` tokens, of at least two different ones, stands there three times in a row;
    of one token alone four times, as people do say "no, no, no".
    """
    for size in range(1, REPEATED_NGRAM + 1):
        times = 4 if size == 1 else 3
        for start in range(len(tokens) - size * times + 1):
            phrase = tokens[start : start + size]
            if all(tokens[start + size * n : start + size * (n + 1)] == phrase for n in range(1, times)):
                return True
    return False
