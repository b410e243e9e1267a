"""A whole LiveKit session, without a room: audio goes in as from a microphone, what was said comes out as events."""

import asyncio
import importlib.util
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import (
    Agent,
    AgentSession,
    ChatContext,
    ChatMessage,
    JobExecutorType,
    JobProcess,
    TurnHandlingOptions,
)
from livekit.agents import stt as livekit_stt
from livekit.agents.voice import UserInputTranscribedEvent, UserStateChangedEvent
from livekit.agents.voice.io import AudioInput
from livekit.plugins import silero

from everwarm.livekit import STT, create_stt
from tests.support.frames import FRAMES_PER_S, frames
from tests.support.pods import PodProcess
from tests.support.speech import clips, words
from tests.support.waiting import until

pytestmark = pytest.mark.weights

ROOT = Path(__file__).resolve().parents[2]
SILENCE = np.zeros(32_000, np.int16)
CLIP = next(clip for clip in clips() if clip.path.stem == "opening_hours")


class Microphone(AudioInput):
    """Plays frames at *pace* times the speed of life, and silence after them."""

    def __init__(self, heard: list[rtc.AudioFrame], pace: float = 2.0) -> None:
        super().__init__(label="microphone")
        self._frames = deque(heard)
        self._silence = frames(SILENCE[:160])[0]
        self._pace = pace

    @property
    def is_silent(self) -> bool:
        """Whether all that it was given is played."""
        return not self._frames

    def say(self, more: list[rtc.AudioFrame]) -> None:
        """Play *more* behind what is still to be played."""
        self._frames.extend(more)

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(1 / FRAMES_PER_S / self._pace)  # the clock of a microphone
        return self._frames.popleft() if self._frames else self._silence


class Attentive(Agent):
    """Knows the turns that it would answer."""

    def __init__(self) -> None:
        super().__init__(instructions="You only listen.")
        self.turns: asyncio.Queue[str] = asyncio.Queue()

    async def on_user_turn_completed(
        self,
        turn_ctx: ChatContext,  # noqa: ARG002  # LiveKit gives it by name
        new_message: ChatMessage,
    ) -> None:
        self.turns.put_nowait(new_message.text_content or "")


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
    process.userdata["new_session"] = example.new_session
    return process


@asynccontextmanager
async def listening(
    session: "AgentSession[None]", agent: Agent, microphone: Microphone
) -> AsyncIterator["asyncio.Queue[UserInputTranscribedEvent]"]:
    """*session* with *agent*, hearing *microphone*: what it transcribed."""
    transcribed: asyncio.Queue[UserInputTranscribedEvent] = asyncio.Queue()
    session.on("user_input_transcribed", transcribed.put_nowait)
    session.input.audio = microphone
    await session.start(agent)
    try:
        async with asyncio.timeout(60):
            yield transcribed
    finally:
        await session.aclose()


async def final(transcribed: "asyncio.Queue[UserInputTranscribedEvent]") -> str:
    while not (event := await transcribed.get()).is_final:
        pass
    return event.transcript


async def test_the_examples_session_hears_with_the_stt_of_its_process(prewarmed: JobProcess) -> None:
    shared = create_stt(model="tiny.en", language="en", fallback="local")
    assert isinstance(shared, STT)
    assert shared._own_loop.is_running
    session = prewarmed.userdata["new_session"]()
    assert session.stt is shared
    microphone = Microphone(frames(np.concatenate((SILENCE, CLIP.samples()))))
    async with listening(session, Agent(instructions="You only listen."), microphone) as transcribed:
        assert words(await final(transcribed)) == words(CLIP.text)


async def test_a_session_with_a_vad_of_its_own_hears_through_an_adapter(pod: PodProcess) -> None:
    vad = silero.VAD.load()
    stt = create_stt(model="tiny.en", language="en", base_url=pod.url, vad=vad)
    session: AgentSession[None] = AgentSession(stt=stt, vad=vad)
    microphone = Microphone(frames(np.concatenate((SILENCE, CLIP.samples()))))
    async with listening(session, Agent(instructions="You only listen."), microphone) as transcribed:
        assert words(await final(transcribed)) == words(CLIP.text)


async def test_where_the_stt_detects_turns_each_utterance_is_one(pod: PodProcess) -> None:
    other = next(clip for clip in clips() if clip.path.stem == "yes_please")
    stt = STT(model="tiny.en", language="en", base_url=pod.url)
    session = _session(stt, turn_detection="stt")
    states: list[str] = []

    @session.on("user_state_changed")
    def on_state(event: UserStateChangedEvent) -> None:
        states.append(event.new_state)

    agent, microphone = Attentive(), Microphone(frames(SILENCE), pace=1.0)
    async with listening(session, agent, microphone) as transcribed:
        for clip in (CLIP, other):  # who speaks on before the final is there goes on with the same turn
            microphone.say(frames(clip.samples()))
            assert words(await agent.turns.get()) == words(clip.text)
        shown = [event for event in _all(transcribed) if not event.is_final]
    assert states[:4] == ["speaking", "listening"] * 2
    assert shown
    await stt.aclose()


async def test_where_a_vad_detects_turns_the_streams_finals_are_what_was_said(pod: PodProcess) -> None:
    stt = STT(model="tiny.en", language="en", base_url=pod.url)
    agent = Attentive()
    session = _session(stt, turn_detection="vad", vad=silero.VAD.load())
    speech = np.concatenate((SILENCE, CLIP.samples()))
    async with listening(session, agent, Microphone(frames(speech), pace=1.0)):
        assert words(await agent.turns.get()) == words(CLIP.text)
    await stt.aclose()


async def test_a_turn_that_is_committed_has_all_that_was_said_without_a_pause(pod: PodProcess) -> None:
    """As with push-to-talk: nothing but the commit ends this utterance."""
    stt = STT(model="tiny.en", language="en", base_url=pod.url, silence_duration_ms=10_000)
    session = _session(stt, turn_detection="manual")
    microphone = Microphone(frames(np.concatenate((SILENCE, CLIP.samples(), SILENCE[:8_000]))))
    async with listening(session, Attentive(), microphone) as transcribed:
        while words((await transcribed.get()).transcript) != words(CLIP.text):
            pass  # an interim one
        await until(lambda: microphone.is_silent)
        turn = await session.commit_user_turn(transcript_timeout=30.0)
        assert words(turn) == words(CLIP.text)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await session.commit_user_turn(transcript_timeout=30.0)
        assert loop.time() - began < 10  # nothing was said since, and that is answered too
    await stt.aclose()


def _session(stt: "livekit_stt.STT[Any]", *, turn_detection: Any, vad: Any = None) -> "AgentSession[None]":
    return AgentSession(stt=stt, vad=vad, turn_handling=TurnHandlingOptions(turn_detection=turn_detection))


def _all(queue: "asyncio.Queue[UserInputTranscribedEvent]") -> list[UserInputTranscribedEvent]:
    return [queue.get_nowait() for _ in range(queue.qsize())]
