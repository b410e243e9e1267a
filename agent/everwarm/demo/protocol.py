"""What the demo and its worker processes say to each other: one JSON object a line, over stdin and stdout.

A worker first says `Hello`, then answers each `Order` with an `Answer`, and ends when stdin does. Its log goes to
stderr. Standard library only: it is imported by workers whose memory is measured.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Final

MODEL_LIBRARIES: Final = ("ctranslate2", "faster_whisper", "onnxruntime", "torch")
"""Modules that only a process which runs models imports."""


@dataclass(frozen=True, slots=True)
class Order:
    """Transcribe the audio file at *path*."""

    path: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one order.

    seconds: from order to transcript, inside the worker; text: the transcript, empty when it failed; served_by: the
    pod, or this process's own pid; error: why it failed; libraries: those of `MODEL_LIBRARIES` imported by now.
    """

    seconds: float
    text: str
    served_by: str
    error: str | None = None
    libraries: tuple[str, ...] = ()


def loaded_libraries() -> tuple[str, ...]:
    """The `MODEL_LIBRARIES` that this process has imported."""
    return tuple(name for name in MODEL_LIBRARIES if name in sys.modules)


def write(message: Order | Answer | None) -> bytes:
    """The line for *message*; None is `Hello`."""
    return json.dumps(asdict(message) if message else {"hello": True}).encode() + b"\n"


def read_order(line: bytes | str) -> Order:
    """The order in *line*."""
    return Order(**json.loads(line))


def read_answer(line: bytes | str) -> Answer:
    """The answer in *line*."""
    fields = json.loads(line)
    return Answer(**{**fields, "libraries": tuple(fields["libraries"])})
