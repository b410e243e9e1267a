"""What importing and using the plugin brings into a worker process, and what it says when LiveKit is missing."""

import pytest

from tests.support.pods import PodProcess
from tests.support.snippets import run_snippet

HEAVY = ("ctranslate2", "faster_whisper", "onnxruntime", "everwarm_stt", "torch")

WITHOUT_LIVEKIT = """
import sys
sys.modules["livekit"] = None
try:
    import everwarm.livekit
except ImportError as error:
    print(error)
"""

RECOGNIZE = """
import asyncio, sys
from everwarm.livekit import create_stt
from tests.support.frames import frames
from tests.support.speech import clips
stt = create_stt(model="tiny.en", language="en", base_url=sys.argv[1], fallback="local")
event = asyncio.run(stt.recognize(frames(clips()[0].samples())))
assert event.alternatives[0].text
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2:])))
"""


STREAM = """
import asyncio, sys
import numpy as np
from everwarm.livekit import create_stt
from tests.support.frames import frames
from tests.support.speech import clips

class Silent:
    def stream(self): ...

async def main():
    stt = create_stt(model="tiny.en", language="en", base_url=sys.argv[1])
    create_stt(model="tiny.en", language="en", base_url=sys.argv[1], vad=Silent()).prewarm()
    await stt.recognize(frames(clips()[0].samples()))  # on the same loop, behind what was prewarmed
    assert "onnxruntime" not in sys.modules
    async with stt.stream() as stream:
        for frame in frames(clips()[0].samples()):
            stream.push_frame(frame)
        stream.end_input()
        assert any(event.alternatives for event in [event async for event in stream])
    print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2:])))
    await stt.aclose()

asyncio.run(main())
"""

PREWARM = """
import asyncio, sys, time
from everwarm.livekit import create_stt
stt = create_stt(model="tiny.en", base_url=sys.argv[1])
stt.prewarm()
while "onnxruntime" not in sys.modules:
    time.sleep(0.01)
asyncio.run(stt.aclose())
"""


def test_without_livekit_the_import_says_what_to_install() -> None:
    assert "pip install 'everwarm[livekit]'" in run_snippet(WITHOUT_LIVEKIT)


@pytest.mark.weights
def test_a_worker_loads_no_model_library_with_or_without_a_fallback(pod: PodProcess) -> None:
    assert run_snippet(RECOGNIZE, pod.url, *HEAVY) == "[]"


def test_prewarming_loads_the_detector_ahead_of_the_first_stream() -> None:
    run_snippet(PREWARM, "http://127.0.0.1:9")


@pytest.mark.weights
def test_only_a_stream_loads_a_detector_of_speech_and_nothing_else(pod: PodProcess) -> None:
    assert run_snippet(STREAM, pod.url, *HEAVY) == "['onnxruntime']"
