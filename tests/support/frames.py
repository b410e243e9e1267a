"""Speech as LiveKit delivers it: audio frames of 10 ms, at the rate and with the channels of a room's track."""

import numpy as np
import numpy.typing as npt
from livekit import rtc

FRAMES_PER_S = 100


def frames(samples: npt.NDArray[np.int16], rate: int = 16_000, channels: int = 1) -> list[rtc.AudioFrame]:
    """*samples* (16 kHz mono) as frames at *rate* with the same sound in each of *channels*."""
    if rate != 16_000:
        # Straight lines between samples: crude, and the speech stays what it is.
        moments = np.arange(0, len(samples) / 16_000, 1 / rate)
        samples = np.interp(moments, np.arange(len(samples)) / 16_000, samples).astype(np.int16)
    size = rate // FRAMES_PER_S
    return [
        rtc.AudioFrame(np.repeat(piece, channels).tobytes(), rate, channels, len(piece))
        for piece in (samples[start : start + size] for start in range(0, len(samples), size))
    ]
