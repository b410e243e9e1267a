"""One way to transcribe, in a process of its own: `python -m bench.way NAME ...`, asked line by line.

The benchmarks of latency start one such process per way and ask them in turn, utterance by utterance, so that whatever
the machine does meanwhile happens to all of them; a process that is not asked takes no time. Each has the allocator's
settings, threads and memory that its users would have. A request is the path of a `.npy` file (float32, mono, 16 kHz),
the answer one line of JSON: the seconds from samples to text, and the text. Loading the samples is not counted.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from everwarm_stt.audio import Pcm16k
from everwarm_stt.engine import DecodeOptions, Engine
from everwarm_stt.settings import PodSettings
from everwarm_stt.weights import Weights, resolve_weights, show_progress

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

Transcribe = Callable[[Pcm16k], str]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all ways have in common: the weights, int8, *beam* beams, *threads* threads, and the language told."""

    model: str
    language: str
    beam: int
    threads: int

    def weights(self) -> Weights:
        """The weights, as a pod finds them."""
        return resolve_weights(PodSettings(model=self.model), show_progress())


def _model(setting: Setting) -> "WhisperModel":
    from faster_whisper import WhisperModel

    return WhisperModel(str(setting.weights().path), compute_type="int8", cpu_threads=setting.threads)


def _by_faster_whisper(model: "WhisperModel", audio: Pcm16k, setting: Setting) -> str:
    segments, _ = model.transcribe(audio, language=setting.language, beam_size=setting.beam)
    return "".join(segment.text for segment in segments).strip()


def per_utterance(setting: Setting) -> Transcribe:
    """A model made for each utterance, as the original system did."""
    return lambda audio: _by_faster_whisper(_model(setting), audio, setting)


def cached(setting: Setting) -> Transcribe:
    """faster-whisper as its users start it: one model, kept."""
    model = _model(setting)
    return lambda audio: _by_faster_whisper(model, audio, setting)


def batched(setting: Setting) -> Transcribe:
    """faster-whisper's BatchedInferencePipeline around a model that is kept."""
    from faster_whisper import BatchedInferencePipeline

    pipeline = BatchedInferencePipeline(_model(setting))

    def transcribe(audio: Pcm16k) -> str:
        segments, _ = pipeline.transcribe(audio, language=setting.language, beam_size=setting.beam)
        return "".join(segment.text for segment in segments).strip()

    return transcribe


def engine(setting: Setting) -> Transcribe:
    """Everwarm's engine with its guards."""
    loaded = Engine.load(
        setting.weights(), device="cpu", compute_type="int8", slots=1, cpu_threads=setting.threads
    )
    options = DecodeOptions(language=setting.language, beam_size=setting.beam)
    return lambda audio: loaded.decode(audio, options).text


WAYS: Final[Mapping[str, Callable[[Setting], Transcribe]]] = {
    way.__name__: way for way in (per_utterance, cached, batched, engine)
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a way made of one utterance, in *seconds*."""

    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class RunningWay:
    """A way that waits to be asked."""

    process: "subprocess.Popen[str]"

    def ask(self, samples: Path) -> Answer:
        """Have it transcribe the `.npy` file *samples*."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{samples}\n")
        self.process.stdin.flush()
        told = self.process.stdout.readline()
        if not told:
            raise RuntimeError(f"the way ended with exit code {self.process.wait()}")
        return Answer(**json.loads(told))


@contextmanager
def running_way(
    name: str, setting: Setting, environment: Mapping[str, str] | None = None
) -> Iterator[RunningWay]:
    """The way *name* in a process of its own inside `with`; *environment* is added to ours."""
    command = [sys.executable, "-m", "bench.way", name]
    command += [f"--{field}={getattr(setting, field)}" for field in Setting.__slots__]
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield RunningWay(process)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Answer until nobody asks any more."""
    parser = argparse.ArgumentParser(prog="python -m bench.way")
    parser.add_argument("name", choices=WAYS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--beam", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = vars(parser.parse_args())
    # Standard output is for answers.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    transcribe = WAYS[given.pop("name")](Setting(**given))
    for line in sys.stdin:
        audio = np.load(line.strip())
        began = time.perf_counter()
        text = transcribe(audio)
        took_s = time.perf_counter() - began
        sys.stdout.write(json.dumps({"seconds": took_s, "text": text}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
