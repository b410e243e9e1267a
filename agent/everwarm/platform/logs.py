"""Lines that children write, read as what they are: a pod's JSON log events, or any program's plain text.

The platform stands where a cluster's log collector would: it keeps the event's attributes, so that the CLI can show
them by level, the demo can count loads, and a pod that died can be quoted with the reason it gave.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_HIDDEN: Final = frozenset({"event", "level", "timestamp", "logger", "exception", "trace_id", "span_id"})
_REASONS: Final = ("reason", "error")  # attributes that say why, most telling first


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: *level* as in `logging`, *event* the constant or the whole text, *attributes* what JSON held."""

    level: int
    event: str
    attributes: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = (f"{name}={value}" for name, value in self.attributes.items() if name not in _HIDDEN)
        return " ".join((self.event, *shown))


def parse_line(text: str) -> LogLine:
    """What *text* says; plain text counts as INFO, since nothing tells its weight."""
    if text.startswith("{"):
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("event"), str):
            level = logging.getLevelNamesMapping().get(str(record.get("level", "info")).upper(), logging.INFO)
            return LogLine(level, record["event"], record)
    return LogLine(logging.INFO, text)


def last_words(lines: Iterable[str]) -> str:
    """Why a child died, by its own *lines*: the last error it logged, else the last line that says anything."""
    parsed = [parse_line(text) for text in lines if text.strip()]
    errors = [line for line in parsed if line.level >= logging.ERROR]
    last = (errors or parsed)[-1:]
    if not last:
        return "it wrote nothing"
    for name in _REASONS:
        if reason := last[0].attributes.get(name):
            return str(reason)
    return last[0].event
