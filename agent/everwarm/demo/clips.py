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
    """One utterance of the play: in *round* (from 0) *worker* (from 0) gets *clip*; is_first: its first ever."""

    round: int
    worker: int
    clip: Clip
    is_first: bool


def load_clips(folder: Path = FOLDER) -> tuple[Clip, ...]:
    """The bundled clips, shortest first."""
    listed = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    clips = (Clip(folder / entry["file"], entry["text"], float(entry["seconds"])) for entry in listed)
    return tuple(sorted(clips, key=lambda clip: clip.seconds))


def schedule(clips: tuple[Clip, ...], *, workers: int, full_rounds: int) -> tuple[Turn, ...]:
    """Who plays what, in order.

    A machine is not equally fast for minutes on end, so each first request stands among later ones of the same clip:
    a round is one clip, and every round brings one new worker between workers that are not new, until all are there;
    then come *full_rounds* rounds of all. The first round is its only worker's, four times over: the pods' own first
    requests are in it too, and must leave something to compare with.
    """
    rounds = [[0, 0, 0, 0]]
    for new in range(1, workers):
        known = [*range(new)] if new > 1 else [0, 0]
        rounds.append([known[0], new, *known[1:]])
    rounds += [[*range(workers)]] * full_rounds
    turns: list[Turn] = []
    for number, players in enumerate(rounds):
        for worker in players:
            is_first = all(turn.worker != worker for turn in turns)
            turns.append(Turn(number, worker, clips[number % len(clips)], is_first))
    return tuple(turns)
