"""What happens to a take before it is an utterance, and the set of sounds without speech. Pure functions of
arrays.

All audio is mono float32 in [-1, 1] at 16 kHz, shape (samples,); levels are dB relative to full scale,
measured as root mean square. Noise is added so that speech, measured where somebody speaks, stands the given
dB above it. Randomness comes in as a generator; the functions keep no state and read no files.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]
Generator: TypeAlias = np.random.Generator

RATE_HZ: Final = 16_000
FRAME_S: Final = 0.01
QUIET_DB: Final = -40.0  # frames this far below the loudest are silence at either end of a take
ACTIVE_DB: Final = -25.0  # frames this far below the loudest still count as speech when its level is measured
FLOOR_DB: Final = -75.0  # a good microphone's own noise; digital silence occurs on no call
PEAK: Final = 0.98
TELEPHONE_HZ: Final = (300.0, 3400.0)
MU: Final = 255.0  # ITU-T G.711, the coding of a telephone line
TALKERS: Final = 6  # fewer can be understood one by one, more become a hiss


def trimmed(samples: Samples) -> Samples:
    """*samples* without the silence at both ends."""
    levels = _frame_levels(samples)
    loud = np.flatnonzero(levels > levels.max() * 10 ** (QUIET_DB / 20))
    frame = int(FRAME_S * RATE_HZ)
    return samples[loud[0] * frame : (loud[-1] + 1) * frame]


def speech_level(samples: Samples) -> float:
    """Root mean square of the frames in which somebody speaks."""
    levels = _frame_levels(samples)
    active = levels[levels > levels.max() * 10 ** (ACTIVE_DB / 20)]
    return float(np.sqrt(np.mean(active**2)))


def at_level(samples: Samples, level_db: float) -> Samples:
    """*samples* with speech at *level_db*."""
    return samples * np.float32(10 ** (level_db / 20) / speech_level(samples))


def with_margins(samples: Samples, before_s: float, after_s: float) -> Samples:
    """*samples* with silence around them."""
    return np.pad(samples, (int(before_s * RATE_HZ), int(after_s * RATE_HZ)))


def with_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """*samples* with as many samples of *noise* added, *snr_db* below the speech."""
    noise = noise[: len(samples)]
    wanted = speech_level(samples) * 10 ** (-snr_db / 20)
    return samples + noise * np.float32(wanted / _rms(noise))


def limited(samples: Samples) -> Samples:
    """*samples*, quieter when they would not fit."""
    loudest = float(np.abs(samples).max())
    return samples if loudest <= PEAK else samples * np.float32(PEAK / loudest)


def telephone(samples: Samples) -> Samples:
    """*samples* as they leave a telephone line: 300 to 3,400 Hz, in the 256 steps of G.711's mu-law."""
    banded = band(samples, *TELEPHONE_HZ)
    scaled = np.clip(banded / max(float(np.abs(banded).max()), 1e-9), -1, 1)
    steps = np.round(np.sign(scaled) * np.log1p(MU * np.abs(scaled)) / np.log1p(MU) * 127) / 127
    heard = np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU
    return band((heard * np.abs(banded).max()).astype(np.float32), *TELEPHONE_HZ)


def band(samples: Samples, low_hz: float, high_hz: float) -> Samples:
    """*samples* between two frequencies, with edges a tenth wide."""
    spectrum = np.fft.rfft(samples)
    hz = np.fft.rfftfreq(len(samples), 1 / RATE_HZ)
    rise = np.clip((hz / max(low_hz, 1e-9) - 0.9) / 0.1, 0, 1)
    fall = np.clip((1.1 - hz / high_hz) / 0.1, 0, 1)
    return np.fft.irfft(spectrum * rise * fall, len(samples)).astype(np.float32)


def coloured(rng: Generator, count: int, slope: float) -> Samples:
    """*count* samples of noise at 0 dB, power falling as frequency ** *slope*: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    spectrum *= np.maximum(hz, 20.0) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, count)
    return (noise / _rms(noise)).astype(np.float32)


def babble(rng: Generator, talkers: Sequence[Samples], count: int) -> Samples:
    """*count* samples of people talking at once, each as loud as the others and starting anywhere."""
    voices = [np.roll(take, int(rng.integers(len(take)))) / speech_level(take) for take in talkers]
    together: Samples = np.sum([np.resize(voice, count) for voice in voices], axis=0).astype(np.float32)
    return together


def non_speech(rng: Generator) -> Iterator[tuple[str, Samples]]:
    """(kind, samples) of everything a transcriber should say nothing to, 0.5 to 10 s each."""
    for seconds in (0.5, 3.0, 10.0):
        yield "silence", np.zeros(_count(seconds), np.float32)
    for kind, slope in (("white", 0.0), ("pink", 1.0), ("brown", 2.0)):
        for level_db, seconds in (
            (-75.0, 4.0),
            (-60.0, 1.0),
            (-50.0, 6.0),
            (-40.0, 2.5),
            (-30.0, 10.0),
            (-20.0, 1.5),
        ):
            yield kind, _level(coloured(rng, _count(seconds), slope), level_db)
    for kind, make, lengths in _KINDS:
        for seconds in lengths:
            level_db = float(rng.uniform(-35, -18))
            made = make(rng, seconds)
            floor = _level(coloured(rng, _count(seconds), 0.0), FLOOR_DB)
            yield kind, limited(_level(made, level_db) + floor)


def _hum(rng: Generator, seconds: float) -> Samples:
    """A mains hum with its overtones."""
    base_hz = float(rng.choice([50.0, 60.0]))
    return _tones([base_hz * n for n in (1, 2, 3, 4, 6)], seconds, [1.0, 0.6, 0.4, 0.2, 0.1])


def _traffic(rng: Generator, seconds: float) -> Samples:
    """Cars that pass."""
    rumble = band(coloured(rng, _count(seconds), 1.0), 40, 900)
    nearness: Samples = (0.3 + 0.7 * _wave(rng.uniform(0.1, 0.4), seconds) ** 2).astype(np.float32)
    return rumble * nearness


def _breaths(rng: Generator, seconds: float) -> Samples:
    """Breathing in and out into a microphone."""
    air = band(coloured(rng, _count(seconds), 0.5), 300, 3500)
    breath: Samples = (np.abs(_wave(rng.uniform(0.3, 0.8), seconds)) ** 3).astype(np.float32)
    return air * breath


def _clicks(rng: Generator, seconds: float) -> Samples:
    """Clicks at uneven distances, as of keys or a bad line."""
    samples = np.zeros(_count(seconds), np.float32)
    decay = np.exp(-np.arange(400) / 60)
    for start in rng.integers(0, len(samples) - 400, max(2, int(seconds * 4))):
        samples[start : start + 400] += (decay * rng.standard_normal(400)).astype(np.float32)
    return samples


def _beeps(rng: Generator, seconds: float) -> Samples:
    """A tone that comes and goes, as when a line is busy."""
    tone = _tones([float(rng.choice([350.0, 425.0, 440.0, 950.0]))], seconds, [1.0])
    return tone * (_wave(float(rng.uniform(0.4, 1.2)), seconds) > 0)


def _chords(rng: Generator, seconds: float) -> Samples:
    """Chords of a second each, as in music while waiting."""
    return _notes(rng, seconds, each_s=1.0, voices=3)


def _arpeggios(rng: Generator, seconds: float) -> Samples:
    """Single notes, five a second."""
    return _notes(rng, seconds, each_s=0.2, voices=1)


_KINDS: Final[Sequence[tuple[str, Callable[[Generator, float], Samples], tuple[float, ...]]]] = (
    ("hum", _hum, (0.7, 2.0, 5.0, 9.0)),
    ("traffic", _traffic, (1.0, 3.0, 6.0, 10.0)),
    ("breaths", _breaths, (0.6, 1.2, 2.0, 4.0, 6.0, 8.0)),
    ("clicks", _clicks, (0.5, 1.5, 3.0, 5.0, 8.0)),
    ("beeps", _beeps, (0.5, 1.0, 2.0, 4.0, 7.0, 10.0)),
    ("chords", _chords, (1.0, 2.0, 3.0, 5.0, 8.0, 10.0)),
    ("arpeggios", _arpeggios, (0.8, 1.6, 3.0, 4.5, 7.0, 10.0)),
)


def _notes(rng: Generator, seconds: float, *, each_s: float, voices: int) -> Samples:
    """Plucked notes of a scale, *voices* at a time."""
    scale = 220.0 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
    samples = np.zeros(_count(seconds), np.float32)
    step = int(each_s * RATE_HZ)
    for start in range(0, len(samples), step):
        count = min(step, len(samples) - start)
        fading = np.exp(-np.arange(count) / RATE_HZ * 2 / each_s)
        for hz in rng.choice(scale, voices, replace=False):
            note = _tones([hz, 2 * hz, 3 * hz], count / RATE_HZ, [1.0, 0.4, 0.15])[:count]
            samples[start : start + len(note)] += note * fading[: len(note)].astype(np.float32)
    return samples


def _tones(hz: Sequence[float], seconds: float, weights: Sequence[float]) -> Samples:
    tones = [weight * _wave(each, seconds) for each, weight in zip(hz, weights, strict=True)]
    together: Samples = np.sum(tones, axis=0).astype(np.float32)
    return together


def _wave(hz: float, seconds: float) -> NDArray[np.float64]:
    wave: NDArray[np.float64] = np.sin(2 * np.pi * hz * np.arange(_count(seconds)) / RATE_HZ)
    return wave


def _count(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def _level(samples: Samples, level_db: float) -> Samples:
    return samples * np.float32(10 ** (level_db / 20) / _rms(samples))


def _rms(samples: NDArray[np.floating]) -> float:
    return max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), 1e-9)


def _frame_levels(samples: Samples) -> NDArray[np.float64]:
    """Root mean square of every frame, the last one included when it is not whole."""
    frame = int(FRAME_S * RATE_HZ)
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    levels: NDArray[np.float64] = np.sqrt(np.mean(padded.astype(np.float64) ** 2, axis=1))
    return levels
