"""Real speech with its text: the clips of `tests/speech`, as files and as samples."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt

FOLDER: Final = Path(__file__).parent.parent / "speech"
SAMPLE_RATE: Final = 16_000


@dataclass(frozen=True, slots=True)
class Clip:
    """A FLAC file at 16 kHz mono, what is said in it, and how long it is."""

    path: Path
    text: str
    seconds: float

    def samples(self) -> npt.NDArray[np.int16]:
        """The samples, shape (n,), 16 kHz mono."""
        with av.open(str(self.path)) as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        return np.concatenate(frames).astype(np.int16)

    def pcm(self) -> bytes:
        """The samples as s16le bytes."""
        return self.samples().astype("<i2").tobytes()


@cache
def clips() -> tuple[Clip, ...]:
    """All utterances, in the order of clips.json; the recording is `recording()`."""
    return tuple(clip for clip in _all() if clip.seconds <= 30)


@cache
def recording() -> Clip:
    """The one clip that is longer than Whisper's window."""
    return next(clip for clip in _all() if clip.seconds > 30)


def words(text: str) -> list[str]:
    """The words of *text* in lower case without punctuation: what transcripts are compared by."""
    return re.findall(r"[a-z0-9']+", text.lower())


def _all() -> tuple[Clip, ...]:
    listed = json.loads((FOLDER / "clips.json").read_text(encoding="utf-8"))
    return tuple(Clip(FOLDER / entry["file"], entry["text"], float(entry["seconds"])) for entry in listed)
