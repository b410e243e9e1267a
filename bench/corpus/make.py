"""Makes the corpus: who says which line how fast (`planned`), the takes, what a call adds to them, and the
index.

    python -m bench.corpus.make [--folder FOLDER] [--keep-takes]

The plan depends on the texts and the list of voices alone. A voice that cannot be had leaves its lines out
instead of giving them to others, so everything else but some babble stays the same; fewer than 5,000 words in
all are an error. The work is done in a folder beside the target, which is renamed when all is there: a corpus
is whole or absent. Takes survive an interrupted run, those of voices with a memory only when the voice had
finished. Two runs that start at once wait for each other (flock, so POSIX only).
"""

import argparse
import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from bench.corpus import sound
from bench.corpus.sound import Generator, Samples
from bench.corpus.voices import VOICES, Booth, Engine, Voice, install
from bench.corpus.wav import read_wav, write_wav
from bench.corpus.words import normalised

VERSION: Final = 2
"""Raised whenever a text, a voice or a sound changes, since results over two corpora cannot be compared."""

LEAST_WORDS: Final = 5_000  # below, the interval of an error rate is too wide to tell two engines apart
SEED: Final = 20_250_101
TEXTS: Final = Path(__file__).parent / "texts"
SPEAK: Final = Path(__file__).parent / "speak.py"

CAST: Final[Mapping[str, tuple[str, ...]]] = {
    "en": ("joe", "bella", "heart", "emma", "pico-us", "joe", "michael", "heart", "george", "pico-gb"),
    "de": ("pico-de", "siwis-de", "pico-de", "pico-de", "nicola-de", "pico-de"),
    "fr": ("siwis", "pico-fr"),
    "es": ("dora", "pico-es", "alex-es", "pico-es"),
    "it": ("sara", "pico-it", "nicola", "pico-it"),
}
"""Who speaks in turn; a name given twice speaks twice as often. Kokoro takes most of the time of all this."""

READINGS: Final[Mapping[str, int]] = {"en": 2, "de": 1, "fr": 1, "es": 1, "it": 1}
"""How many voices speak each line."""

MEMORYLESS: Final = frozenset({Engine.KOKORO, Engine.HIBARI})
"""Engines that say a line alike whatever they said before."""

SPEEDS: Final = (0.9, 1.0, 1.0, 1.1, 1.2)
STORY_WORDS: Final = 33  # from here on a line is a story, and people take their time over one
STORY_SPEEDS: Final = (0.65, 0.75, 0.9)
LEVELS_DB: Final = (-30.0, -18.0)  # from somebody far from the microphone to somebody close
MARGINS_S: Final = (0.1, 0.5)  # what a voice activity detector leaves at either end
MARGIN_SHARE: Final = 0.2  # of the speech, at the most beyond the least: short answers are cut close

CLEAN: Final = "clean"
TELEPHONE: Final = "telephone"
NOISES: Final = (CLEAN,) * 7 + (TELEPHONE,) + ("pink-20", "babble-20", "pink-10", "babble-10") * 2
"""What each sixteen utterances of a voice are heard in, in random order: kind of noise, dB below speech."""


class TooLittleSpeech(Exception):
    """The voices that could be had say fewer than LEAST_WORDS."""

    def __init__(self, words: int, missing: Mapping[str, str]) -> None:
        reasons = "; ".join(f"without {voice}: {reason}" for voice, reason in missing.items())
        super().__init__(
            f"the corpus would have {words} words, at least {LEAST_WORDS} are needed ({reasons})"
        )
        self.words, self.missing = words, missing


@dataclass(frozen=True, slots=True)
class Take:
    """One line, spoken once, and what it is heard in."""

    id: str
    text: str
    voice: Voice
    speed: float
    noise: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One file of the corpus; written to the index as is. words: in *text*, as word errors are counted."""

    file: str
    text: str
    language: str
    voice: str
    noise: str
    seconds: float
    words: int


def default_folder() -> Path:
    """Where the corpus of this version is cached."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "everwarm-bench" / f"corpus-{VERSION}"


def lines(language: str) -> tuple[str, ...]:
    """What is said in *language*."""
    text = (TEXTS / f"{language}.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


@cache
def planned() -> tuple[Take, ...]:
    """Every take there would be with all voices, by language, line and reading."""
    by_name = {voice.name: voice for voice in VOICES}
    noises = {voice.name: _noises(voice.name) for voice in VOICES}
    takes: list[Take] = []
    for language, cast in CAST.items():
        for index, text in enumerate(lines(language)):
            for reading in range(READINGS[language]):
                voice = by_name[_reader(cast, index, reading)]
                id_ = f"{language}-{index + 1:03}-{voice.name}"
                takes.append(Take(id_, text, voice, _speed(id_, text), next(noises[voice.name])))
    return tuple(takes)


def make(folder: Path | None = None, *, keep_takes: bool = False) -> Path:
    """Make the corpus in *folder*, by default the cache, unless it is there; returns the folder.

    Blocks for minutes and reports on standard error. Raises TooLittleSpeech, or `voices.Unavailable` when
    nothing can be installed at all.
    """
    folder = folder or default_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(f"{folder.name}.lock")):
        if not (folder / "index.json").is_file():
            _say(f"making the corpus in {folder}: some ten to thirty minutes on one core")
            part = folder.with_name(f"{folder.name}.part")
            _make(part)
            if not keep_takes:
                for name in ("voices", "takes"):
                    shutil.rmtree(part / name)
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
    return folder


def _make(folder: Path) -> None:
    _forget_other_plans(folder)
    for name in ("takes", "clips", "noises"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    booth = install(folder / "voices", _say)
    missing = {voice.name: booth.missing[voice.engine] for voice in VOICES if not booth.has(voice)}
    takes = [take for take in planned() if booth.has(take.voice)]
    _require_words(takes, missing)
    spoken = _spoken(folder / "takes", takes, booth, missing)
    takes = [take for take in takes if take.id in spoken]
    words = _require_words(takes, missing)
    digest = hashlib.sha256()
    clips = [_write_clip(folder, take, spoken, digest) for take in takes]
    noises = list(_write_noises(folder, digest))
    index = {
        "version": VERSION,
        "digest": digest.hexdigest(),
        "missing": missing,
        "clips": [asdict(clip) for clip in clips],
        "noises": [asdict(clip) for clip in noises],
    }
    (folder / "index.json").write_text(
        json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    minutes = sum(clip.seconds for clip in clips) / 60
    _say(
        f"{len(clips)} utterances, {words} words, {minutes:.0f} minutes; {len(noises)} sounds without speech"
    )


def _require_words(takes: Sequence[Take], missing: Mapping[str, str]) -> int:
    """How many words *takes* have; raises TooLittleSpeech when they are too few."""
    words = sum(len(normalised(take.text, take.voice.language)) for take in takes)
    if words < LEAST_WORDS:
        raise TooLittleSpeech(words, missing)
    return words


def _speed(id_: str, text: str) -> float:
    speeds = SPEEDS if len(text.split()) < STORY_WORDS else STORY_SPEEDS
    return random.Random(f"{SEED} {id_}").choice(speeds)


def _reader(cast: Sequence[str], line: int, reading: int) -> str:
    """Who speaks *line*; the second is somebody else, at a distance that changes so that all pairs meet."""
    place = line
    if reading:
        place += 1 + line // len(cast) % (len(cast) - 1)
        while cast[place % len(cast)] == cast[line % len(cast)]:
            place += 1
    return cast[place % len(cast)]


def _forget_other_plans(folder: Path) -> None:
    """Remove the takes of an interrupted run that was to say something else."""
    plan = hashlib.sha256(repr(planned()).encode()).hexdigest()
    marker = folder / "takes" / "plan"
    if not marker.is_file() or marker.read_text(encoding="ascii") != plan:
        shutil.rmtree(folder / "takes", ignore_errors=True)
        marker.parent.mkdir(parents=True)
        marker.write_text(plan, encoding="ascii")


def _noises(voice: str) -> Iterator[str]:
    """What the takes of *voice* are heard in, without end."""
    order = random.Random(f"{SEED} noise {voice}")
    while True:
        yield from order.sample(NOISES, len(NOISES))


def _spoken(
    folder: Path, takes: Sequence[Take], booth: Booth, missing: dict[str, str]
) -> Mapping[str, Samples]:
    """The takes by id, without silence at their ends; what was spoken before an interruption is not asked for
    again.

    A voice that breaks down is left out and added to *missing*.
    """
    by_voice: defaultdict[Voice, list[Take]] = defaultdict(list)
    for take in takes:
        by_voice[take.voice].append(take)
    spoken: dict[str, Samples] = {}
    for voice, its_takes in by_voice.items():
        done = folder / voice.name
        if not done.is_dir():
            part = folder / f"{voice.name}.part"
            if voice.engine not in MEMORYLESS:
                shutil.rmtree(part, ignore_errors=True)
            part.mkdir(exist_ok=True)
            left = [take for take in its_takes if not (part / f"{take.id}.wav").is_file()]
            if problem := _speak(part, voice, left, booth):
                missing[voice.name] = problem
                _say(f"without {voice.name}: {problem}")
                continue
            part.rename(done)
        spoken |= {take.id: sound.trimmed(read_wav(done / f"{take.id}.wav")) for take in its_takes}
    return spoken


def _speak(folder: Path, voice: Voice, takes: Sequence[Take], booth: Booth) -> str:
    """Have *voice* speak *takes* into *folder*; returns what went wrong, more being on standard error."""
    job = {
        "engine": voice.engine,
        "speaker": voice.speaker,
        "accent": voice.accent,
        "speakers": str(booth.speakers),
        "takes": [
            {"file": str(folder / f"{take.id}.wav"), "text": take.text, "speed": take.speed} for take in takes
        ],
    }
    command = [str(booth.python), "-W", "ignore", str(SPEAK)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if voice.engine is Engine.PICO:
        environment["MALLOC_PERTURB_"] = (
            "255"  # it reads memory before writing it; glibc then hands out zeros
        )
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as speaker:
        assert speaker.stdin is not None
        assert speaker.stdout is not None
        with suppress(BrokenPipeError):  # it has ended already, and the exit code says so
            json.dump(job, speaker.stdin)
            speaker.stdin.close()
        for count, _ in enumerate(speaker.stdout, start=1):
            _progress(f"{voice.language} {voice.name}", count, len(takes))
    return f"{voice.engine} ended with exit code {speaker.returncode}" if speaker.returncode else ""


def _write_clip(folder: Path, take: Take, spoken: Mapping[str, Samples], digest: "hashlib._Hash") -> Clip:
    rng = _generator(take.id)
    speech = sound.at_level(spoken[take.id], rng.uniform(*LEVELS_DB))
    least_s, most_s = MARGINS_S
    most_s = min(most_s, least_s + MARGIN_SHARE * len(speech) / sound.RATE_HZ)
    speech = sound.with_margins(speech, rng.uniform(least_s, most_s), rng.uniform(least_s, most_s))
    floor = sound.coloured(rng, len(speech), 0.0) * np.float32(10 ** (sound.FLOOR_DB / 20))
    heard = sound.limited(_in_noise(rng, speech, take, spoken) + floor)
    digest.update(write_wav(folder / "clips" / f"{take.id}.wav", heard))
    language = take.voice.language
    return Clip(
        f"clips/{take.id}.wav",
        take.text,
        language,
        take.voice.name,
        take.noise,
        round(len(heard) / sound.RATE_HZ, 3),
        len(normalised(take.text, language)),
    )


def _in_noise(rng: Generator, speech: Samples, take: Take, spoken: Mapping[str, Samples]) -> Samples:
    """*speech* as it is heard in the noise of *take*; others' takes are what babble is made of."""
    if take.noise == CLEAN:
        return speech
    if take.noise == TELEPHONE:
        return sound.telephone(speech)
    kind, snr_db = take.noise.split("-")
    if kind == "pink":
        noise = sound.coloured(rng, len(speech), 1.0)
    else:
        noise = sound.babble(rng, _talkers(rng, take.voice, spoken), len(speech))
    return sound.with_noise(speech, noise, float(snr_db))


def _talkers(rng: Generator, voice: Voice, spoken: Mapping[str, Samples]) -> list[Samples]:
    """Takes of others than *voice*, drawn from the plan, so that a missing voice changes little."""
    others = [other.id for other in planned() if other.voice != voice]
    drawn = (others[n] for n in rng.permutation(len(others)))
    return [spoken[id_] for id_ in drawn if id_ in spoken][: sound.TALKERS]


def _write_noises(folder: Path, digest: "hashlib._Hash") -> Iterator[Clip]:
    for index, (kind, samples) in enumerate(sound.non_speech(_generator("noises")), start=1):
        file = f"noises/noise-{index:02}-{kind}.wav"
        digest.update(write_wav(folder / file, samples))
        yield Clip(file, "", "en", kind, kind, round(len(samples) / sound.RATE_HZ, 3), 0)


def _generator(name: str) -> Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold *lock* against other processes; the file stays, since removing it would let two hold it."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(message: str) -> None:
    print(f"corpus: {message}", file=sys.stderr, flush=True)


def _progress(what: str, done: int, total: int) -> None:
    """A line that is overwritten on a terminal, elsewhere one line at the end."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rcorpus: {what} {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done == total:
        _say(f"{what} {done}/{total}")


def main() -> None:
    """Make the corpus from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.corpus.make", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to; by default the user's cache folder")
    parser.add_argument("--keep-takes", action="store_true", help="keep the voices and their takes")
    arguments = parser.parse_args()
    print(make(arguments.folder, keep_takes=arguments.keep_takes))


if __name__ == "__main__":
    main()
