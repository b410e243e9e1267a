"""Speech-to-text for voice agents, served by pods that are already warm.

    async with everwarm.Client(redis_url="redis://...") as client:
        transcript = await client.transcribe(audio, model="base.en", language="en")

`Router` says which pod an utterance would go to, and why. Importing this package loads no model, no numpy and no audio
library: an agent holds nothing.
"""

from everwarm import errors
from everwarm.client import Client
from everwarm.routing import Router
from everwarm_core.transcript import Segment, Transcript, Word

__all__ = ["Client", "Router", "Segment", "Transcript", "Word", "errors"]
