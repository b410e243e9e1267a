"""The memory of a pod with two slots, against one faster-whisper model in a bare process, after the same utterances.

Both have decoded each clip at least once when they are looked at, the pod two at a time. PSS, base, int8; each with the
allocator's settings that its users get.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from bench.memory import pss_mib
from bench.report import Figure, Promise, Report
from bench.way import Setting, running_way
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec
from tests.support.pods import running_pod
from tests.support.speech import clips

MODEL: Final = "base"
SLOTS: Final = 2
LIMIT: Final = 1.15
TIMES: Final = 3


def run() -> Report:
    """One after the other."""
    resource = WhisperModel(
        metadata=Metadata(name="bench"), spec=WhisperModelSpec(model=MODEL, languages=("en",), slots=SLOTS)
    )
    heard = clips() * TIMES
    with tempfile.TemporaryDirectory() as folder:
        with running_pod({"EVERWARM_CPUS": str(SLOTS)}, folder=Path(folder), resource=resource) as pod:
            ready = pss_mib(pod.process.pid)
            with ThreadPoolExecutor(SLOTS) as callers:
                list(callers.map(lambda clip: pod.transcribe(clip.pcm(), model=MODEL), heard))
            ours = pss_mib(pod.process.pid)
        with running_way("cached", Setting(MODEL, "en", 5, SLOTS)) as way:
            for number, clip in enumerate(heard):
                file = Path(folder) / f"{number}.npy"
                np.save(file, clip.samples().astype(np.float32) / 32768)
                way.ask(file)
            theirs = pss_mib(way.process.pid)
    return Report(
        "Memory of a pod",
        figures=(
            Figure("a pod of two slots when ready", ready, "MiB"),
            Figure(f"after {len(heard)} utterances, two at a time", ours, "MiB"),
            Figure("one faster-whisper model in a bare process, after the same", theirs, "MiB"),
        ),
        promises=(Promise("pod of two slots / one bare model", ours / theirs, LIMIT, "x"),),
    )
