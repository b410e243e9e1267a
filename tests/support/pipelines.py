"""A Pipecat pipeline as a bot has one: audio comes in as from a transport, a VAD cuts it, a service hears it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, MetricsFrame
from pipecat.metrics.metrics import MetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.stt_service import STTService
from pipecat.workers.runner import WorkerRunner

from tests.support.speech import Clip
from tests.support.waiting import until

FRAMES_PER_S = 50  # what transports deliver: 20 ms
SILENCE_S = 1.0
HEARD_WITHIN_S = 30.0
VAD = VADParams(stop_secs=0.5)  # Pipecat's 0.2 s cut a sentence at its comma

F = TypeVar("F", bound=Frame)
M = TypeVar("M", bound=MetricsData)


class Witness(FrameProcessor):
    """Keeps what passes by, up or down."""

    def __init__(self, seen: list[Frame]) -> None:
        super().__init__()
        self._seen = seen

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Keep *frame* and pass it on."""
        await super().process_frame(frame, direction)
        self._seen.append(frame)
        await self.push_frame(frame, direction)


@dataclass(frozen=True, slots=True)
class RunningPipeline:
    """A pipeline that runs; *seen* is what left the service on either side."""

    worker: PipelineWorker
    rate: int
    seen: list[Frame] = field(default_factory=list)

    def frames(self, kind: type[F]) -> list[F]:
        """The frames of *kind* (and no subclass) so far; one that passed both sides counts once."""
        found = {frame.id: frame for frame in self.seen if type(frame) is kind}
        return list(found.values())

    def metrics(self, kind: type[M]) -> list[M]:
        """The metrics of *kind* so far."""
        return [data for frame in self.frames(MetricsFrame) for data in frame.data if isinstance(data, kind)]

    async def hear(self, *said: Clip) -> None:
        """Speech with a second of silence before and after each clip, all at once."""
        silence = np.zeros(int(SILENCE_S * 16_000), np.int16)
        samples = np.concatenate([silence, *(part for clip in said for part in (clip.samples(), silence))])
        await self.worker.queue_frames(audio_frames(samples, self.rate))

    async def wait_for(self, kind: type[F], count: int = 1) -> list[F]:
        """The first *count* frames of *kind*, once there are so many."""
        await until(lambda: len(self.frames(kind)) >= count, within_s=HEARD_WITHIN_S)
        return self.frames(kind)[:count]

    async def end(self) -> None:
        """Ask for a graceful end; the pipeline's context waits for it."""
        await self.worker.queue_frame(EndFrame())

    async def cancel(self) -> None:
        """Cancel the pipeline."""
        await self.worker.cancel()


def audio_frames(samples: npt.NDArray[np.int16], rate: int = 16_000) -> list[InputAudioRawFrame]:
    """*samples* (16 kHz mono) as Pipecat's frames of 20 ms at *rate*."""
    if rate != 16_000:
        # Straight lines between samples: crude, and the speech stays what it is.
        moments = np.arange(0, len(samples) / 16_000, 1 / rate)
        samples = np.interp(moments, np.arange(len(samples)) / 16_000, samples).astype(np.int16)
    size = rate // FRAMES_PER_S
    return [
        InputAudioRawFrame(audio=samples[start : start + size].tobytes(), sample_rate=rate, num_channels=1)
        for start in range(0, len(samples), size)
    ]


@asynccontextmanager
async def running_pipeline(
    service: STTService, *, rate: int = 16_000, has_vad: bool = True
) -> AsyncIterator[RunningPipeline]:
    """*service* behind Silero's VAD, unless the service has one; ended gracefully at the end of `with`."""
    seen: list[Frame] = []
    # Audio comes as a whole here: a second without any is a pause of this machine, and not a muted microphone.
    vad = [VADProcessor(vad_analyzer=SileroVADAnalyzer(params=VAD), audio_idle_timeout=0)] if has_vad else []
    worker = PipelineWorker(
        Pipeline([*vad, Witness(seen), service, Witness(seen)]),
        params=PipelineParams(audio_in_sample_rate=rate, enable_metrics=True, enable_usage_metrics=True),
        cancel_on_idle_timeout=False,
        enable_rtvi=False,
    )
    is_started = asyncio.Event()

    async def started(*_: object) -> None:
        is_started.set()

    worker.add_event_handler("on_pipeline_started", started)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run())
        try:
            await is_started.wait()
            yield RunningPipeline(worker, rate, seen)
        except BaseException:
            await worker.cancel()
            raise
        if not worker.has_finished():
            await worker.queue_frame(EndFrame())
