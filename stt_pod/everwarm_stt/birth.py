"""From nothing to a model that is proven warm, on one thread that begins before most libraries are imported.

Imports hold the interpreter's lock, loads and decodes do not: with the engine's own imports first, all that OpenTelemetry's
SDK, FastAPI, Redis' client and the rest take to import is done while the weights are read and the first decodes run. So
the load begins before its span can, which is written down when telemetry is there (`Birth.observe`). The thread is a daemon:
the interpreter's and the event loop's pools would be waited for at the end of the process, and nobody can stop a load.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TypeVar

from opentelemetry.trace import StatusCode

from everwarm_core import telemetry
from everwarm_core.cpus import available_cpus, threads_per_slot
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_stt.engine import DecodeOptions, Engine, import_libraries
from everwarm_stt.prewarm import WarmProof, bundled_speech, prove_warm
from everwarm_stt.settings import PodSettings
from everwarm_stt.weights import resolve_weights, show_progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Birth:
    """What the thread will have done: the engine once it is loaded, the proof once it is warm, or why not.

    Both fail with WeightsUnavailable, the proof with WarmupFailed besides. The proof waits for `observe`.
    """

    engine: "Future[Engine]" = field(default_factory=Future)
    proof: "Future[WarmProof]" = field(default_factory=Future)
    _context: "Future[Context]" = field(default_factory=Future)

    def observe(self) -> None:
        """Telemetry is set up: the thread's spans belong to the current one, its logs to this thread's context."""
        self._context.set_result(copy_context())

    def observed(self, work: Callable[[], None]) -> None:
        """*work* in the context that `observe` hands over, once it has."""
        self._context.result().run(work)


def begin(settings: PodSettings, *, began: float) -> Birth:
    """Start the thread.

    began: `time.monotonic()` of the process's start, from which the warm-up's budget counts.
    """
    birth = Birth()

    def run() -> None:
        began_ns = time.time_ns()
        loaded = _settled(birth.engine, lambda: load(settings))
        ended_ns = time.time_ns()

        def go_on() -> None:
            _record_load(settings, loaded, began_ns, ended_ns)
            _settled(birth.proof, lambda: _proof(loaded))

        birth.observed(go_on)

    def _proof(loaded: Engine | BaseException) -> WarmProof:
        if isinstance(loaded, BaseException):
            raise loaded
        left_s = settings.warmup_timeout_seconds - (time.monotonic() - began)
        return prove(loaded, settings, timeout_s=max(0.0, left_s))

    threading.Thread(target=run, name="birth", daemon=True).start()
    import_libraries()  # while it finds the weights; and before the server's, or it would wait for those
    return birth


def _record_load(settings: PodSettings, loaded: Engine | BaseException, began_ns: int, ended_ns: int) -> None:
    """The span of a load from *began_ns* to *ended_ns*, nanoseconds of the epoch."""
    attributes: dict[str, str] = {Attribute.MODEL: settings.model}
    if isinstance(loaded, Engine):
        attributes[Attribute.INSTANCE] = loaded.id
    span = telemetry.tracer().start_span(SpanName.LOAD, attributes=attributes, start_time=began_ns)
    if isinstance(loaded, BaseException):
        span.record_exception(loaded)
        span.set_status(StatusCode.ERROR)
    span.end(ended_ns)


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
        batch=settings.batch,
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


def _settled(future: "Future[T]", work: Callable[[], T]) -> T | BaseException:
    """The result of *work*, or what it raised; *future* gets it as well, if anybody still waits."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # handed over whole to whoever waits
        with suppress(InvalidStateError):
            future.set_exception(error)
        return error
    with suppress(InvalidStateError):
        future.set_result(result)
    return result
