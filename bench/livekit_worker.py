"""One LiveKit-like worker process of the benchmark `workers`: makes its STT, transcribes clips, looks at itself.

Prints one line of JSON. Started by `bench.workers`, four at a time.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from livekit import rtc

import everwarm.livekit
from bench.memory import mapped_libraries, pss_mib
from tests.support.local_pods import local_pods
from tests.support.speech import SAMPLE_RATE, Clip, clips, words

UTTERANCES: Final = 6


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker found: wrong transcripts, whether it maps an inference engine, its memory, the pods it sees."""

    utterances: int
    wrong: int
    holds_engine: bool
    pss_mib: float
    pod_pids: list[int]


async def _work() -> Found:
    stt = everwarm.livekit.create_stt(
        model="tiny.en",
        language="en",
        fallback="local" if os.environ.get("EVERWARM_WORKER_FALLBACK") else None,
    )
    wrong = 0
    for clip in clips()[:UTTERANCES]:
        event = await stt.recognize(_frame(clip))
        wrong += words(event.alternatives[0].text) != words(clip.text)
    own = os.getpid()
    found = Found(
        utterances=UTTERANCES,
        wrong=wrong,
        holds_engine=any("ctranslate2" in name or "onnxruntime" in name for name in mapped_libraries(own)),
        pss_mib=pss_mib(own),
        pod_pids=[pod.pid for pod in local_pods(Path(os.environ.get("XDG_RUNTIME_DIR", "")))],
    )
    await stt.aclose()
    return found


def _frame(clip: Clip) -> rtc.AudioFrame:
    samples = clip.samples()
    return rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, len(samples))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(asyncio.run(_work()))) + "\n")
