"""Whole systems under load, alike as far as can be: started, asked from the bench's event loop, and ended.

Each decodes *slots* utterances at a time on one thread each, int8, told that they are English. faster-whisper is called in
process, the peers over one plain HTTP request each, Everwarm through its whole platform: client, router and pod.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import everwarm
from bench.corpus.load import Utterance
from bench.peers.client import transcribe as ask_peer
from bench.peers.serving import Peer, running
from bench.way import Setting
from tests.support.platform import running_platform

OURS: Final = "Everwarm"
FASTER_WHISPER: Final = "faster-whisper, cached"
QUEUE: Final = 32  # nobody who waits is turned away

Ask = Callable[[Utterance], Awaitable[object]]
System = Callable[[], AbstractAsyncContextManager[Ask]]


@dataclass(frozen=True, slots=True)
class Load:
    """What every system is to serve with: a model, beams, and decodes at a time."""

    model: str
    beams: int
    slots: int

    @asynccontextmanager
    async def everwarm(self) -> AsyncIterator[Ask]:
        """A platform of one pod, asked through a client."""
        resource = f"""
            apiVersion: everwarm.dev/v1alpha1
            kind: WhisperModel
            metadata: {{name: bench}}
            spec: {{model: {self.model}, slots: {self.slots}, queue: {QUEUE}, decode: {{beamSize: {self.beams}}}}}
        """
        with (
            tempfile.TemporaryDirectory() as folder,
            running_platform(resource, folder=Path(folder)) as platform,
        ):
            async with everwarm.Client(redis_url=platform.redis_url()) as client:
                yield lambda clip: client.transcribe(clip.audio, model=self.model, language="en")

    @asynccontextmanager
    async def faster_whisper(self) -> AsyncIterator[Ask]:
        """One model, kept, with as many workers as there are decodes at a time."""
        from faster_whisper import WhisperModel

        path = str(self._setting.weights().path)
        model = WhisperModel(path, compute_type="int8", cpu_threads=1, num_workers=self.slots)

        def transcribe(clip: Utterance) -> str:
            segments, _ = model.transcribe(clip.audio, language="en", beam_size=self.beams)
            return "".join(segment.text for segment in segments)

        yield lambda clip: asyncio.to_thread(transcribe, clip)

    def peer(self, peer: Peer) -> System:
        """*peer*, as `bench.peers` serves with it."""

        @asynccontextmanager
        async def running_peer() -> AsyncIterator[Ask]:
            weights = self._setting.weights().path
            with running(
                peer, weights=weights, beam_size=self.beams, replicas=self.slots, threads=1
            ) as served:
                yield lambda clip: ask_peer(served.url, (clip.audio * 32767).astype("<i2").tobytes())

        return running_peer

    @property
    def _setting(self) -> Setting:
        return Setting(self.model, "en", self.beams, 1)
