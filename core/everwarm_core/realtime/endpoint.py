"""Where utterances begin and end, from one probability of speech per window; pure.

As OpenAI's server VAD is documented: speech begins where the detector is surer than *threshold*, and has ended when it
was silent for *silence_ms*. Two things are added. The beginning of a silence is told at once (`Paused`), so that the
transcript can be had by the time the end is certain. And who speaks without a pause is cut, at the quietest moment of
the last seconds, before Whisper's window of 30 s is full.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from everwarm_core.realtime.speech import WINDOW, WINDOW_MS

HYSTERESIS: Final = 0.15
"""Speech goes on until the probability is this far below the threshold; Silero's own value."""
ONSET_WINDOWS: Final = 2
"""Windows in a row that make a beginning: a click has one."""
PAUSE_WINDOWS: Final = 3
"""Silent windows that make a pause: 96 ms. Plosives have gaps of up to 80 ms in them."""
CUT_AFTER_S: Final = 28.0
CUT_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Endpointing:
    """How utterances are told apart.

    threshold: probability that counts as speech; prefix_ms: audio from before the beginning that belongs to the utterance;
    silence_ms: silence that ends one; None where somebody else says when it ends, and nothing is cut.
    """

    threshold: float = 0.5
    prefix_ms: int = 300
    silence_ms: int | None = 500


@dataclass(frozen=True, slots=True)
class Mark:
    """Something happened at sample *at* of the stream."""

    at: int


class Started(Mark):
    """Speech began."""


class Paused(Mark):
    """A silence began some windows ago; *at* is now."""


class Resumed(Mark):
    """Speech went on after a pause."""


class Stopped(Mark):
    """The utterance is over; *at* is where its speech ended."""


class Cut(Stopped):
    """The utterance was ended while somebody went on speaking: the next begins at the same sample."""


class Endpointer:
    """Follows one stream by *rules*, which may be changed at any time."""

    def __init__(self, rules: Endpointing) -> None:
        self.rules = rules
        self._at = 0
        self._onset = 0
        self._speaks_since: int | None = None
        self._silent = 0
        self._recent: deque[float] = deque(maxlen=int(CUT_WITHIN_S * 1000) // WINDOW_MS)

    @property
    def is_speaking(self) -> bool:
        """Whether an utterance is open."""
        return self._speaks_since is not None

    @property
    def is_silent(self) -> bool:
        """Whether nobody spoke in the window fed last."""
        return self._silent > 0

    def forget(self) -> None:
        """What was heard so far is no utterance any more; the stream goes on."""
        self._speaks_since, self._onset, self._silent = None, 0, 0
        self._recent.clear()

    def go_on_at(self, at: int) -> None:
        """Forget what was heard so far; the next window begins at sample *at*."""
        self.forget()
        self._at = at

    def feed(self, probability: float) -> tuple[Mark, ...]:
        """What the next window changes."""
        began, self._at = self._at, self._at + WINDOW
        if self._speaks_since is None:
            return self._awaiting(began, probability)
        return self._within(probability)

    def _awaiting(self, began: int, probability: float) -> tuple[Mark, ...]:
        self._onset = self._onset + 1 if probability >= self.rules.threshold else 0
        if self._onset < ONSET_WINDOWS:
            return ()
        self._speaks_since = began - (ONSET_WINDOWS - 1) * WINDOW
        self._onset = self._silent = 0
        return (Started(self._speaks_since),)

    def _within(self, probability: float) -> tuple[Mark, ...]:
        silence_ms = self.rules.silence_ms
        was_paused = self._silent >= PAUSE_WINDOWS
        if probability >= self.rules.threshold:
            self._silent = 0
            marks: tuple[Mark, ...] = (Resumed(self._at),) if was_paused else ()
        elif self._silent or probability < self.rules.threshold - HYSTERESIS:
            self._silent += 1
            marks = (Paused(self._at),) if self._silent == PAUSE_WINDOWS else ()
        else:
            marks = ()
        if silence_ms is None:
            return marks
        if self._silent and self._silent * WINDOW_MS >= silence_ms:
            ended = self._at - self._silent * WINDOW
            self.forget()
            return (*marks, Stopped(ended))
        return (*marks, *self._cut(probability))

    def _cut(self, probability: float) -> tuple[Mark, ...]:
        self._recent.append(probability)
        assert self._speaks_since is not None
        if (self._at - self._speaks_since) / WINDOW * WINDOW_MS < CUT_AFTER_S * 1000:
            return ()
        quietest = min(range(len(self._recent)), key=self._recent.__getitem__)
        at = self._at - (len(self._recent) - 1 - quietest) * WINDOW
        self._recent.clear()
        self._speaks_since, self._silent = at, 0
        return (Cut(at), Started(at))
