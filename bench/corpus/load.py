"""The corpus in memory, made first when the cache has none; the way in for benchmarks.

What is read is what `make` wrote: `index.json` is written last, so a folder that has one is whole. Utterances
come in the order of the index, which is fixed, so that a result can be told by its place as well as by its
id.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any, Final

from bench.corpus.make import default_folder, make
from bench.corpus.sound import RATE_HZ, Samples
from bench.corpus.wav import read_wav

LATENCY_S: Final = (0.6, 11.0)  # what a turn of a caller takes; longer ones are stories
NEAR: Final = 12  # candidates for one length, of which the voice heard least so far is taken
NEAR_RATIO: Final = 1.1  # and no candidate is longer or shorter than wanted by more, unless none is this near


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """One turn of speech, or a sound without speech when *text* is empty.

    audio: mono float32 in [-1, 1], 16 kHz, shape (samples,); language: ISO 639-1, the one a transcriber is
    told; voice: of `voices.VOICES`, or the kind of sound; noise: "clean", "telephone", or kind and dB such as
    "babble-10".
    """

    id: str
    audio: Samples
    text: str
    language: str
    voice: str
    noise: str

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / RATE_HZ


def load_corpus(folder: Path | None = None) -> tuple[Utterance, ...]:
    """All speech; makes it first, which takes a while and tells so on standard error.

    folder: where it is or shall be, by default `make.default_folder()`. Raises `make.TooLittleSpeech` when it
    cannot be made.
    """
    return _load(folder, "clips")


def load_noises(folder: Path | None = None) -> tuple[Utterance, ...]:
    """All sounds without speech, made first like the speech."""
    return _load(folder, "noises")


def digest(folder: Path | None = None) -> str:
    """A checksum of all samples: results over equal digests were measured on the same audio."""
    return str(_index(folder or default_folder())["digest"])


def latency_set(corpus: Sequence[Utterance], count: int = 64) -> tuple[Utterance, ...]:
    """*count* English utterances of 0.6 to 11 s, spread over length by equal ratios and over voices; shortest
    first.

    Depends on nothing but the corpus. Raises ValueError when the corpus has fewer.
    """
    shortest_s, longest_s = LATENCY_S
    left = [u for u in corpus if u.language == "en" and shortest_s <= u.seconds <= longest_s]
    if len(left) < count:
        raise ValueError(f"{count} utterances wanted, {len(left)} are English and of 0.6 to 11 s")
    low, high = log(min(u.seconds for u in left)), log(max(u.seconds for u in left))
    heard: Counter[str] = Counter()
    chosen: list[Utterance] = []
    for step in reversed(range(count)):  # long ones are rare, so they are chosen first
        wanted_s = exp(low + (high - low) * step / max(1, count - 1))
        left.sort(key=lambda u: (_ratio(u, wanted_s), u.id))
        near = [u for u in left[:NEAR] if _ratio(u, wanted_s) <= log(NEAR_RATIO)] or left[:1]
        pick = min(near, key=lambda u: heard[u.voice])
        heard[pick.voice] += 1
        chosen.append(pick)
        left.remove(pick)
    return tuple(sorted(chosen, key=lambda u: (u.seconds, u.id)))


def _ratio(utterance: Utterance, wanted_s: float) -> float:
    """How far apart two lengths are, longer or shorter alike."""
    return abs(log(utterance.seconds / wanted_s))


def _load(folder: Path | None, part: str) -> tuple[Utterance, ...]:
    folder = folder or default_folder()
    return tuple(
        Utterance(
            Path(clip["file"]).stem,
            read_wav(folder / clip["file"]),
            clip["text"],
            clip["language"],
            clip["voice"],
            clip["noise"],
        )
        for clip in _index(folder)[part]
    )


def _index(folder: Path) -> dict[str, Any]:
    index = folder / "index.json"
    if not index.is_file():
        make(folder)
    found: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
    return found
