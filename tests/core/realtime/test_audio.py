"""Every format that realtime clients send becomes the same speech at 16 kHz."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everwarm_core.realtime.audio import RATES, SAMPLE_RATE, AudioDecoder, AudioFormat

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    audioop = pytest.importorskip(
        "audioop", reason="the reference of G.711 left the standard library in 3.13"
    )


def tone(rate: int, *, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("<i2")


def encoded(form: AudioFormat) -> bytes:
    pcm = tone(RATES[form]).tobytes()
    match form:
        case AudioFormat.PCM:
            return pcm
        case AudioFormat.PCMU:
            return bytes(audioop.lin2ulaw(pcm, 2))
        case AudioFormat.PCMA:
            return bytes(audioop.lin2alaw(pcm, 2))


@pytest.mark.parametrize("form", AudioFormat)
def test_tone_is_the_same_tone_afterwards(form: AudioFormat) -> None:
    decoder = AudioDecoder(form)
    heard = np.concatenate([decoder.decode(encoded(form)), decoder.flush()])
    assert abs(len(heard) - SAMPLE_RATE) <= 2
    inner = slice(1000, -1000)  # the filter's edges
    difference = (
        heard.astype(float)[: len(heard)][inner] - tone(SAMPLE_RATE).astype(float)[: len(heard)][inner]
    )
    assert np.abs(difference).max() < (100 if form is AudioFormat.PCM else 600)  # 8 bits are coarse


@pytest.mark.parametrize(
    ("form", "to_linear"), [(AudioFormat.PCMU, audioop.ulaw2lin), (AudioFormat.PCMA, audioop.alaw2lin)]
)
def test_all_codes_of_g711_mean_what_the_standard_library_says(form: AudioFormat, to_linear: object) -> None:
    codes = bytes(range(256))
    assert callable(to_linear)
    expected = np.frombuffer(to_linear(codes, 2), "<i2")
    assert (AudioDecoder(form)._read(codes) == expected).all()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 999), max_size=30).map(lambda sizes: [size for size in sizes if size]))
def test_pieces_of_any_size_give_what_the_whole_gives(sizes: list[int]) -> None:
    data = tone(24_000, seconds=0.3).tobytes()
    at, pieces = 0, []
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    whole, cut = AudioDecoder(AudioFormat.PCM), AudioDecoder(AudioFormat.PCM)
    one = np.concatenate([whole.decode(data), whole.flush()])
    other = np.concatenate([*map(cut.decode, [*pieces, data[at:]]), cut.flush()])
    assert np.abs(one.astype(int) - other.astype(int)).max(initial=0) <= 4  # it dithers
    assert len(one) == len(other)
