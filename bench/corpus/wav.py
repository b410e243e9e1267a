"""Audio files of the corpus: 16 kHz mono WAV in 16 bits, which the standard library reads and writes."""

import wave
from pathlib import Path

import numpy as np

from bench.corpus.sound import RATE_HZ, Samples


def read_wav(path: Path) -> Samples:
    """Mono float32 in [-1, 1], shape (samples,). Raises ValueError for any other kind of WAV file."""
    with wave.open(str(path), "rb") as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE_HZ):
            raise ValueError(f"{path} is no 16 kHz mono WAV in 16 bits")
        raw = file.readframes(file.getnframes())
    return (np.frombuffer(raw, "<i2") / np.float32(32768)).astype(np.float32)


def write_wav(path: Path, samples: Samples) -> bytes:
    """Write *samples*, which must lie in [-1, 1]; returns the bytes of sound that the file holds."""
    raw = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(raw)
    return raw
