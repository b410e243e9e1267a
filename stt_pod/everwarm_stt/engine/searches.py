"""Encoder pass and search, for one utterance or for several at once.

A batch shares what a search costs beside its arithmetic: each step reads all weights once, however many utterances it
serves. So, where the resource's `batch` allows it, requests that were given one turn together (`turns`) are searched together where they fit: the same window,
the same width, prompts of one length. Nobody waits for company that may not come: only those who share a turn, and for
`COMPANY_S` at the most. Whoever's thread finds a worker free runs the oldest batch for everybody in it, so there is no
thread of its own that could die or fall behind; the others sleep until theirs is done.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import faster_whisper

MAX_INITIAL_TIMESTAMP: Final = 50
"""1 s, in steps of 20 ms: faster-whisper's default."""

COMPANY_S: Final = 0.01
"""Within which those who share a turn have their features: these take up to 6 ms, one after the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One utterance to be searched.

    features: (mels, frames), padded to its window; prompt: tokens before the first one searched; limit: tokens in all,
    prompt included; suppressed: tokens that may not come; company: requests that share this one's turn, itself
    included.
    """

    features: NDArray[np.float32]
    prompt: Sequence[int]
    limit: int
    beam_size: int
    suppressed: tuple[int, ...]
    company: int = 1

    def fits(self, other: "Ask") -> bool:
        """Whether both can be searched at once."""
        return (
            self.features.shape == other.features.shape
            and len(self.prompt) == len(other.prompt)
            and self.beam_size == other.beam_size
            and self.suppressed == other.suppressed
        )


@dataclass(slots=True, eq=False)
class _Pending:
    """An ask on its way, and what became of it: CTranslate2's result, or what went wrong."""

    ask: Ask
    came_at: float = field(default_factory=time.monotonic)
    result: Any = None
    error: BaseException | None = None
    is_done: bool = False


class Searches:
    """Runs asks on *model*, on *workers* threads at a time."""

    def __init__(self, model: "faster_whisper.WhisperModel", *, workers: int) -> None:
        self._model = model
        self._free = workers
        self._pending: list[_Pending] = []
        self._changed = threading.Condition()

    def run(self, ask: Ask) -> Any:
        """CTranslate2's `WhisperGenerationResult` for *ask*; blocks. Raises what CTranslate2 raises."""
        mine = _Pending(ask)
        with self._changed:
            self._pending.append(mine)
            self._changed.notify_all()
        while not mine.is_done:
            if batch := self._next(mine):
                self._search(batch)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _next(self, mine: _Pending) -> list[_Pending]:
        """The oldest batch, once a worker is free; none when *mine* has been done by somebody else meanwhile."""
        with self._changed:
            while not mine.is_done:
                left_s = self._company_due_in_s() if self._free and self._pending else None
                if left_s is not None and left_s <= 0:
                    self._free -= 1
                    return self._taken()
                self._changed.wait(left_s)
            return []

    def _company_due_in_s(self) -> float:
        """Seconds that the oldest ask still waits for those who share its turn."""
        oldest = self._pending[0]
        if len(self._fitting(oldest)) >= oldest.ask.company:
            return 0.0
        return oldest.came_at + COMPANY_S - time.monotonic()

    def _taken(self) -> list[_Pending]:
        batch = self._fitting(self._pending[0])
        self._pending = [pending for pending in self._pending if pending not in batch]
        return batch

    def _fitting(self, oldest: _Pending) -> list[_Pending]:
        """Those that can be searched with *oldest*, no more than its turn is meant for."""
        fitting = [pending for pending in self._pending if pending.ask.fits(oldest.ask)]
        return fitting[: oldest.ask.company]

    def _search(self, batch: Sequence[_Pending]) -> None:
        try:
            results = search(self._model, [pending.ask for pending in batch])
            for pending, result in zip(batch, results, strict=True):
                pending.result = result
        except BaseException as error:  # noqa: BLE001  # each asker raises it on its own thread
            for pending in batch:
                pending.error = error
        with self._changed:
            self._free += 1
            for pending in batch:
                pending.is_done = True
            self._changed.notify_all()


def search(model: "faster_whisper.WhisperModel", asks: Sequence[Ask]) -> list[Any]:
    """A `WhisperGenerationResult` for each of *asks*, which fit each other."""
    return search_encoded(model, _encoded(model, asks), asks)


def _encoded(model: "faster_whisper.WhisperModel", asks: Sequence[Ask]) -> Any:
    """What the encoder makes of *asks*; on a CPU one by one, since the scores of several leave its caches (docs/adr/0012)."""
    if model.model.device == "cuda" or len(asks) == 1:
        return model.encode(np.stack([ask.features for ask in asks]))
    from ctranslate2 import StorageView

    alone = [np.asarray(model.encode(ask.features)) for ask in asks]
    return StorageView.from_array(np.concatenate(alone))


def search_encoded(model: "faster_whisper.WhisperModel", encoded: Any, asks: Sequence[Ask]) -> list[Any]:
    """As `search`, of what was *encoded* already."""
    found: list[Any] = model.model.generate(
        encoded,
        [list(ask.prompt) for ask in asks],
        beam_size=asks[0].beam_size,
        max_length=max(ask.limit for ask in asks),
        return_scores=True,
        return_no_speech_prob=True,
        suppress_tokens=asks[0].suppressed,
        max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP,
    )
    return found
