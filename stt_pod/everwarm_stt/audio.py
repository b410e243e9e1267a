"""Bytes from strangers to samples Whisper understands, bounded in seconds, memory and time.

Everything above this module sees `Pcm16k` only. Headers are never believed: a file may claim any length, so frames
are converted as they come and decoding stops with the first sample beyond the limit.
"""

from typing import BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

SAMPLE_RATE: Final = 16_000

Pcm16k: TypeAlias = npt.NDArray[np.float32]
"""Mono samples in [-1, 1] at 16 kHz, shape (samples,), finite."""


def decode_audio(data: bytes | BinaryIO, *, limit_s: float, timeout_s: float = 60.0) -> Pcm16k:
    """The first audio stream of a flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm file; blocks, use a thread.

    data: the whole file, as bytes or a seekable binary file; limit_s: longest audio in decoded seconds;
    timeout_s: longest time spent on it. Raises InvalidAudio (empty, unknown format, no audio stream, nothing
    decodable, too slow to decode) and AudioTooLong. Of a file that breaks off, what was decodable is returned.
    """
    raise NotImplementedError


def decode_pcm(data: bytes, *, rate: int, limit_s: float) -> Pcm16k:
    """Raw s16le mono samples at *rate* Hz (8000 to 48000), resampled when needed.

    Raises InvalidParameter (rate), InvalidAudio (no samples, or half of one) and AudioTooLong.
    """
    raise NotImplementedError


def duration_s(audio: Pcm16k) -> float:
    """Length of *audio* in seconds."""
    return audio.shape[0] / SAMPLE_RATE
