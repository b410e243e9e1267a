"""How long a pod takes from its process's start to Ready, against the least that this can be (`bench.bare_start`).

What a pod's warm-up asks of the feature extractor and of CTranslate2 is written down once, with its arguments, and the
bare script does the same.
Starts of both take turns, one thread each, with the allocator's settings of pods.
"""

import copy
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.report import Figure, Promise, Report, spread
from bench.way import Setting
from everwarm_core.cpus import ONE_BLAS_THREAD
from everwarm_core.pod_environment import MALLOC
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec
from everwarm_stt.audio import decode_audio
from everwarm_stt.engine import DecodeOptions, Engine
from everwarm_stt.prewarm import FEW_WORDS, bundled_speech, prove_warm
from everwarm_stt.weights import Weights
from tests.support.pods import running_pod

ROUNDS: Final = 7
MODELS: Final = {"tiny.en": "en", "base": "en"}
REHEARSALS: Final = 3
FACTOR: Final = 1.2
MARGIN_S: Final = 0.4

Decode = tuple[str, tuple[Any, ...], dict[str, Any]]


class Witness:
    """A CTranslate2 model that writes down what it is asked to do."""

    def __init__(self, model: Any, asked: list[Decode]) -> None:
        self._model, self._asked = model, asked

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        return (
            self._watched(name, found)
            if name in ("encode", "generate", "align", "detect_language")
            else found
        )

    def _watched(self, name: str, found: Callable[..., Any]) -> Callable[..., Any]:
        def ask(first: Any, *positional: Any, **named: Any) -> Any:
            if name == "encode":
                self._asked.append((name, (np.array(first),), {}))
            else:
                self._asked.append((name, positional, named))
            return found(first, *positional, **named)

        return ask


def witnessed(extractor: Any, asked: list[Decode]) -> Any:
    """A copy of faster-whisper's feature *extractor* that writes down what it is asked."""

    class WitnessedExtractor(type(extractor)):  # type: ignore[misc]  # it ships no types
        def __call__(self, audio: Any, **named: Any) -> Any:
            asked.append(("features", (np.array(audio),), named))
            return super().__call__(audio, **named)

    copied = copy.copy(extractor)
    copied.__class__ = WitnessedExtractor
    return copied


def run() -> Report:
    """tiny.en and base, each for one language."""
    figures: list[Figure] = []
    promises: list[Promise] = []
    for model, language in MODELS.items():
        weights = Setting(model, language, 5, 1).weights()
        resource = WhisperModel(
            metadata=Metadata(name="bench"), spec=WhisperModelSpec(model=model, languages=(language,))
        )
        pods, bare = [], []
        with tempfile.TemporaryDirectory() as folder:
            decodes = Path(folder) / "decodes"
            decodes.write_bytes(pickle.dumps(_warm_up_decodes(weights, language)))
            for _ in range(ROUNDS):
                began = time.perf_counter()
                with running_pod({"EVERWARM_CPUS": "1"}, folder=Path(folder), resource=resource):
                    pods.append(time.perf_counter() - began)
                bare.append(_bare(weights.path, decodes))
        pod_s, bare_s = statistics.median(pods), statistics.median(bare)
        promises.append(
            Promise(
                f"{model}: process start to ready beyond the bare script",
                pod_s - bare_s,
                max((FACTOR - 1) * bare_s, MARGIN_S),
                "s",
            )
        )
        figures += [
            Figure(f"{model}: a pod, process start to ready", pod_s, "s", spread(pods)),
            Figure(f"{model}: the bare script", bare_s, "s", spread(bare)),
            Figure(f"{model}: pod / bare script", pod_s / bare_s, "x"),
        ]
    return Report("Start to warm", tuple(figures), tuple(promises))


def _warm_up_decodes(weights: Weights, language: str) -> list[Decode]:
    """What a pod's warm-up and rehearsal ask of the model, in order."""
    engine = Engine.load(weights, device="cpu", compute_type="int8", slots=1, cpu_threads=1)
    asked: list[Decode] = []
    whisper = engine._whisper  # noqa: SLF001 - the only way to watch
    whisper.model = Witness(whisper.model, asked)
    whisper.feature_extractor = witnessed(whisper.feature_extractor, asked)
    options = DecodeOptions(language=language)
    speech = bundled_speech()
    prove_warm(engine, languages=[language], speech=speech, options=options, timeout_s=300)
    few_words = decode_audio(speech, limit_s=30)[:FEW_WORDS]
    for _ in range(REHEARSALS):
        engine.decode(few_words, options)
    return asked


def _bare(weights: Path, decodes: Path) -> float:
    """Seconds from the start of the bare script until it is warm."""
    script = Path(__file__).with_name("bare_start.py")
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), str(weights), str(decodes)],
        env={**os.environ, **MALLOC, **ONE_BLAS_THREAD},
        capture_output=True,
        text=True,
        check=True,
    )
    took_s = time.perf_counter() - began
    if done.stdout != "warm\n":
        raise RuntimeError(f"the bare script ended with {done.stdout!r}")
    return took_s
