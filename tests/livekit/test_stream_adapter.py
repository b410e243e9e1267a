"""Live audio: LiveKit's StreamAdapter and the silero VAD around our STT, as a session has them."""

import numpy as np
import pytest
from livekit.agents.stt import SpeechEventType
from livekit.plugins import silero

from everwarm.livekit import create_stt
from tests.support.frames import frames
from tests.support.pods import PodProcess
from tests.support.speech import clips, words

pytestmark = pytest.mark.weights

SILENCE = np.zeros(16_000, np.int16)


async def test_speech_between_silences_gives_an_end_of_speech_and_then_a_final_each(pod: PodProcess) -> None:
    said = [clip for clip in clips() if clip.path.stem in {"yes_please", "opening_hours"}]
    audio = np.concatenate([SILENCE, *(part for clip in said for part in (clip.samples(), SILENCE))])
    vad = silero.VAD.load(min_silence_duration=0.4)
    adapter = create_stt(model="tiny.en", language="en", base_url=pod.url, vad=vad)
    async with adapter.stream() as stream:
        for frame in frames(audio):
            stream.push_frame(frame)
        stream.end_input()
        events = [event async for event in stream]
    ends = [event.type for event in events if event.type is not SpeechEventType.START_OF_SPEECH]
    assert ends == [SpeechEventType.END_OF_SPEECH, SpeechEventType.FINAL_TRANSCRIPT] * 2
    finals = [event.alternatives[0].text for event in events if event.alternatives]
    assert [words(text) for text in finals] == [words(clip.text) for clip in said]
    await adapter.aclose()
