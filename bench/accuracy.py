"""Whether short windows cost words: Everwarm's engine against faster-whisper on some 8,800 words and on sounds without speech.

Both decode the same utterances with the same weights, beams and defaults; what differs is the window and what the guards
make of it. The difference of the two word error rates counts, with the interval of a bootstrap that draws utterances and
keeps the pair together: voices, texts and noises are then the same on both sides. faster-whisper's transcripts are kept
beside the corpus, since they depend on nothing here.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.corpus.load import Utterance, digest, load_corpus, load_noises
from bench.corpus.make import default_folder
from bench.corpus.words import paired_bootstrap, word_errors
from bench.report import Figure, Promise, Report
from bench.way import Setting, Transcribe, cached, engine

BEAMS: Final = (5, 1)
DIFFERENCE_LIMIT: Final = 0.3  # points of word error rate
INTERVAL_LIMIT: Final = 0.6  # points, for the upper end of the interval
MODELS: Final = ("tiny.en", "base")
THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """One utterance, as the reference and as Everwarm hear it; errors and words of what was said."""

    utterance: Utterance
    reference_errors: int
    errors: int
    words: int


def run() -> Report:
    """Both models at both widths of the search; tiny.en hears English alone."""
    figures: list[Figure] = []
    promises: list[Promise] = []
    notes: list[str] = []
    speech, sounds = load_corpus(), load_noises()
    for model in MODELS:
        heard = [u for u in speech if u.language == "en" or not model.endswith(".en")]
        for beam in BEAMS:
            title = f"{model}, {'beam ' + str(beam) if beam > 1 else 'greedy'}"
            pairs = _pairs(model, beam, heard)
            promises += _judged(title, pairs)
            figures += _by_language(title, pairs)
            invented = [(u, text) for u, text in zip(sounds, _ours(model, beam, sounds), strict=True) if text]
            theirs = sum(bool(text) for text in _theirs(model, beam, sounds))
            promises.append(Promise(f"{title}: sounds given words", len(invented), 0, "sounds"))
            figures.append(
                Figure(f"{title}: sounds given words by faster-whisper", theirs, f"of {len(sounds)}")
            )
            notes += [f"- {title}: {u.id} was given {text!r}" for u, text in invented]
    return Report("Accuracy", tuple(figures), tuple(promises), tuple(notes))


def _judged(title: str, pairs: Sequence[Pair]) -> list[Promise]:
    words = sum(pair.words for pair in pairs)
    difference = 100 * sum(pair.errors - pair.reference_errors for pair in pairs) / words
    _, high = paired_bootstrap(
        [pair.errors - pair.reference_errors for pair in pairs], [pair.words for pair in pairs], seed=1
    )
    return [
        Promise(f"{title}: word error rate less faster-whisper's", difference, DIFFERENCE_LIMIT, "points"),
        Promise(f"{title}: upper end of its 95 % interval", high, INTERVAL_LIMIT, "points"),
    ]


def _by_language(title: str, pairs: Sequence[Pair]) -> list[Figure]:
    figures = []
    for language in ("", *sorted({pair.utterance.language for pair in pairs})):
        part = [pair for pair in pairs if language in ("", pair.utterance.language)]
        words = sum(pair.words for pair in part)
        ours = 100 * sum(pair.errors for pair in part) / words
        theirs = 100 * sum(pair.reference_errors for pair in part) / words
        figures.append(
            Figure(
                f"{title}, {language or 'all'}",
                ours,
                "% WER",
                f"faster-whisper {theirs:.2f} %, {words} words",
            )
        )
    return figures


def _pairs(model: str, beam: int, utterances: Sequence[Utterance]) -> list[Pair]:
    pairs = []
    for utterance, theirs, ours in zip(
        utterances, _theirs(model, beam, utterances), _ours(model, beam, utterances), strict=True
    ):
        reference = word_errors(utterance.text, theirs, utterance.language)
        found = word_errors(utterance.text, ours, utterance.language)
        pairs.append(Pair(utterance, reference.errors, found.errors, found.words))
    return pairs


def _ours(model: str, beam: int, utterances: Sequence[Utterance]) -> list[str]:
    return _transcripts(f"Everwarm, {model}, beam {beam}", engine, model, beam, utterances)


def _theirs(model: str, beam: int, utterances: Sequence[Utterance]) -> list[str]:
    """faster-whisper's transcripts, kept by samples, versions and settings."""
    versions = "-".join(version(name) for name in ("faster-whisper", "ctranslate2"))
    kept = Path(f"{default_folder()}-heard") / f"{digest()[:16]}-{versions}-{model}-{beam}.json"
    known: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    missing = [utterance for utterance in utterances if utterance.id not in known]
    heard = _transcripts(f"faster-whisper, {model}, beam {beam}", cached, model, beam, missing)
    known |= {utterance.id: text for utterance, text in zip(missing, heard, strict=True)}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(known, indent=0), encoding="utf-8")
    return [known[utterance.id] for utterance in utterances]


def _transcripts(
    title: str,
    way: Callable[[Setting], Transcribe],
    model: str,
    beam: int,
    utterances: Sequence[Utterance],
) -> list[str]:
    by_language: dict[str, Transcribe] = {}
    texts, began = [], time.monotonic()
    for utterance in utterances:
        language = utterance.language or "en"
        if language not in by_language:
            by_language[language] = way(Setting(model, language, beam, THREADS))
        texts.append(by_language[language](utterance.audio))
    if texts:
        sys.stderr.write(f"bench: {title}: {len(texts)} utterances in {time.monotonic() - began:.0f} s\n")
    return texts
