"""How one request is decoded: what the caller and the spec ask for, and what follows from it."""

from dataclasses import dataclass
from typing import Final, Literal

from everwarm_core.languages import AUTO
from everwarm_core.requests import Task
from everwarm_stt.engine.windows import LONGEST_S

VadPolicy = Literal["recordings", "always", "never"]
WindowPolicy = Literal["auto", "full"]

WINDOW_S: Final = 30.0  # what Whisper's encoder sees at once; longer audio is a recording
FALLBACK_TEMPERATURES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # faster-whisper's default


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How one request is decoded.

    language: a Whisper code or `auto` (detected from the first window); prompt: text the transcript may follow on
    from, the last 224 tokens of it count; temperature: None or 0 is faster-whisper's automatic fallback, a value
    above is used alone; word_timestamps: also time each word; vad: when silence is cut out first; window: whether an
    utterance may be encoded in a window shorter than 30 s; fallback: whether a decode that looks wrong is tried again,
    at the full window and then with sampling, which takes a random number of tries.
    """

    language: str = AUTO
    task: Task = "transcribe"
    prompt: str | None = None
    temperature: float | None = None
    word_timestamps: bool = False
    beam_size: int = 5
    vad: VadPolicy = "recordings"
    window: WindowPolicy = "auto"
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

    def may_shrink(self, length_s: float) -> bool:
        """Whether audio of *length_s* seconds may be encoded in a window that is shorter than 30 s."""
        is_plain = self.window == "auto" and not self.temperature and not self.cuts_silence(length_s)
        return is_plain and length_s <= LONGEST_S
