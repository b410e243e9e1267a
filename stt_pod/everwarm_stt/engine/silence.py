"""faster-whisper's detector of speech (Silero), loaded once, with the memory of its runs bounded."""

import threading
from typing import Any, Final

import numpy as np

from everwarm_stt.audio import Pcm16k

VAD_WINDOWS: Final = 256  # 8 s of audio and some 16 MB for each run of the silence detector

_lock: Final = threading.Lock()


class PiecewiseSession:
    """An ONNX session of the silence detector that is run on `VAD_WINDOWS` windows at a time.

    faster-whisper runs it on up to 320 s of audio at once, which takes 60 KB for each window of 32 ms: half a
    gigabyte for a long recording, part of which the allocator keeps. The state (h, c) is handed from run to run, so
    the probabilities are the same.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, output_names: list[str] | None, inputs: dict[str, Any]) -> list[Any]:
        """As `onnxruntime.InferenceSession.run` with inputs `input`, `h` and `c`."""
        windows, h, c = inputs["input"], inputs["h"], inputs["c"]
        outputs = []
        for start in range(0, len(windows), VAD_WINDOWS):
            piece = windows[start : start + VAD_WINDOWS]
            output, h, c = self._session.run(output_names, {"input": piece, "h": h, "c": c})
            outputs.append(output)
        return [np.concatenate(outputs, axis=0), h, c]


def bound_silence_detector() -> None:
    """Load faster-whisper's silence detector once per process, and bound the memory of its runs."""
    from faster_whisper.vad import get_vad_model

    with _lock:  # its own cache lets two first callers load it twice
        detector = get_vad_model()
        if not isinstance(detector.session, PiecewiseSession):
            detector.session = PiecewiseSession(detector.session)


def holds_speech(audio: Pcm16k) -> bool:
    """Whether the detector hears any speech in *audio*, by faster-whisper's own thresholds; some 3 ms a second."""
    from faster_whisper.vad import get_speech_timestamps

    bound_silence_detector()
    return bool(get_speech_timestamps(audio))
