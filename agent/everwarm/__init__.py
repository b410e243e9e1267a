"""Speech-to-text for voice agents, served by pods that are already warm.

    async with everwarm.Client(redis_url="redis://...") as client:
        transcript = await client.transcribe(audio, model="base.en", language="en")

`Router` says which pod an utterance would go to, and why. Importing this package loads no model, no numpy and no audio
library: an agent holds nothing. Names are looked up when they are first used, so that a small program inside the
package (the guardian of a local pod) does not pay for aiohttp and redis, 50 MB of memory.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from everwarm import errors, livekit, pipecat
    from everwarm.client import Client
    from everwarm.routing import Router
    from everwarm_core.transcript import Segment, Transcript, Word

__all__ = ["Client", "Router", "Segment", "Transcript", "Word", "errors", "livekit", "pipecat"]

_HOME: Final = {
    "Client": "everwarm.client",
    "Router": "everwarm.routing",
    "Segment": "everwarm_core.transcript",
    "Transcript": "everwarm_core.transcript",
    "Word": "everwarm_core.transcript",
}


def __getattr__(name: str) -> Any:
    if name in {"errors", "livekit", "pipecat"}:
        return import_module(f"everwarm.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
