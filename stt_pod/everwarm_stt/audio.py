"""Bytes from strangers to samples Whisper understands, bounded in seconds, memory and time.

Everything above this module sees `Pcm16k` only. Containers are decoded with PyAV (FFmpeg's libraries in process).
Headers are never believed: a file may claim any length, so frames are converted as they come and decoding stops with
the first sample beyond the limit. FFmpeg also knows formats that are lists of other files and URLs (hls, dash,
concat, playlists); an upload in one of those would read this machine's files or call its network, so demuxers and
decoders are allowed by name and every protocol is forbidden. PyAV costs some 50 ms to import, hence the late
imports: raw PCM and plain 16 kHz WAV never need it.
"""

import io
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from everwarm_core.errors import AudioTooLong, InvalidAudio, InvalidParameter

if TYPE_CHECKING:
    import av
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream

SAMPLE_RATE: Final = 16_000  # Hz, what every Whisper model takes
BYTES_PER_SAMPLE: Final = 2
MIN_RATE: Final = 8_000  # Hz, of raw PCM
MAX_RATE: Final = 48_000

Pcm16k: TypeAlias = npt.NDArray[np.float32]
"""Mono samples in [-1, 1] at 16 kHz, shape (samples,), finite."""

# FFmpeg's names of what OpenAI accepts: flac mp3 mp4 mpeg mpga m4a ogg wav webm; aac is an m4a without its box.
FORMATS: Final = ("aac", "flac", "matroska", "mov", "mp3", "mpeg", "ogg", "wav")
CODECS: Final = frozenset(
    [
        "aac",
        "ac3",
        "alac",
        "amrnb",
        "amrwb",
        "flac",
        "mp1",
        "mp1float",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "opus",
        "libopus",
        "vorbis",
        "libvorbis",
        "adpcm_ima_wav",
        "adpcm_ms",
        "gsm_ms",
        "pcm_alaw",
        "pcm_mulaw",
        "pcm_u8",
        "pcm_s16be",
        "pcm_s16le",
        "pcm_s24be",
        "pcm_s24le",
        "pcm_s32be",
        "pcm_s32le",
        "pcm_f32be",
        "pcm_f32le",
        "pcm_f64be",
        "pcm_f64le",
    ]
)
# One input sample at 1 Hz would become 16,000: a small file could ask for gigabytes within a single frame.
CONTAINER_RATES: Final = range(4_000, 768_001)
MAX_CHANNELS: Final = 64  # as libswresample
MAX_FRAME_SAMPLES: Final = 1 << 20  # of any real codec; ALAC headers could claim 16 times that
_RESAMPLE_SAMPLES: Final = 1 << 18  # raw PCM is resampled in pieces of this many samples


def decode_audio(data: bytes | BinaryIO, *, limit_s: float, timeout_s: float = 60.0) -> Pcm16k:
    """The first audio stream of a flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm file; blocks, use a thread.

    data: the whole file, as bytes or a seekable binary file; limit_s: longest audio in decoded seconds;
    timeout_s: longest time spent on it. Raises InvalidAudio (empty, unknown format, no audio stream, nothing
    decodable, too slow to decode) and AudioTooLong. Of a file that breaks off, what was decodable is returned,
    as OpenAI's API and the ffmpeg command do.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    if file.seek(0, io.SEEK_END) == 0:
        raise InvalidAudio("the file is empty")
    file.seek(0)
    if (plain := _plain_wav(file, limit_s)) is not None:
        return _to_float(plain)
    file.seek(0)
    samples = _decode_container(_TimedFile(file, time.monotonic() + timeout_s, timeout_s), limit_s)
    if not samples:
        raise InvalidAudio("the file holds no decodable audio; send flac, mp3, mp4, m4a, ogg, wav or webm")
    return _to_float(samples)


def decode_pcm(data: bytes | bytearray | memoryview, *, rate: int, limit_s: float) -> Pcm16k:
    """Raw s16le mono samples at *rate* Hz (8000 to 48000), resampled when needed.

    Raises InvalidParameter (rate), InvalidAudio (no samples, or half of one) and AudioTooLong.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidParameter("rate", f"{rate} Hz is outside {MIN_RATE} to {MAX_RATE} Hz")
    size = len(data)
    if size == 0:
        raise InvalidAudio("the body is empty; send s16le mono samples")
    if size % BYTES_PER_SAMPLE:
        raise InvalidAudio(f"{size} bytes are no whole number of 16-bit samples; was the body cut off?")
    if size > limit_s * rate * BYTES_PER_SAMPLE:
        raise AudioTooLong(limit_s)
    if rate == SAMPLE_RATE:
        return _to_float(data)
    return _to_float(_resampled(np.frombuffer(data, dtype="<i2"), rate))


def duration_s(audio: Pcm16k) -> float:
    """Length of *audio* in seconds."""
    return len(audio) / SAMPLE_RATE


def _to_float(samples: bytes | bytearray | memoryview) -> Pcm16k:
    """s16le as float32 in [-1, 1)."""
    audio = np.frombuffer(samples, dtype="<i2").astype(np.float32)
    audio *= 1 / 32_768  # in place: an hour of audio is 230 MB
    return audio


def _plain_wav(file: BinaryIO, limit_s: float) -> bytes | None:
    """The samples of a WAV file that is 16 kHz s16 mono already; None when it is anything else or damaged.

    Sizes in headers are capped by what is there: programs that stream WAV write 0 or 0xFFFFFFFF.
    """
    riff = file.read(12)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        return None
    is_plain = False
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"fmt ":
            body = file.read(min(size, 16))
            # format tag PCM, one channel, 16 kHz, (bytes per second), 2 bytes a frame, 16 bits a sample
            is_plain = len(body) == 16 and struct.unpack("<HHIxxxxHH", body) == (1, 1, SAMPLE_RATE, 2, 16)
            if not is_plain:
                return None
            file.seek(max(0, size - 16) + (size & 1), io.SEEK_CUR)
        elif name == b"data":
            if not is_plain or size in (0, 0xFFFFFFFF):
                return None
            limit = int(limit_s * SAMPLE_RATE) * BYTES_PER_SAMPLE
            samples = file.read(min(size, limit + BYTES_PER_SAMPLE))
            if len(samples) > limit:
                raise AudioTooLong(limit_s)
            return samples[: len(samples) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE] or None
        else:
            file.seek(size + (size & 1), io.SEEK_CUR)
    return None


class _TimedFile:
    """A binary file that FFmpeg reads through; past the deadline reading fails, so no loop in a demuxer is endless.

    It has no `name`: FFmpeg would take hints from one.
    """

    def __init__(self, file: BinaryIO, deadline: float, timeout_s: float) -> None:
        self._file, self._deadline, self._timeout_s = file, deadline, timeout_s

    def read(self, size: int = -1) -> bytes:
        self.check()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        """Raise InvalidAudio once the time is up."""
        if time.monotonic() > self._deadline:
            raise InvalidAudio(f"the file could not be decoded within {self._timeout_s:g} s")


def _decode_container(file: _TimedFile, limit_s: float) -> bytearray:
    """s16le samples at 16 kHz of the first audio stream in *file*; empty when none could be decoded."""
    import av

    samples = bytearray()
    limit = int(limit_s * SAMPLE_RATE) * BYTES_PER_SAMPLE
    options = {
        "format_whitelist": ",".join(FORMATS),
        "codec_whitelist": ",".join(sorted(CODECS)),
        "protocol_whitelist": "none",  # matches no protocol; the file itself needs none
    }
    try:
        with av.open(file, mode="r", container_options=options) as container:
            stream = _audio_stream(container)
            for chunk in _resample(_frames(container, stream, file), to_float_check=_is_raw_float(stream)):
                samples += chunk
                if len(samples) > limit:
                    raise AudioTooLong(limit_s)
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        # What was decoded before the damage counts; ValueError is PyAV's for layouts and formats it cannot map.
        if not samples:
            raise InvalidAudio(
                f"the file cannot be decoded ({type(error).__name__}); "
                "send flac, mp3, mp4, m4a, ogg, wav or webm"
            ) from error
    return samples


def _audio_stream(container: "av.container.InputContainer") -> "AudioStream":
    if not container.streams.audio:
        raise InvalidAudio("the file holds no audio stream")
    stream = container.streams.audio[0]
    codec = stream.codec_context
    if codec.name not in CODECS:
        raise InvalidAudio(f"codec {codec.name!r} is not supported")
    if codec.channels > MAX_CHANNELS:
        raise InvalidAudio(f"{codec.channels} channels are more than {MAX_CHANNELS}")
    codec.options = {"max_samples": str(MAX_FRAME_SAMPLES)}
    # Frame threads would be one per CPU of the machine and decode ahead of the limit.
    codec.thread_count = 1
    return stream


def _is_raw_float(stream: "AudioStream") -> bool:
    """Whether samples come as the floats of the file, so that NaN and infinity can be in them."""
    return stream.codec_context.name.startswith("pcm_f")


def _frames(
    container: "av.container.InputContainer", stream: "AudioStream", file: _TimedFile
) -> "Iterator[AudioFrame]":
    """The frames of *stream*; packets that are damaged are left out, as players do."""
    import av

    for packet in container.demux(stream):
        file.check()
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if frame.sample_rate not in CONTAINER_RATES:
                raise InvalidAudio(f"a sample rate of {frame.sample_rate} Hz is not supported")
            frame.pts = None  # gaps in timestamps are not filled with silence
            yield frame


def _resample(frames: "Iterator[AudioFrame]", *, to_float_check: bool) -> Iterator[bytes]:
    """s16le mono at 16 kHz of *frames*, whose rate and layout may change on the way (chained ogg does that)."""
    from av.audio.resampler import AudioResampler

    resampler: AudioResampler | None = None
    shape: tuple[int, str, str] | None = None
    for frame in frames:
        if to_float_check and not np.isfinite(frame.to_ndarray()).all():
            raise InvalidAudio("the audio holds samples that are no finite numbers")
        found = (frame.sample_rate, frame.layout.name, frame.format.name)
        if resampler is None or found != shape:
            if resampler is not None:
                yield from _bytes_of(resampler.resample(None))
            resampler, shape = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE), found
        yield from _bytes_of(resampler.resample(frame))
    if resampler is not None:
        yield from _bytes_of(resampler.resample(None))


def _bytes_of(frames: "list[AudioFrame]") -> Iterator[bytes]:
    for frame in frames:
        yield frame.to_ndarray().tobytes()


def _resampled(samples: npt.NDArray[np.int16], rate: int) -> bytearray:
    """*samples* at *rate* Hz as s16le at 16 kHz."""
    from av.audio.frame import AudioFrame

    def frames() -> Iterator[AudioFrame]:
        for start in range(0, samples.shape[0], _RESAMPLE_SAMPLES):
            piece = np.ascontiguousarray(samples[start : start + _RESAMPLE_SAMPLES]).reshape(1, -1)
            frame = AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate = rate
            yield frame

    resampled = bytearray()
    for chunk in _resample(frames(), to_float_check=False):
        resampled += chunk
    return resampled
