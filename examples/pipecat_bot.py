"""A Pipecat bot that hears with Everwarm: no model in the bot but the VAD, the first utterance as fast as every other.

    pip install 'everwarm[pipecat]'
    export EVERWARM_BASE_URL=http://gateway:8080        # or EVERWARM_REDIS_URL=redis://redis:6379
    python examples/pipecat_bot.py 8765                 # for a client of Pipecat's WebSocket transport

It writes down what it hears; a real bot has context aggregators, an LLM and a TTS after the STT, and more often than not
another transport before it.
"""

import asyncio
import sys

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import ErrorFrame, Frame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.server import (
    SingleClientWebsocketServerParams,
    SingleClientWebsocketServerTransport,
)
from pipecat.workers.runner import WorkerRunner

from everwarm.pipecat import STTService


class Scribe(FrameProcessor):
    """Writes down each final."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Print what was said, and pass everything on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            print(frame.text, flush=True)
        await self.push_frame(frame, direction)


async def main(port: int) -> None:
    """One client at a time, until Ctrl-C."""
    transport = SingleClientWebsocketServerTransport(
        params=SingleClientWebsocketServerParams(audio_in_enabled=True, serializer=ProtobufFrameSerializer()),
        host="127.0.0.1",
        port=port,
    )
    stt = STTService(model="tiny.en", language="en")

    @stt.event_handler("on_error")
    async def failed(_: STTService, error: ErrorFrame) -> None:
        print(error.error, file=sys.stderr)

    vad = VADProcessor(vad_analyzer=SileroVADAnalyzer())
    worker = PipelineWorker(Pipeline([transport.input(), vad, stt, Scribe()]), idle_timeout_secs=None)
    runner = WorkerRunner(handle_sigterm=True)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
