"""Memory and CPU of a set of processes, sampled from outside by a thread.

Memory is PSS where the kernel tells it (Linux): a page that four workers share counts once, so nobody's memory is
counted four times for sharing libraries. Elsewhere it is USS, the pages a process shares with nobody, which
flatters all ways alike. CPU is user and system time of all processes, those that ended included.
"""

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

import psutil

SAMPLE_EVERY_S: Final = 0.2  # a look at ten processes takes about 10 ms
CPU_WINDOW_S: Final = 1.0  # a CPU figure over less shows the scheduler, not the load
MEMORY_KIND: Final = "pss" if sys.platform == "linux" else "uss"


@dataclass(frozen=True, slots=True)
class Sample:
    """At *at* (monotonic seconds) each process held its *memory* in bytes, by pid; *cpu_s*: seconds of CPU used so
    far by all of them, those that ended included.
    """

    at: float
    memory: Mapping[int, int]
    cpu_s: float

    def held(self, pids: Collection[int] | None = None) -> int:
        """Bytes held by *pids*, or by all."""
        return sum(held for pid, held in self.memory.items() if pids is None or pid in pids)


class Meter:
    """Samples the processes that *pids* names, inside `with`. This process's own CPU is left out: it is the meter's."""

    def __init__(self, pids: Callable[[], Collection[int]]) -> None:
        self.samples: list[Sample] = []
        self._pids = pids
        self._own_pid = os.getpid()
        self._cpu_s: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def look(self) -> Sample:
        """One sample, taken now and not kept."""
        memory: dict[int, int] = {}
        for pid in self._pids():
            with suppress(psutil.Error):  # it ended just now
                process = psutil.Process(pid)
                memory[pid] = getattr(process.memory_full_info(), MEMORY_KIND)
                if pid != self._own_pid:
                    times = process.cpu_times()
                    self._cpu_s[pid] = times.user + times.system
        return Sample(time.monotonic(), memory, sum(self._cpu_s.values()))

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.samples.append(self.look())


def peak_bytes(samples: Sequence[Sample]) -> int:
    """The most memory ever held."""
    return max((sample.held() for sample in samples), default=0)


def steady_bytes(samples: Sequence[Sample], *, since: float, pids: Collection[int] | None = None) -> int:
    """The median of the memory held after *since*, by *pids* or by all."""
    held = [sample.held(pids) for sample in samples if sample.at >= since]
    return round(statistics.median(held)) if held else 0


def peak_cpu_percent(samples: Sequence[Sample], *, since: float, window_s: float = CPU_WINDOW_S) -> float:
    """The most CPU used over any *window_s* after *since*, in percent of one CPU."""
    used = [sample for sample in samples if sample.at >= since]
    peak = 0.0
    for number, first in enumerate(used):
        last = next((sample for sample in used[number + 1 :] if sample.at - first.at >= window_s), None)
        if last is not None:
            peak = max(peak, 100 * (last.cpu_s - first.cpu_s) / (last.at - first.at))
    return peak
