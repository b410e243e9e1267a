"""From whatever a caller holds (a path, an encoded file's bytes, samples) to a body that pods take.

Samples, and WAV files that are 16 kHz mono 16 bit anyway, go as raw PCM to `/v1/transcribe`: nothing is decoded and
nothing copied on either side. Everything else goes as the file it is, in a form, and the pod decodes it. numpy is used
only on arrays callers pass, so it is never imported here before they have.
"""

import secrets
import struct
import sys
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from everwarm_core.errors import InvalidAudio, UploadTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE: Final = 16_000
PCM_TYPE: Final = f"audio/pcm;rate={SAMPLE_RATE}"
PCM_BYTES_PER_S: Final = 2 * SAMPLE_RATE
QUICK_SAMPLES: Final = 30 * SAMPLE_RATE
LARGEST_FILE_BYTES: Final = 1 << 31  # the most `limits.uploadBytes` may say
ENCODED_BYTES_PER_S: Final = 8_000  # 64 kbit/s, for the balance of load; nobody is refused by it
SLOWEST_CODEC_BYTES_PER_S: Final = 2_000  # 16 kbit/s, for deadlines: audio may be this long, hardly longer

_WAVE_FORMAT_PCM: Final = 1

AudioInput: TypeAlias = (
    "str | PathLike[str] | bytes | bytearray | memoryview | NDArray[np.float32] | NDArray[np.int16]"
)


@dataclass(frozen=True, slots=True)
class Pcm:
    """Raw samples: 16 bit signed little endian, 16 kHz, mono."""

    data: bytes | memoryview

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        return len(self.data) / PCM_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """A file in some container, as it is; *name* helps nobody but readers of logs on the other side."""

    data: bytes | memoryview
    name: str

    @property
    def audio_s(self) -> float:
        """Seconds of audio, as `guessed_s`."""
        return guessed_s(self.data, len(self.data))

    @property
    def longest_s(self) -> float:
        """Seconds of audio at most, as `longest_s`."""
        return longest_s(self.data, len(self.data))


def read_audio(audio: AudioInput) -> Pcm | EncodedFile:
    """*audio* as it will be sent. Blocks: on the disk for a path, on the CPU for long arrays.

    Arrays: float32 in [-1, 1] (clipped) or int16, 16 kHz, shape (samples,) or (1, samples). Raises InvalidAudio for
    empty, non-finite or oddly shaped input and for files that cannot be read; UploadTooLarge beyond 2 GiB.
    """
    if isinstance(audio, str | PathLike):
        return _file(Path(audio))
    if isinstance(audio, bytes | bytearray | memoryview):
        return _encoded(memoryview(audio).cast("B"), "audio")
    numpy = sys.modules.get("numpy")  # whoever has an array has imported it
    if numpy is not None and isinstance(audio, numpy.ndarray):
        return Pcm(_samples(audio))
    raise InvalidAudio(
        f"audio is a {type(audio).__name__}; give a path, a file's bytes, or a float32 or int16 array"
    )


def is_quick(audio: AudioInput) -> bool:
    """Whether `read_audio` takes less of *audio* than the 0.3 ms that a thread costs to be asked: bytes, which are only
    looked at, and up to 30 s of samples.
    """
    return not isinstance(audio, str | PathLike) and getattr(audio, "size", 0) <= QUICK_SAMPLES


def form(file: EncodedFile, fields: "Sequence[tuple[str, str]]") -> tuple[bytes, str]:
    """A multipart body with *fields* first and the file last, so that a gateway can route before the audio is there.

    Returns the body and its content type.
    """
    boundary = f"everwarm-{secrets.token_hex(16)}"
    head = bytearray()
    for name, value in fields:
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    name = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in file.name)
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    return b"".join(
        (head, file.data, f"\r\n--{boundary}--\r\n".encode())
    ), f"multipart/form-data; boundary={boundary}"


def pcm_of_wav(data: memoryview) -> memoryview | None:
    """The samples in a WAV file that is 16 kHz mono 16 bit PCM; None for every other file, damaged ones included."""
    head = bytes(data[:12])
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    position, is_plain = 12, False
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if name == b"fmt " and position + 16 <= len(data):
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, position)
            is_plain = (kind, channels, rate, bits) == (_WAVE_FORMAT_PCM, 1, SAMPLE_RATE, 16)
        elif name == b"data":
            # A size that runs past the end is a recorder's that was cut off: decoders know what to do with it.
            whole = size % 2 == 0 and 0 < size <= len(data) - position
            return data[position : position + size] if is_plain and whole else None
        position += size + size % 2
    return None


def guessed_s(head: bytes | memoryview, size: int | None) -> float:
    """Seconds of audio in a file of *size* bytes that begins with *head*: exact for WAV, else a guess for balancing."""
    return (size or 0) / (_wav_bytes_per_s(head) or ENCODED_BYTES_PER_S)


def longest_s(head: bytes | memoryview, size: int | None) -> float:
    """Seconds of audio that such a file can hardly exceed, for deadlines."""
    return (size or 0) / (_wav_bytes_per_s(head) or SLOWEST_CODEC_BYTES_PER_S)


def _wav_bytes_per_s(head: bytes | memoryview) -> int | None:
    """The rate that a WAV file's `fmt ` chunk tells when it comes first, as it nearly always does."""
    start = bytes(head[:32])
    if len(start) < 32 or start[:4] != b"RIFF" or start[8:16] != b"WAVEfmt ":
        return None
    rate = int.from_bytes(start[28:32], "little")
    return rate if 1_000 <= rate <= 10_000_000 else None


def _file(path: Path) -> Pcm | EncodedFile:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise UploadTooLarge(LARGEST_FILE_BYTES)
        data = path.read_bytes()
    except OSError as error:
        raise InvalidAudio(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    return _encoded(memoryview(data), path.name)


def _encoded(data: memoryview, name: str) -> Pcm | EncodedFile:
    if not data:
        raise InvalidAudio(f"{name!r} is empty")
    pcm = pcm_of_wav(data)
    return EncodedFile(data, name) if pcm is None else Pcm(pcm)


def _samples(audio: "NDArray[np.float32] | NDArray[np.int16]") -> memoryview:
    import numpy as np

    if audio.ndim == 2 and 1 in audio.shape:
        audio = audio.reshape(-1)
    if audio.ndim != 1 or not audio.size:
        raise InvalidAudio(f"audio has shape {audio.shape}; give mono samples, shape (samples,)")
    if audio.dtype.kind == "f":
        # Both are NaN when any sample is, so no array of flags has to be made.
        low, high = float(audio.min()), float(audio.max())
        if not np.isfinite((low, high)).all():
            raise InvalidAudio("audio holds samples that are not finite numbers")
        scaled = np.multiply(audio, 32767.0, dtype=np.float32)
        if low < -1.0 or high > 1.0:
            np.clip(scaled, -32768.0, 32767.0, out=scaled)
        pcm = np.rint(scaled, out=scaled).astype("<i2")
    elif audio.dtype == np.int16:
        pcm = np.ascontiguousarray(audio, dtype="<i2")
    else:
        raise InvalidAudio(f"audio has dtype {audio.dtype}; give float32 in [-1, 1] or int16")
    # numpy's arrays are buffers; its stubs say so from Python 3.12 on only.
    return memoryview(pcm).cast("B")  # type: ignore[arg-type]
