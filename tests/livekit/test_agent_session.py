"""A whole LiveKit session, without a room: audio goes in as from a microphone, what was said comes out as events."""

import asyncio
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, JobExecutorType, JobProcess
from livekit.agents.voice import UserInputTranscribedEvent
from livekit.agents.voice.io import AudioInput

from everwarm.livekit import STT, create_stt
from tests.support.frames import FRAMES_PER_S, frames
from tests.support.pods import PodProcess
from tests.support.speech import clips, words

pytestmark = pytest.mark.weights

ROOT = Path(__file__).resolve().parents[2]
SILENCE = np.zeros(32_000, np.int16)


class Microphone(AudioInput):
    """Plays frames at twice the speed of life, and silence after them."""

    def __init__(self, heard: list[rtc.AudioFrame]) -> None:
        super().__init__(label="microphone")
        self._frames = iter(heard)
        self._silence = frames(SILENCE[:160])[0]

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(1 / FRAMES_PER_S / 2)  # the clock of a microphone
        return next(self._frames, self._silence)


@pytest.fixture
def prewarmed(pod: PodProcess, monkeypatch: pytest.MonkeyPatch) -> JobProcess:
    """A worker process after the example's `prewarm`, with the pod in its environment."""
    monkeypatch.setenv("EVERWARM_BASE_URL", pod.url)
    spec = importlib.util.spec_from_file_location("livekit_agent", ROOT / "examples" / "livekit_agent.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    process = JobProcess(executor_type=JobExecutorType.THREAD, user_arguments=None, http_proxy=None)
    example.prewarm(process)
    return process


async def test_a_session_hears_what_is_said_with_the_stt_of_its_process(prewarmed: JobProcess) -> None:
    vad = prewarmed.userdata["vad"]
    clip = next(clip for clip in clips() if clip.path.stem == "opening_hours")
    shared = create_stt(model="tiny.en", language="en", fallback="local")
    assert isinstance(shared, STT)
    assert shared._own_loop.is_running
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    session: AgentSession[None] = AgentSession(
        stt=create_stt(model="tiny.en", language="en", fallback="local", vad=vad), vad=vad
    )

    @session.on("user_input_transcribed")
    def on_heard(event: UserInputTranscribedEvent) -> None:
        if event.is_final and not heard.done():
            heard.set_result(event.transcript)

    session.input.audio = Microphone(frames(np.concatenate((SILENCE, clip.samples()))))
    await session.start(Agent(instructions="You only listen."))
    async with asyncio.timeout(60):
        assert words(await heard) == words(clip.text)
    await session.aclose()
