"""What one way of serving a model was measured to do, as values; everything derived is computed here, purely."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from everwarm.demo.clips import Turn
from everwarm.demo.protocol import Answer
from everwarm.demo.wer import word_error_rate, words


class Way(StrEnum):
    """The three ways, in the order of their history."""

    BEFORE = "before"
    CACHED = "cached"
    EVERWARM = "everwarm"


@dataclass(frozen=True, slots=True)
class Played:
    """A turn and what became of it."""

    turn: Turn
    answer: Answer


@dataclass(frozen=True, slots=True)
class WayResult:
    """All that was measured of one way with one model.

    worker_loads, pod_loads: loads of the model, counted from log events; memory in bytes and over all processes of
    the way (workers; for Everwarm also pods, Valkey, and the demo itself, which runs the platform), memory_workers:
    the part of memory_steady that the workers hold; cpu_s: seconds of CPU over all utterances; cpu_peak_percent: of one CPU, over a second; mapped: model libraries found in the
    memory maps of the workers, None where the system does not show them.
    """

    way: Way
    model: str
    played: tuple[Played, ...]
    worker_loads: int
    pod_loads: int
    pods: tuple[str, ...]
    memory_peak: int
    memory_steady: int
    memory_workers: int
    cpu_s: float
    cpu_peak_percent: float
    mapped: tuple[str, ...] | None

    @property
    def loads(self) -> int:
        """Loads of the model in all processes."""
        return self.worker_loads + self.pod_loads

    @property
    def workers(self) -> tuple[int, ...]:
        """The workers' numbers."""
        return tuple(sorted({played.turn.worker for played in self.played}))

    @property
    def first_s(self) -> float:
        """Median of the workers' first requests."""
        return statistics.median(p.answer.seconds for p in self.played if p.turn.is_first)

    @property
    def later_s(self) -> float:
        """Median of all other requests."""
        return statistics.median(p.answer.seconds for p in self.played if not p.turn.is_first)

    @property
    def first_over_later(self) -> float:
        """How many times longer a worker's first request takes than later ones of its round: of the same clip, within
        the same seconds. The median of all workers.
        """
        return self._over_later(p for p in self.played if p.turn.is_first)

    @property
    def pods_first_over_later(self) -> float:
        """The same of the first request that each pod got after it was ready; the median of all pods."""
        return self._over_later(self._firsts_of_pods)

    @property
    def _firsts_of_pods(self) -> tuple[Played, ...]:
        firsts: dict[str, Played] = {}
        for played in self.played:
            firsts.setdefault(played.answer.served_by, played)
        return tuple(firsts.values())

    @property
    def cpu_per_utterance_s(self) -> float:
        """Seconds of CPU that one utterance costs, over all processes."""
        return self.cpu_s / len(self.played)

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed, one reason each."""
        return tuple(p.answer.error for p in self.played if p.answer.error is not None)

    @property
    def libraries(self) -> tuple[str, ...]:
        """Model libraries that any of the workers imported or mapped."""
        imported = {name for p in self.played for name in p.answer.libraries}
        return tuple(sorted(imported | set(self.mapped or ())))

    @property
    def word_error_rate(self) -> float:
        """Over all utterances; 0 is perfect."""
        return word_error_rate((p.turn.clip.text, p.answer.text) for p in self.played)

    @property
    def transcripts(self) -> Mapping[str, frozenset[tuple[str, ...]]]:
        """The words heard in each clip, by the clip's name; more than one entry when they differed."""
        heard: dict[str, set[tuple[str, ...]]] = {}
        for played in self.played:
            heard.setdefault(played.turn.clip.name, set()).add(words(played.answer.text))
        return {name: frozenset(texts) for name, texts in heard.items()}

    @property
    def served(self) -> Mapping[str, Mapping[int, int]]:
        """Utterances by who served them, and by worker."""
        count: dict[str, Counter[int]] = {}
        for played in self.played:
            count.setdefault(played.answer.served_by, Counter())[played.turn.worker] += 1
        return count

    def summary(self) -> dict[str, Any]:
        """The figures, for machines; no transcripts."""
        return {
            "way": self.way.value,
            "model": self.model,
            "utterances": len(self.played),
            "failures": list(self.failures),
            "first_request_s": self.first_s,
            "later_requests_s": self.later_s,
            "first_over_later": self.first_over_later,
            "memory_peak_bytes": self.memory_peak,
            "memory_steady_bytes": self.memory_steady,
            "memory_workers_bytes": self.memory_workers,
            "cpu_per_utterance_s": self.cpu_per_utterance_s,
            "cpu_peak_percent": self.cpu_peak_percent,
            "loads": {"workers": self.worker_loads, "pods": self.pod_loads},
            "word_error_rate": self.word_error_rate,
            "served": {who: dict(by) for who, by in self.served.items()},
        }

    def _over_later(self, firsts: Iterable[Played]) -> float:
        pods_firsts = self._firsts_of_pods
        later: dict[int, list[float]] = {}
        for played in self.played:
            if not played.turn.is_first and played not in pods_firsts:
                later.setdefault(played.turn.round, []).append(played.answer.seconds)
        return statistics.median(
            first.answer.seconds / statistics.median(later.get(first.turn.round, [self.later_s]))
            for first in firsts
        )
