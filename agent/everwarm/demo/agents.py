"""A worker with Everwarm: `python -m everwarm.demo.agents MODEL`; holds a `Client` and no model.

The registry is named by EVERWARM_REDIS_URL, as in any agent. Which pod served an utterance is read from the client's
own trace (`everwarm.pod` on the span `everwarm.transcribe`), which is where an operator would look it up.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from everwarm import Client
from everwarm.demo.protocol import Answer, loaded_libraries, read_order, write
from everwarm_core.errors import EverwarmError
from everwarm_core.logs import configure_logging
from everwarm_core.telemetry import Attribute, SpanName

LANGUAGE: Final = "en"


class ServedBy(SpanProcessor):
    """Remembers the pod of the last utterance."""

    pod = ""

    def on_end(self, span: ReadableSpan) -> None:
        """Read the pod off a finished transcription."""
        if span.name == SpanName.TRANSCRIBE:
            self.pod = str((span.attributes or {}).get(Attribute.POD, ""))


async def transcribe(client: Client, model: str, path: str, served_by: ServedBy) -> Answer:
    """Send the file at *path* to a warm pod."""
    started = time.perf_counter()
    try:
        text = (await client.transcribe(Path(path), model=model, language=LANGUAGE)).text
        error = None
    except EverwarmError as failure:
        text, error = "", str(failure)
    return Answer(time.perf_counter() - started, text, served_by.pod, error, loaded_libraries())


async def serve(model: str) -> None:
    """Serve orders until stdin ends."""
    served_by = ServedBy()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(served_by)
    trace.set_tracer_provider(tracers)
    async with Client() as client:
        _say(write(None))
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            _say(write(await transcribe(client, model, read_order(line).path, served_by)))


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def main() -> None:
    """Run one worker."""
    configure_logging(json=True)  # at INFO, so that a load would be seen
    asyncio.run(serve(sys.argv[1]))


if __name__ == "__main__":
    main()
