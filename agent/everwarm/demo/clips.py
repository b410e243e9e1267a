"""The speech that the demo plays, with what is said in it, and who plays which clip when; pure but for one file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "clips"


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance: a FLAC file, its text, its length in seconds."""

    path: Path
    text: str
    seconds: float

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of the play: *worker* (from 0) gets *clip* in *round* (from 0; round 0 is its first request)."""

    round: int
    worker: int
    clip: Clip


def load_clips(folder: Path = FOLDER) -> tuple[Clip, ...]:
    """The bundled clips, shortest first."""
    listed = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    clips = (Clip(folder / entry["file"], entry["text"], float(entry["seconds"])) for entry in listed)
    return tuple(sorted(clips, key=lambda clip: clip.seconds))


def schedule(clips: tuple[Clip, ...], *, workers: int, rounds: int) -> tuple[Turn, ...]:
    """Who plays what, in order: each round every worker has one turn, one clip further than in the round before.

    With as many rounds as clips every worker plays every clip, so first and later requests are compared on the same
    speech. At least two rounds, and as many clips as workers, or some clip would be heard in the first round alone.
    """
    if rounds < 2 or len(clips) < workers:
        raise ValueError(
            f"{rounds} rounds of {len(clips)} clips for {workers} workers leave nothing to compare"
        )
    return tuple(
        Turn(number, worker, clips[(worker + number) % len(clips)])
        for number in range(rounds)
        for worker in range(workers)
    )
