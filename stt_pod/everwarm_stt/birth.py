"""From nothing to a model that is proven warm, on one thread that begins before the server's libraries are imported.

Imports hold the interpreter's lock, loads and decodes do not: with the engine's own imports first, all that FastAPI, Redis'
client and the rest take to import is done while the weights are read and the first decodes run. The thread is a daemon:
the interpreter's and the event loop's pools would be waited for at the end of the process, and nobody can stop a load.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeVar

from everwarm_core.cpus import available_cpus, threads_per_slot
from everwarm_stt.engine import DecodeOptions, Engine, import_libraries
from everwarm_stt.prewarm import WarmProof, bundled_speech, prove_warm
from everwarm_stt.settings import PodSettings
from everwarm_stt.weights import resolve_weights, show_progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Birth:
    """What the thread will have done: the engine once it is loaded, the proof once it is warm, or why not.

    Both fail with WeightsUnavailable, the proof with WarmupFailed besides.
    """

    engine: "Future[Engine]" = field(default_factory=Future)
    proof: "Future[WarmProof]" = field(default_factory=Future)


def begin(settings: PodSettings, *, began: float) -> Birth:
    """Start the thread, with this thread's context variables; its spans belong to the current one.

    began: `time.monotonic()` of the process's start, from which the warm-up's budget counts.
    """
    import_libraries()  # before the server's, or the thread would wait for those
    birth = Birth()

    def run() -> None:
        engine = _kept(birth.engine, lambda: load(settings))
        if engine is None:
            birth.proof.set_exception(birth.engine.exception())
            return
        left_s = settings.warmup_timeout_seconds - (time.monotonic() - began)
        _kept(birth.proof, lambda: prove(engine, settings, timeout_s=max(0.0, left_s)))

    threading.Thread(target=copy_context().run, args=(run,), name="birth", daemon=True).start()
    return birth


def load(settings: PodSettings) -> Engine:
    """Find the weights and load them; blocks, possibly for a download. Raises WeightsUnavailable."""
    cpus = settings.cpus or available_cpus()
    return Engine.load(
        resolve_weights(settings, show_progress()),
        device=settings.device,
        compute_type=settings.compute_type,
        slots=settings.slots,
        cpu_threads=threads_per_slot(cpus, settings.slots),
    )


def prove(engine: Engine, settings: PodSettings, *, timeout_s: float) -> WarmProof:
    """Prove *engine* warm for each language of *settings*; blocks. Raises WarmupFailed."""
    return prove_warm(
        engine,
        languages=settings.languages,
        speech=bundled_speech(),
        options=ordinary_options(settings, settings.languages[0]),
        timeout_s=timeout_s,
    )


def ordinary_options(settings: PodSettings, language: str) -> DecodeOptions:
    """How a request that asks for nothing special is decoded in *language*."""
    return DecodeOptions(
        language=language,
        temperature=settings.temperature,
        beam_size=settings.beam_size,
        vad=settings.vad,
        window=settings.window,
    )


def _kept(future: "Future[T]", work: Callable[[], T]) -> T | None:
    """The result of *work*, which *future* gets as well; None when it failed, and *future* has the reason."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # handed over whole to whoever waits
        with suppress(Exception):  # nobody waits any more
            future.set_exception(error)
        return None
    with suppress(Exception):
        future.set_result(result)
    return result
