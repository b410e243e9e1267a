"""The program `everwarm-pod`: settings from the environment, logs, telemetry, one life, one exit code.

0 after a drain, 1 when the pod failed (its last line of log says why), 2 for a wrong command line. Everything heavy
is imported after the settings are known to be good, so `--help` and a bad environment answer at once; and of it the server
comes last, when the model is being loaded already (`birth`).
"""

import asyncio
import gc
import logging
import os
import sys
import time
from importlib.metadata import version
from typing import NoReturn

import structlog
from opentelemetry.trace import use_span

from everwarm_core import telemetry
from everwarm_core.cpus import ONE_BLAS_THREAD
from everwarm_core.environment import PREFIX
from everwarm_core.errors import EverwarmError
from everwarm_core.logs import configure_logging, silence_other_threads
from everwarm_core.telemetry import Attribute, SpanName
from everwarm_stt.settings import PodSettings, load_settings, unknown_variables

log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    """Run a pod until it is told to stop; never returns, the exit code says how it ended."""
    began = time.monotonic()
    for name, value in ONE_BLAS_THREAD.items():
        os.environ.setdefault(name, value)
    gc.disable()  # until the pod is warm: all that is made now stays, and looking through it costs a tenth of the imports
    match sys.argv[1:]:
        case []:
            _exit(_run(began))
        case ["--help" | "-h"]:
            sys.stdout.write(help_text())
        case ["--version"]:
            sys.stdout.write(version("everwarm-stt") + "\n")
        case arguments:
            sys.stderr.write(f"everwarm-pod takes no arguments, got {' '.join(arguments)!r}; see --help\n")
            sys.exit(2)


def help_text() -> str:
    """What `--help` prints: every variable, from the settings' own descriptions."""
    lines = [
        "everwarm-pod: one Whisper model in one process, proven warm before /readyz answers 200.",
        "",
        "It takes no arguments; everything is an environment variable:",
        "",
    ]
    for name, field in PodSettings.model_fields.items():
        is_fixed = not field.is_required() and field.default_factory is None
        default = f" [{field.default}]" if is_fixed and field.default not in (None, "", ()) else ""
        lines += [f"  {PREFIX}{name.upper()}{default}", f"      {field.description}"]
    lines += [
        "",
        "Traces and metrics go where OTEL_EXPORTER_OTLP_ENDPOINT says; /metrics works either way.",
        "SIGTERM drains: the registry is told first, what is held is finished, then the pod exits 0.",
        "",
        "Examples:",
        "  EVERWARM_MODEL=tiny.en everwarm-pod",
        "  EVERWARM_MODEL=base EVERWARM_LANGUAGES=en,de,auto EVERWARM_SLOTS=2 \\",
        "      EVERWARM_REDIS_URL=redis://127.0.0.1:6379 EVERWARM_PORT=0 everwarm-pod",
        "  curl -F file=@speech.wav -F model=tiny.en http://127.0.0.1:8000/v1/audio/transcriptions",
    ]
    return "\n".join(lines) + "\n"


def _run(began: float) -> int:
    """One life, and its exit code. The last line of log of a pod that failed says why."""
    configure_logging()
    logging.getLogger("python_multipart").setLevel(
        logging.ERROR
    )  # it warns for each odd byte of a stranger's form
    try:
        settings = load_settings()
        for name in unknown_variables(os.environ):
            log.warning("settings.unknown", variable=name, hint="misspelt? everwarm-pod --help lists all")
        failure = _live(settings, began)
    except EverwarmError as error:
        failure = error
    except Exception:  # the edge of the program: a defect, told with its trace
        silence_other_threads()
        log.exception("pod.crashed")
        return 1
    silence_other_threads()
    if failure is not None:
        log.error("pod.failed", reason=str(failure), error=type(failure).__name__)
        return 1
    log.info("pod.ended")
    return 0


def _live(settings: PodSettings, began: float) -> EverwarmError | None:
    from everwarm_stt import birth

    began_ns = time.time_ns() - int((time.monotonic() - began) * 1e9)
    begun = birth.begin(settings, began=began)
    attributes = {
        "service.instance.id": settings.pod_id,
        "service.namespace": settings.namespace,
        Attribute.MODEL.value: settings.model,
    }
    exported = telemetry.start("everwarm-pod", version=version("everwarm-stt"), attributes=attributes)
    try:
        span = telemetry.tracer().start_span(
            SpanName.START,
            attributes={Attribute.MODEL.value: settings.model, Attribute.POD.value: settings.pod_id},
            start_time=began_ns,
        )
        with use_span(span):
            begun.observe()
        import uvloop

        from everwarm_stt.lifecycle import live

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(live(settings, exported, begun, span, began=began))
    finally:
        exported.shutdown()


def _exit(code: int) -> NoReturn:
    """End the process now. The interpreter would first wait for threads that nothing can stop: a load, a decode."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
