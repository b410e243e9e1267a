"""From what callers hold to what pods take."""

import io
import struct
import wave
from email.parser import BytesParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from everwarm.audio_input import EncodedFile, Pcm, form, guessed_s, longest_s, pcm_of_wav, read_audio
from everwarm.errors import InvalidAudio


def wav(samples: bytes, *, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return file.getvalue()


@given(audio=arrays.arrays(np.float32, st.integers(1, 200), elements=st.floats(-4, 4, width=32)))
def test_float_samples_become_pcm_within_half_a_step_and_clipped(audio: np.ndarray) -> None:
    sent = read_audio(audio)
    assert isinstance(sent, Pcm)
    back = np.frombuffer(sent.data, "<i2").astype(np.float64) / 32767
    assert np.abs(back - np.clip(audio, -1.00004, 1)).max() <= 0.5 / 32767 + 1e-6


def test_reading_float_samples_leaves_the_callers_array_alone() -> None:
    audio = np.array([0.5, -2.0, 2.0], dtype=np.float32)
    read_audio(audio)
    assert audio.tolist() == [0.5, -2.0, 2.0]


def test_int16_samples_are_sent_without_a_copy() -> None:
    audio = np.arange(-100, 100, dtype=np.int16)
    sent = read_audio(audio)
    assert isinstance(sent, Pcm)
    assert np.shares_memory(np.frombuffer(sent.data, np.int16), audio)


def test_strided_and_single_row_samples_are_sent_in_order() -> None:
    audio = np.arange(100, dtype=np.int16)
    for shaped in (audio[::2], audio[::2].reshape(1, -1)):
        sent = read_audio(shaped)
        assert isinstance(sent, Pcm)
        assert np.frombuffer(sent.data, np.int16).tolist() == list(range(0, 100, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(bad: float) -> None:
    audio = np.zeros(100, dtype=np.float32)
    audio[50] = bad
    with pytest.raises(InvalidAudio, match="finite"):
        read_audio(audio)


@pytest.mark.parametrize(
    "audio",
    [np.zeros(0, np.float32), np.zeros((2, 100), np.float32), np.zeros(4, np.int32), b"", 12, [0.1, 0.2]],
    ids=["empty", "stereo", "int32", "no bytes", "a number", "a list"],
)
def test_what_is_no_audio_is_refused(audio: object) -> None:
    with pytest.raises(InvalidAudio):
        read_audio(audio)  # type: ignore[arg-type]  # that is the point


def test_a_file_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(InvalidAudio, match=r"nowhere\.flac"):
        read_audio("nowhere.flac")


def test_a_plain_wav_file_is_sent_as_its_samples(tmp_path: Path) -> None:
    samples = np.arange(1000, dtype="<i2").tobytes()
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples))
    for given_as in (path, str(path), path.read_bytes()):
        sent = read_audio(given_as)
        assert isinstance(sent, Pcm)
        assert bytes(sent.data) == samples


@pytest.mark.parametrize(
    "file",
    [
        wav(b"\0" * 800, rate=8_000),
        wav(b"\0" * 800, channels=2),
        wav(b"\0" * 800, width=1),
        b"ID3 mp3",
        b"RIFF",
    ],
    ids=["8 kHz", "stereo", "8 bit", "mp3", "cut off"],
)
def test_every_other_file_is_sent_as_it_is(file: bytes) -> None:
    sent = read_audio(file)
    assert isinstance(sent, EncodedFile)
    assert bytes(sent.data) == file


@given(data=st.binary(max_size=200), cut=st.integers(0, 60))
def test_no_file_breaks_the_wav_reader(data: bytes, cut: int) -> None:
    whole = wav(b"\1\0" * 20)
    for file in (data, whole[:cut] + data, whole[:12] + data):
        found = pcm_of_wav(memoryview(file))
        assert found is None or len(found) % 2 == 0


def test_a_wav_header_that_promises_more_than_there_is_is_left_to_the_decoder() -> None:
    streamed = bytearray(wav(b"\0" * 100))
    struct.pack_into("<I", streamed, 40, 0xFFFFFFFF)
    assert pcm_of_wav(memoryview(bytes(streamed))) is None


@given(
    sound=st.binary(max_size=200),
    fields=st.lists(
        st.tuples(st.sampled_from(["model", "language", "prompt"]), st.text("añ€ \"'b", max_size=20))
    ),
)
def test_a_form_reads_back_as_it_was_written(sound: bytes, fields: list[tuple[str, str]]) -> None:
    body, content_type = form(EncodedFile(sound, 'clip "one".mp3'), fields)
    message = BytesParser().parsebytes(f"content-type: {content_type}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    names = [part.get_param("name", header="content-disposition") for part in parts]  # type: ignore[union-attr]  # parts of multipart are messages
    assert names == [name for name, _ in fields] + ["file"]
    assert body.count(sound) >= 1


def test_the_length_of_a_wav_file_is_known_from_its_head() -> None:
    file = wav(b"\0" * 96_000, rate=48_000)
    assert guessed_s(file[:64], len(file)) == pytest.approx(1.0, abs=0.01)
    assert longest_s(file[:64], len(file)) == pytest.approx(1.0, abs=0.01)


def test_other_files_may_be_as_long_as_the_slowest_codec_makes_them() -> None:
    assert guessed_s(b"ID3", 16_000) < longest_s(b"ID3", 16_000)
