"""The memory of a pod with two slots, against one faster-whisper model in a bare process, after the same utterances.

Both have decoded each clip at least once when they are looked at, the pod two at a time. PSS, base, int8; each with the
allocator's settings that its users get.
"""

import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from bench.memory import pss_mib
from bench.report import Figure, Promise, Report, spread
from bench.way import Setting, running_way
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec
from tests.support.pods import running_pod
from tests.support.speech import clips

MODEL: Final = "base"
SLOTS: Final = 2
LIMIT: Final = 1.15
TIMES: Final = 3
ROUNDS: Final = 5


def run() -> Report:
    """In turn, `ROUNDS` times; bare processes stand at one of two levels, by chance."""
    ready, ours, theirs = [], [], []
    for number in range(ROUNDS):
        sys.stderr.write(f"bench: footprint: round {number + 1}\n")
        at_first, afterwards = _pod()
        ready.append(at_first)
        ours.append(afterwards)
        theirs.append(_bare())
    pod, bare = statistics.median(ours), statistics.median(theirs)
    return Report(
        "Memory of a pod",
        figures=(
            Figure("a pod of two slots when ready", statistics.median(ready), "MiB", spread(ready)),
            Figure(f"after {len(clips()) * TIMES} utterances, two at a time", pod, "MiB", spread(ours)),
            Figure("one faster-whisper model in a bare process, after the same", bare, "MiB", spread(theirs)),
        ),
        promises=(Promise("pod of two slots / one bare model", pod / bare, LIMIT, "x"),),
    )


def _pod() -> tuple[float, float]:
    """MiB of a pod when it is ready, and after the utterances."""
    resource = WhisperModel(
        metadata=Metadata(name="bench"), spec=WhisperModelSpec(model=MODEL, languages=("en",), slots=SLOTS)
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        running_pod({"EVERWARM_CPUS": str(SLOTS)}, folder=Path(folder), resource=resource) as pod,
        ThreadPoolExecutor(SLOTS) as callers,
    ):
        ready = pss_mib(pod.process.pid)
        list(callers.map(lambda clip: pod.transcribe(clip.pcm(), model=MODEL), clips() * TIMES))
        return ready, pss_mib(pod.process.pid)


def _bare() -> float:
    """MiB of a bare process after the utterances."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_way("cached", Setting(MODEL, "en", 5, SLOTS)) as way,
    ):
        for number, clip in enumerate(clips() * TIMES):
            file = Path(folder) / f"{number}.npy"
            np.save(file, clip.samples().astype(np.float32) / 32768)
            way.ask(file)
        return pss_mib(way.process.pid)
