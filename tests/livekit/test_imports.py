"""What importing and using the plugin brings into a worker process, and what it says when LiveKit is missing."""

import subprocess
import sys

import pytest

from tests.support.pods import PodProcess

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


def _run(code: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_without_livekit_the_import_says_what_to_install() -> None:
    assert "pip install 'everwarm[livekit]'" in _run(WITHOUT_LIVEKIT)


@pytest.mark.weights
def test_a_worker_loads_no_model_library_with_or_without_a_fallback(pod: PodProcess) -> None:
    heavy = ("ctranslate2", "faster_whisper", "onnxruntime", "everwarm_stt", "torch")
    assert _run(RECOGNIZE, pod.url, *heavy) == "[]"
