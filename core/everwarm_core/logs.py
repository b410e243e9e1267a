"""structlog, set up once per program: JSON lines where nobody watches, colour on a terminal.

Events are constants (`model.loaded`), data is in attributes. The original system's tags (`[WHISPER-INIT]`,
`[WHISPER-LOAD]`, `[WHISPER-REUSE]`, `[STT-CACHE]`) stay searchable as the attribute `tag`. Lines go to stderr, so
that stdout stays the program's answer, and carry trace and span ids when a span is open. The standard library's
loggers (uvicorn, redis, faster-whisper) end up in the same stream and shape.
"""

import logging
import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any

import structlog
from opentelemetry import trace


class Tag(StrEnum):
    """Log tags of the original system."""

    INIT = "[WHISPER-INIT]"
    LOAD = "[WHISPER-LOAD]"
    REUSE = "[WHISPER-REUSE]"
    CACHE = "[STT-CACHE]"


def configure_logging(*, level: str = "INFO", json: bool | None = None) -> None:
    """Send all logging of this process to stderr.

    level: a standard level name; json: force JSON lines on or off, None means JSON unless stderr is a terminal.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _trace_ids,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = (
        [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),  # locals hold transcripts, tokens and URLs with passwords
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *render,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def silence_other_threads() -> None:
    """From now on other threads wait where they log, so that what this one tells last is the last line.

    For the end of a process that leaves threads behind, a load or a decode, and never to be taken back.
    """
    for handler in logging.getLogger().handlers:
        handler.acquire()


def library_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for code that runs inside somebody else's program, such as a LiveKit worker.

    It goes through the standard library's logging, data as `extra`, whatever structlog is set to there (unset, it
    prints to stdout, past the program's handlers). In our own programs its lines look like every other.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def _trace_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event
