"""Every format OpenAI accepts is decoded, and nothing an upload holds can hang, bloat or reach out of the pod."""

import io
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from av.container import OutputContainer
from faster_whisper.audio import decode_audio as plain_decode_audio
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import AudioTooLong, EverwarmError, InvalidAudio, InvalidParameter
from everwarm_stt.audio import SAMPLE_RATE, Pcm16k, decode_audio, decode_pcm, duration_s

CLIP = Path(__file__).parents[1] / "speech" / "opening_hours.flac"
LIMIT_S = 60.0
BOUND_S = 10.0  # a hostile file takes milliseconds; the rest is for a busy machine

ENCODINGS = {  # name: (FFmpeg's muxer, encoder, rate, layout)
    "flac": ("flac", "flac", 44_100, "stereo"),
    "mp3": ("mp3", "libmp3lame", 44_100, "stereo"),
    "mp4": ("mp4", "aac", 48_000, "stereo"),
    "mpeg": ("mpeg", "mp2", 44_100, "stereo"),
    "mpga": ("mp3", "libmp3lame", 16_000, "mono"),
    "m4a": ("ipod", "aac", 44_100, "mono"),
    "ogg": ("ogg", "libopus", 48_000, "mono"),
    "wav": ("wav", "pcm_s24le", 44_100, "stereo"),
    "wav16k": ("wav", "pcm_s16le", 16_000, "mono"),
    "wav-float": ("wav", "pcm_f32le", 48_000, "stereo"),
    "webm": ("webm", "libopus", 48_000, "stereo"),
}


@pytest.fixture(scope="module")
def clip() -> Pcm16k:
    return decode_audio(CLIP.read_bytes(), limit_s=LIMIT_S)


def encoded(audio: Pcm16k, muxer: str, codec: str, rate: int, layout: str, *, video: bool = False) -> bytes:
    """*audio* as a file; codec "" leaves the sound out."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        pictures = _picture_stream(container) if video else None
        sound = container.add_stream(codec, rate=rate) if codec else None
        if isinstance(sound, av.AudioStream):
            sound.layout = layout
        if pictures is not None:
            black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            for picture in (*[black] * 10, None):
                container.mux(pictures.encode(picture))
        if isinstance(sound, av.AudioStream):
            _mux(container, sound, audio)
    return file.getvalue()


def _picture_stream(container: OutputContainer) -> av.VideoStream:
    stream = container.add_stream("mpeg4", rate=10)
    assert isinstance(stream, av.VideoStream)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream


def _mux(container: OutputContainer, stream: av.AudioStream, audio: Pcm16k) -> None:
    samples = (audio * 32_768).astype(np.int16).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    context = stream.codec_context
    resampler = av.AudioResampler(
        context.format.name, context.layout, context.sample_rate, frame_size=context.frame_size or 1024
    )
    for piece in (*resampler.resample(frame), *resampler.resample(None), None):
        container.mux(stream.encode(piece))


def wav_header(
    *, rate: int = SAMPLE_RATE, channels: int = 1, bits: int = 16, tag: int = 1, size: int = 0xFFFFFFFF
) -> bytes:
    frame = channels * bits // 8 & 0xFFFF
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * frame & 0xFFFFFFFF, frame, bits)
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)


@contextmanager
def quick() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < BOUND_S


@pytest.mark.parametrize("name", ENCODINGS)
def test_decode_audio_equals_plain_faster_whisper_for_every_format(name: str, clip: Pcm16k) -> None:
    file = encoded(clip, *ENCODINGS[name])
    audio = decode_audio(file, limit_s=LIMIT_S)
    assert audio.dtype == np.dtype(np.float32)
    assert audio.ndim == 1
    assert duration_s(audio) == pytest.approx(duration_s(clip), abs=0.15)  # codecs pad
    np.testing.assert_array_equal(audio, plain_decode_audio(io.BytesIO(file)))


def test_decode_audio_reads_files_as_well_as_bytes(clip: Pcm16k) -> None:
    with CLIP.open("rb") as file:
        file.read(100)  # wherever the reader left it
        np.testing.assert_array_equal(decode_audio(file, limit_s=LIMIT_S), clip)


def test_decode_audio_takes_the_sound_of_a_video(clip: Pcm16k) -> None:
    file = encoded(clip, "mp4", "aac", 16_000, "mono", video=True)
    assert duration_s(decode_audio(file, limit_s=LIMIT_S)) == pytest.approx(duration_s(clip), abs=0.15)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 2_000_000_000])
def test_decode_audio_reads_streamed_wav_whose_header_has_no_real_size(size: int) -> None:
    samples = np.arange(1600, dtype="<i2")
    audio = decode_audio(wav_header(size=size) + samples.tobytes(), limit_s=LIMIT_S)
    np.testing.assert_array_equal(audio, samples.astype(np.float32) / 32_768)


@pytest.mark.parametrize("name", ["flac", "mp3", "ogg", "wav", "wav16k"])
def test_decode_audio_keeps_what_is_decodable_when_a_file_breaks_off(name: str, clip: Pcm16k) -> None:
    file = encoded(clip, *ENCODINGS[name])
    audio = decode_audio(file[: len(file) // 2], limit_s=LIMIT_S)
    assert 0.2 < duration_s(audio) / duration_s(clip) < 0.8


@pytest.mark.parametrize("name", ["flac", "mp3", "mp4"])
def test_decode_audio_keeps_what_is_decodable_around_damage(name: str, clip: Pcm16k) -> None:
    file = bytearray(encoded(clip, *ENCODINGS[name]))
    file[len(file) // 2 : len(file) // 2 + 300] = bytes(300)
    assert duration_s(decode_audio(bytes(file), limit_s=LIMIT_S)) > duration_s(clip) * 0.5


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": bytes,
    "text": lambda: b"not audio at all " * 100,
    "zeros": lambda: bytes(8 << 20),
    "noise": lambda: os.urandom(8 << 20),
    "endless id3": lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1 << 20),
    "header alone": wav_header,
    "half a sample": lambda: wav_header(size=1) + b"x",
    "mp4 without its index": lambda: encoded(np.zeros(64_000, np.float32), *ENCODINGS["mp4"])[:-400],
    "1 Hz": lambda: wav_header(rate=1, bits=8) + bytes(1 << 20),
    "4 GHz": lambda: wav_header(rate=4_000_000_000) + bytes(1 << 20),
    "65535 channels": lambda: wav_header(channels=65_535) + bytes(1 << 20),
    "nan": lambda: wav_header(bits=32, tag=3) + struct.pack("<f", float("nan")) * 4000,
    "infinity": lambda: wav_header(rate=44_100, bits=32, tag=3) + struct.pack("<f", float("inf")) * 4000,
    "video without sound": lambda: encoded(np.zeros(0, np.float32), "mp4", "", 0, "", video=True),
    "sdp": lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_decode_audio_refuses_what_is_no_audio_in_bounded_time(name: str) -> None:
    file = HOSTILE[name]()
    with quick(), pytest.raises(InvalidAudio):
        decode_audio(file, limit_s=LIMIT_S)


@pytest.mark.parametrize("name", ENCODINGS)
def test_decode_audio_stops_at_the_limit_whatever_the_header_says(name: str, clip: Pcm16k) -> None:
    with pytest.raises(AudioTooLong):
        decode_audio(encoded(clip, *ENCODINGS[name]), limit_s=0.5)


def test_decode_audio_stops_early_in_a_small_file_that_holds_hours() -> None:
    hour = encoded(np.zeros(3600 * SAMPLE_RATE, np.float32), "flac", "flac", SAMPLE_RATE, "mono")
    assert len(hour) < 1 << 20
    with quick(), pytest.raises(AudioTooLong):
        decode_audio(hour, limit_s=1.0)


def test_decode_audio_takes_audio_that_is_exactly_at_the_limit() -> None:
    file = wav_header() + bytes(2 * SAMPLE_RATE)
    assert duration_s(decode_audio(file, limit_s=1.0)) == 1.0


def test_decode_audio_gives_up_when_its_time_is_up(clip: Pcm16k) -> None:
    with pytest.raises(InvalidAudio, match="could not be decoded within"):
        decode_audio(encoded(clip, *ENCODINGS["mp3"]), limit_s=LIMIT_S, timeout_s=0.0)


@pytest.fixture
def other_file(clip: Pcm16k, tmp_path: Path) -> Path:
    path = tmp_path / "other.wav"
    path.write_bytes(encoded(clip, *ENCODINGS["wav16k"]))
    return path


def test_decode_audio_opens_no_file_that_an_upload_names(other_file: Path) -> None:
    lists = [
        f"ffconcat version 1.0\nfile {other_file}\n",
        f"ffconcat version 1.0\nfile file:{other_file}\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://{other_file}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{other_file}\n#EXT-X-ENDLIST\n",
    ]
    for text in lists:
        with pytest.raises(InvalidAudio):
            decode_audio(text.encode(), limit_s=LIMIT_S)


def test_decode_audio_calls_no_address_that_an_upload_names(other_file: Path) -> None:
    asked: list[str] = []

    class Target(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(other_file.read_bytes())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Target) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        dash = (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
            f'<AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{url}/x.mp4</BaseURL>'
            "</Representation></AdaptationSet></Period></MPD>"
        )
        hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{url}/x.ts\n#EXT-X-ENDLIST\n"
        for text in (dash, hls, f"ffconcat version 1.0\nfile {url}/x.wav\n"):
            with quick(), pytest.raises(InvalidAudio):
                decode_audio(text.encode(), limit_s=LIMIT_S)
        server.shutdown()
        thread.join()
    assert asked == []


@given(
    data=st.binary(max_size=400),
    head=st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS\0\2", b"ID3\4"]),
)
def test_decode_audio_answers_any_bytes_with_audio_or_an_error_of_ours(data: bytes, head: bytes) -> None:
    try:
        audio = decode_audio(head + data, limit_s=LIMIT_S)
    except EverwarmError:
        return
    assert np.isfinite(audio).all()


def test_decode_pcm_reads_little_endian_samples() -> None:
    audio = decode_pcm(b"\x00\x00\x00\x40\x00\x80", rate=SAMPLE_RATE, limit_s=1)
    np.testing.assert_array_equal(audio, np.array([0, 0.5, -1], np.float32))


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
def test_decode_pcm_resamples_other_rates(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate * 2) / rate) * 0.5
    audio = decode_pcm((tone * 32_767).astype("<i2").tobytes(), rate=rate, limit_s=3)
    assert duration_s(audio) == pytest.approx(2, abs=0.01)
    spectrum = np.abs(np.fft.rfft(audio))
    assert np.argmax(spectrum) / duration_s(audio) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0"])
def test_decode_pcm_refuses_what_is_no_whole_number_of_samples(data: bytes) -> None:
    with pytest.raises(InvalidAudio):
        decode_pcm(data, rate=SAMPLE_RATE, limit_s=1)


@pytest.mark.parametrize("rate", [-1, 0, 7_999, 48_001])
def test_decode_pcm_refuses_rates_out_of_range(rate: int) -> None:
    with pytest.raises(InvalidParameter, match="rate"):
        decode_pcm(b"\0\0", rate=rate, limit_s=1)


def test_decode_pcm_refuses_more_than_the_limit() -> None:
    assert duration_s(decode_pcm(bytes(32_000), rate=SAMPLE_RATE, limit_s=1)) == 1
    with pytest.raises(AudioTooLong):
        decode_pcm(bytes(32_002), rate=SAMPLE_RATE, limit_s=1)


@given(samples=st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=50))
def test_decode_pcm_keeps_every_sample_within_one(samples: list[int]) -> None:
    audio = decode_pcm(np.array(samples, "<i2").tobytes(), rate=SAMPLE_RATE, limit_s=1)
    assert (np.abs(audio) <= 1).all()
    assert (audio * 32_768).astype(int).tolist() == samples
