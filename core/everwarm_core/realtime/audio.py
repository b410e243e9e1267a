"""What realtime clients send, as the samples everything else works on: int16, 16 kHz, mono.

`audio/pcm` is 24 kHz, as OpenAI has it, and is resampled with a filter that keeps its state from piece to piece;
G.711 (`audio/pcmu`, `audio/pcma`) is what telephones send at 8 kHz. Tables and segments: ITU-T G.711.
"""

from enum import StrEnum
from functools import cache
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLE_RATE: Final = 16_000
BYTES_PER_S: Final = 2 * SAMPLE_RATE

Samples = NDArray[np.int16]


class AudioFormat(StrEnum):
    """`audio.input.format.type` of a session."""

    PCM = "audio/pcm"
    PCMU = "audio/pcmu"
    PCMA = "audio/pcma"


RATES: Final = {AudioFormat.PCM: 24_000, AudioFormat.PCMU: 8_000, AudioFormat.PCMA: 8_000}


class AudioDecoder:
    """Makes samples of the bytes of one stream in *form*, piece by piece; odd bytes wait for their other half."""

    def __init__(self, form: AudioFormat) -> None:
        self._form = form
        self._rest = b""
        self._resampler = soxr.ResampleStream(RATES[form], SAMPLE_RATE, 1, dtype="int16", quality="MQ")

    def decode(self, data: bytes) -> Samples:
        """Samples for *data*, some milliseconds behind it; shape (samples,)."""
        samples: Samples = self._resampler.resample_chunk(self._read(data))
        return samples

    def flush(self) -> Samples:
        """The milliseconds that the filter still held back; the next piece begins a new stream."""
        self._rest = b""
        last: Samples = self._resampler.resample_chunk(np.empty(0, np.int16), last=True)
        self._resampler.clear()
        return last

    def _read(self, data: bytes) -> Samples:
        if self._form is not AudioFormat.PCM:
            return _g711(self._form)[np.frombuffer(data, np.uint8)]
        data = self._rest + data
        whole = len(data) - len(data) % 2
        self._rest = data[whole:]
        return np.frombuffer(data[:whole], "<i2").astype(np.int16, copy=False)


@cache
def _g711(form: AudioFormat) -> Samples:
    """The sample for each of the 256 codes."""
    codes = np.arange(256, dtype=np.int32)
    codes = codes ^ (0xFF if form is AudioFormat.PCMU else 0x55)
    segment, step = (codes >> 4) & 7, codes & 0xF
    if form is AudioFormat.PCMU:
        size = (((step << 3) + 0x84) << segment) - 0x84
        sign = np.where(codes & 0x80, -1, 1)
    else:
        size = np.where(segment == 0, (step << 4) + 8, ((step << 4) + 0x108) << np.maximum(segment - 1, 0))
        sign = np.where(codes & 0x80, 1, -1)
    samples: Samples = (sign * size).astype(np.int16)
    return samples
