"""What commands write: answers to stdout, everything else to stderr, in colour where somebody watches."""

import json
import sys
from typing import Any, Final

from rich.console import Console

PIPE_WIDTH: Final = 120  # columns


def answers() -> Console:
    """Stdout, for tables; a pipe has no width, so tables get one that holds them."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def notices() -> Console:
    """Stderr, for progress, warnings and errors."""
    return Console(stderr=True, highlight=False)


def write_text(text: str) -> None:
    """*text* to stdout as it is, at once: a reader behind a pipe waits for it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """*value* to stdout as one line of JSON."""
    write_text(json.dumps(value, ensure_ascii=False) + "\n")
