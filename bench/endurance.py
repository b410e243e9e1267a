"""1,000 mixed requests on one pod of the base model: one load, and memory that does not grow.

Every kind of request the pod serves comes up in each cycle of `KINDS`: formats, raw samples, word times, streaming,
translation, detected language, a recording, and input it refuses. Three callers share two slots, so the queue is used
too. Memory is compared between request 100, by when every kind has been seen, and request 1,000.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import openai

from bench.memory import pss_mib
from bench.report import Figure, Promise, Report
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec
from tests.support.pods import PodProcess, running_pod
from tests.support.speech import clips, recording

REQUESTS: Final = 1000
READ_EVERY: Final = 100
RECORDING_EVERY: Final = 50  # a recording takes as long as ten utterances
MODEL: Final = "base"
RESOURCE: Final = WhisperModel(
    metadata=Metadata(name=MODEL), spec=WhisperModelSpec(model=MODEL, languages=("en",), slots=2)
)


def run() -> Report:
    """One pod of multilingual base with two slots."""
    readings: dict[int, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_pod({"EVERWARM_CPUS": "2"}, folder=Path(folder), resource=RESOURCE) as pod,
    ):
        client = openai.OpenAI(base_url=f"{pod.url}/v1", api_key="none", max_retries=0, timeout=300)
        request = kinds_of_requests(client, pod)
        started_mib = pss_mib(pod.process.pid)
        with ThreadPoolExecutor(3) as callers:
            for done in range(READ_EVERY, REQUESTS + 1, READ_EVERY):
                for _ in callers.map(request, range(done - READ_EVERY, done)):
                    pass
                readings[done] = pss_mib(pod.process.pid)
                sys.stderr.write(f"bench: request {done}: {readings[done]:.0f} MiB\n")
        loads = len(pod.events("model.loaded"))
        alive = pod.is_ready()
    first, last = readings[READ_EVERY], readings[REQUESTS]
    return Report(
        title="Endurance of one pod",
        promises=(
            Promise("memory (PSS) at request 1,000 / at request 100", last / first, 1.05, "x"),
            Promise("loads in the process's life, less one", abs(loads - 1), 0, "loads"),
            Promise("pod not ready at the end", 0 if alive else 1, 0, ""),
        ),
        figures=(
            Figure("memory when ready", started_mib, "MiB"),
            *(Figure(f"memory at request {count}", mib, "MiB") for count, mib in readings.items()),
        ),
    )


def kinds_of_requests(client: openai.OpenAI, pod: PodProcess) -> Callable[[int], None]:
    """A function that makes request *number*; which kind it is follows from the number."""
    files = [clip.path.read_bytes() for clip in clips()]
    samples = [clip.pcm() for clip in clips()]
    long = recording().path.read_bytes()
    transcribe, translate = client.audio.transcriptions.create, client.audio.translations.create

    def upload(number: int) -> tuple[str, bytes]:
        return ("clip.flac", files[number % len(files)])

    def stream(number: int) -> None:
        for _ in transcribe(file=upload(number), model=MODEL, language="en", stream=True):
            pass

    def words(number: int) -> None:
        transcribe(
            file=upload(number),
            model=MODEL,
            language="en",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )

    def damaged(number: int) -> None:
        try:
            transcribe(file=("clip.flac", files[0][: number % 1000]), model=MODEL)
        except openai.BadRequestError:
            return
        raise AssertionError("a damaged file was accepted")

    kinds: Sequence[Callable[[int], object]] = (
        lambda n: transcribe(file=upload(n), model=MODEL, language="en"),
        lambda n: pod.transcribe(samples[n % len(samples)], model=MODEL),
        lambda n: transcribe(file=upload(n), model=MODEL, language="en", response_format="verbose_json"),
        stream,
        lambda n: transcribe(file=upload(n), model=MODEL, language="en", response_format="text"),
        words,
        lambda n: transcribe(file=upload(n), model=MODEL, language="en", response_format="srt"),
        damaged,
        lambda n: transcribe(file=upload(n), model=MODEL, language="en", response_format="vtt"),
        lambda n: translate(file=upload(n), model=MODEL),
        lambda n: transcribe(file=upload(n), model=MODEL),
    )

    def request(number: int) -> None:
        if number % RECORDING_EVERY == RECORDING_EVERY // 2:
            transcribe(file=("recording.flac", long), model=MODEL, language="en")
        else:
            kinds[number % len(kinds)](number)

    return request
