"""Proof that a pod is warm: real decodes of bundled speech, repeated until they no longer get faster.

A loaded model is not a fast one: the first decodes allocate work buffers in every worker, import the container and
silence detectors, and fill caches. So everything a first request can meet is run once, untimed (the container, the
full window with the sampling of a fallback, word times, detection, translation, the silence detector, every shorter
window, batches, every slot at once), and then each language is decoded until one decode takes about as long as the one before
it. Only that makes the pod warm for the key. Called once by the pod's start, on a worker thread, after the load; the caller registers and turns ready.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Final, TypeVar

import numpy as np
import structlog
from opentelemetry.trace import Tracer

from everwarm_core import telemetry
from everwarm_core.errors import DecodeCancelled, EverwarmError, WarmupFailed
from everwarm_core.languages import AUTO
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_stt.audio import SAMPLE_RATE, Pcm16k, decode_audio
from everwarm_stt.engine import DecodeOptions, Engine
from everwarm_stt.engine.memory import give_back_free_memory
from everwarm_stt.engine.windows import FRAMES_PER_S, MARGIN, WINDOWS

SETTLED_FACTOR: Final = 1.3  # two decodes of the same speech on a shared machine differ by up to this
NOISE_S: Final = 0.02  # differences below are jitter, which weighs on small models and GPUs
MAX_ROUNDS: Final = 12  # two cores with ten busy processes needed 3; the rest is margin
SPEECH_LIMIT_S: Final = 30.0
SAMPLING_TEMPERATURE: Final = 0.2  # the first fallback
FEW_WORDS: Final = (
    SAMPLE_RATE  # samples, so one second; where only the path matters, fewer words are fewer tokens
)

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WarmProof:
    """What the warm-up measured.

    load_s, warm_s: seconds of the load and of the whole warm-up; durations: seconds of each timed decode by
    language, the last of which is the steady one.
    """

    load_s: float
    warm_s: float
    durations: Mapping[str, tuple[float, ...]]


def bundled_speech() -> bytes:
    """A few seconds of clean speech, as a FLAC file."""
    return files("everwarm_stt").joinpath("data/warmup.flac").read_bytes()


def is_settled(durations: Sequence[float], factor: float = SETTLED_FACTOR) -> bool:
    """Whether the last two of *durations* (seconds) differ by no more than *factor*, or by jitter alone."""
    if len(durations) < 2:
        return False
    low, high = sorted(durations[-2:])
    return high <= low * factor or high - low <= NOISE_S


def prove_warm(
    engine: Engine,
    *,
    languages: Sequence[str],
    speech: bytes,
    options: DecodeOptions,
    timeout_s: float,
    batch: int = 1,
    tracer: Tracer | None = None,
) -> WarmProof:
    """Warm every path a first request can take, then prove each of *languages*; blocks, use a thread.

    speech: an audio file, as `bundled_speech()`; options: those of an ordinary request, whose language is replaced;
    timeout_s: budget for all of it; batch: utterances that may share a slot. Opens a `warm` span per language.
    Raises WarmupFailed.
    """
    started = time.monotonic()
    run = _WarmUp(engine, options, deadline=started + timeout_s, timeout_s=timeout_s, batch=batch)
    tracer = tracer or telemetry.tracer()
    audio = run.guarded("audio", lambda: decode_audio(speech, limit_s=SPEECH_LIMIT_S))
    few_words = audio[:FEW_WORDS]
    run.touch_all_paths(few_words)
    run.touch_all_windows(few_words)
    run.touch_batches(few_words)
    give_back_free_memory()  # those paths need more than most requests ever will
    run.fill_slots(languages[0] if languages else AUTO, audio)
    durations: dict[str, tuple[float, ...]] = {}
    for language in languages:
        attributes: dict[str, str] = {
            Attribute.MODEL: engine.model,
            Attribute.LANGUAGE: language,
            Attribute.INSTANCE: engine.id,
        }
        with tracer.start_as_current_span(SpanName.WARM, attributes=attributes):
            durations[language] = run.settle(language, audio)
    return WarmProof(load_s=engine.load_s, warm_s=time.monotonic() - started, durations=durations)


@dataclass(frozen=True, slots=True)
class _WarmUp:
    """One warm-up of *engine*; *deadline* in monotonic seconds."""

    engine: Engine
    options: DecodeOptions
    deadline: float
    timeout_s: float
    batch: int

    def touch_all_paths(self, words: Pcm16k) -> None:
        """Run, once and untimed, what ordinary decodes of one language do not touch; both at the full window."""
        everything = replace(self.options, language=AUTO, word_timestamps=True, vad="always", fallback=False)
        if self.engine.is_multilingual:
            everything = replace(everything, task="translate")
        self.decode(words, everything)
        self.decode(words, replace(self.options, language="en", temperature=SAMPLING_TEMPERATURE))

    def touch_all_windows(self, words: Pcm16k) -> None:
        """Decode once in each window that an utterance may be encoded in."""
        if self.options.window == "full":
            return
        options = self.timed_options("en")
        for window in WINDOWS:
            room = (window - MARGIN) * SAMPLE_RATE // FRAMES_PER_S
            self.decode(np.pad(words, (0, max(0, room - len(words)))), options)

    def touch_batches(self, words: Pcm16k) -> None:
        """Decode as many utterances as share one slot where several wait, on all slots at once."""
        if self.batch == 1:
            return
        self.decode_at_once(
            self.batch * self.engine.slots, words, self.timed_options("en"), company=self.batch
        )

    def fill_slots(self, language: str, audio: Pcm16k) -> None:
        """Decode on all slots at once: each has a worker with buffers of its own."""
        if self.engine.slots == 1:
            return
        self.decode_at_once(self.engine.slots, audio, self.timed_options(language))

    def decode_at_once(self, times: int, audio: Pcm16k, options: DecodeOptions, company: int = 1) -> None:
        """*times* decodes, each from a thread of its own."""
        with ThreadPoolExecutor(times, "warm") as pool:
            jobs = [
                pool.submit(copy_context().run, self.decode, audio, options, company) for _ in range(times)
            ]
            for job in jobs:
                job.result()

    def settle(self, language: str, audio: Pcm16k) -> tuple[float, ...]:
        """Seconds of each decode in *language*, until two in a row took about as long."""
        durations: list[float] = []
        while not is_settled(durations):
            if len(durations) == MAX_ROUNDS:
                shown = ", ".join(f"{duration:.3f}" for duration in durations)
                raise WarmupFailed(
                    self.engine.model,
                    f"decodes in {language!r} did not settle in {MAX_ROUNDS} rounds ({shown} s); "
                    "is the CPU shared with something busy?",
                )
            began = time.monotonic()
            self.decode(audio, self.timed_options(language))
            durations.append(time.monotonic() - began)
        log.info(
            "key.proven",
            instance=self.engine.id,
            model=self.engine.model,
            language=language,
            rounds=len(durations),
            first_s=round(durations[0], 3),
            steady_s=round(durations[-1], 3),
        )
        return tuple(durations)

    def timed_options(self, language: str) -> DecodeOptions:
        """An ordinary request's options, less the fallback: its number of tries is random."""
        return replace(self.options, language=language, temperature=None, fallback=False)

    def decode(self, audio: Pcm16k, options: DecodeOptions, company: int = 1) -> None:
        """One decode; a model that hears nothing in plain English speech has broken weights."""
        step = f"decode in {options.language!r}"
        transcript = self.guarded(
            step, lambda: self.engine.decode(audio, options, cancelled=self.is_late, company=company)
        )
        if options.language == "en" and not transcript.text:
            raise WarmupFailed(
                self.engine.model, f"{step}: heard nothing in clear speech; are the weights whole?"
            )

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def guarded(self, step: str, work: Callable[[], T]) -> T:
        """The result of *work*; whatever fails in it is a WarmupFailed that names *step*."""
        try:
            return work()
        except DecodeCancelled as error:
            raise WarmupFailed(self.engine.model, f"{step}: not done within {self.timeout_s:g} s") from error
        # A warm-up probe: CTranslate2 raises RuntimeError for devices and memory, and the pod must name the step.
        except (EverwarmError, RuntimeError, ValueError) as error:
            raise WarmupFailed(self.engine.model, f"{step}: {error}") from error
