"""Word errors, counted fairly: two spellings of the same speech are no error, whichever of the two engines
wrote which.

`normalised` brings a text to a list of words: lower case, no punctuation, numerals in words (`numerals`),
apostrophes as the language uses them, and the variants in `_SAME`. It is applied to reference and hypothesis
alike, so what it blurs, such as "o'clock", is neither right nor wrong. `word_errors` is the edit distance
over those words. `paired_bootstrap` says how far a difference between two engines over the same utterances
may be chance. Pure functions, no state.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from bench.corpus.numerals import LARGEST, cardinal, ordinal, year

_ROUNDS_AT_ONCE: Final = (
    500  # a resample has one count for each utterance; all rounds at once would fill the memory
)

_CURRENCIES: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "en": {"$": ("dollar", "dollars"), "£": ("pound", "pounds"), "€": ("euro", "euros")},
    "de": {"$": ("dollar", "dollar"), "£": ("pfund", "pfund"), "€": ("euro", "euro")},
    "fr": {"$": ("dollar", "dollars"), "£": ("livre", "livres"), "€": ("euro", "euros")},
    "es": {"$": ("dólar", "dólares"), "£": ("libra", "libras"), "€": ("euro", "euros")},
    "it": {"$": ("dollaro", "dollari"), "£": ("sterlina", "sterline"), "€": ("euro", "euro")},
}
_PERCENT: Final = {"en": "percent", "de": "prozent", "fr": "pour cent", "es": "por ciento", "it": "per cento"}
_POINT: Final = {"en": "point", "de": "komma", "fr": "virgule", "es": "coma", "it": "virgola"}
_AND: Final = {"en": "and", "de": "und", "fr": "et", "es": "y", "it": "e"}

# What parts groups of three digits, and what stands before a fraction; the other way round in English.
_BETWEEN_GROUPS: Final = {"en": ",", "de": r"\.", "fr": r"[\s.]", "es": r"\.", "it": r"\."}
_FRACTION: Final = {"en": r"(\d+)\.(\d+)"}
_FRACTION_ELSEWHERE: Final = r"(\d+),(\d+)"

_TIMES: Final = {
    "en": r"\b(\d{1,2}):(\d{2})\b|\b(\d{1,2})\.(\d{2})(?=\s*[ap]\.?m\b)",
    "de": r"\b(\d{1,2}):(\d{2})\b(?:\s*uhr)?|\b(\d{1,2})\.(\d{2})\s*uhr\b",
    "fr": r"\b(\d{1,2})\s?(?:h|:|heures?\s)\s?(\d{2})\b",
    "es": r"\b(\d{1,2}):(\d{2})\b",
    "it": r"\b(\d{1,2}):(\d{2})\b",
}
_ORDINALS: Final = {
    "en": r"\b(\d{1,2})(?:st|nd|rd|th)\b",
    "de": r"\b(\d{1,2})\.(?=\s+[a-zäöü])",
    "fr": r"\b(\d{1,2})(?:er|ère|re|e|ème|eme)\b",
    "es": r"\b(\d{1,2})(?:\.?[ºª]|\.?er\b)",
    "it": r"\b(\d{1,2})[°ºª]",
}
_QUARTERS: Final = {"es": {15: "y cuarto", 30: "y media"}, "it": {15: "e un quarto", 30: "e mezza"}}
"""Minutes that a text would rather say than count, where digits leave no trace of it."""

_ENGLISH_SAME: Final[Mapping[str, str]] = {
    # What is said is the same, or nearly so, and a transcriber chooses.
    "ok": "okay", "alright": "all right", "gonna": "going to", "wanna": "want to", "gotta": "got to",
    "'cause": "because", "cannot": "can not", "can't": "can not", "won't": "will not", "shan't": "shall not", "let's": "let us",
    "i'm": "i am", "mr": "mister", "mrs": "missus", "dr": "doctor", "a m": "am", "p m": "pm",
    "a hundred": "one hundred", "a thousand": "one thousand", "o'clock": "", "oclock": "", "o clock": "",
    # One word or two.
    "e mail": "email", "e mails": "emails", "wi fi": "wifi", "on line": "online", "off line": "offline",
    "voice mail": "voicemail", "web site": "website", "post code": "postcode", "any more": "anymore",
    "every one": "everyone", "any one": "anyone", "some one": "someone", "no one": "noone", "may be": "maybe",
    "head phone": "headphone", "street lamp": "streetlamp", "grand son": "grandson", "check out": "checkout",
    "log in": "login", "pick up": "pickup", "book shop": "bookshop", "seat belt": "seatbelt",
    # British and American.
    "colour": "color", "favourite": "favorite", "neighbour": "neighbor", "neighbours": "neighbors",
    "neighbour's": "neighbor's", "harbour": "harbor", "centre": "center", "theatre": "theater", "metre": "meter",
    "metres": "meters", "litre": "liter", "programme": "program", "cancelled": "canceled", "cancelling": "canceling",
    "travelling": "traveling", "travelled": "traveled", "recognise": "recognize", "recognised": "recognized",
    "realise": "realize", "realised": "realized", "organise": "organize", "organised": "organized",
    "apologise": "apologize", "cheque": "check", "cheques": "checks", "tyre": "tire", "tyres": "tires",
    "grey": "gray", "licence": "license", "catalogue": "catalog", "jewellery": "jewelry", "mum": "mom",
}  # fmt: skip
_SAME: Final[Mapping[str, Mapping[str, str]]] = {
    "en": _ENGLISH_SAME,
    "de": {
        "ok": "okay", "dr": "doktor", "e mail": "email", "zu hause": "zuhause", "nach hause": "nachhause",
        "gar nichts": "garnichts", "so dass": "sodass", "z b": "zum beispiel", "ein mal": "einmal",
        "zwei mal": "zweimal", "vier mal": "viermal", "eins uhr": "ein uhr",
    },
    "fr": {
        "ok": "okay", "mr": "monsieur", "mme": "madame", "vingts": "vingt", "cents": "cent", "e mail": "email",
        "clef": "clé", "heure": "heures", "pour quoi": "pourquoi",
    },
    "es": {
        "ok": "okay", "sr": "señor", "sra": "señora", "dr": "doctor", "veintiún": "veintiuno", "sólo": "solo",
        "doscientas": "doscientos", "trescientas": "trescientos", "la uno": "la una",
    },
    "it": {"ok": "okay", "sig": "signor", "dott": "dottor", "e mail": "email", "ventun": "ventuno"},
}  # fmt: skip

_TEENS: Final = tuple(cardinal(n, "en") for n in range(20))
_HUNDREDS_OF_TEENS: Final = re.compile(rf"\b({'|'.join(_TEENS[11:])}) hundred\b")
_NUMBER_WORDS: Final = frozenset(" ".join(cardinal(n, "en") for n in range(100)).split())


@dataclass(frozen=True, slots=True)
class Errors:
    """How a hypothesis differs from its reference.

    errors: substitutions, deletions and insertions, at the least; words: in the reference, as normalised.
    """

    errors: int
    words: int


def word_errors(reference: str, hypothesis: str, language: str) -> Errors:
    """The word errors of *hypothesis*; both are normalised first. language: ISO 639-1."""
    said, heard = normalised(reference, language), normalised(hypothesis, language)
    return Errors(distance(said, heard), len(said))


def distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest substitutions, deletions and insertions that turn one into the other (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            least = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
            diagonal, row[j] = row[j], least
    return row[-1]


def paired_bootstrap(
    differences: Sequence[int], words: Sequence[int], seed: int, rounds: int = 10_000
) -> tuple[float, float]:
    """The 95 % interval of a difference of two corpus word error rates, in percentage points.

    differences: errors of one engine less those of the other, by utterance; words: in the references, in the
    same order. Utterances are drawn with replacement *rounds* times, both engines' together, since they heard
    the same audio. Raises ValueError when the lengths differ or there are no words.
    """
    if len(differences) != len(words) or sum(words) <= 0:
        raise ValueError("as many differences as word counts are needed, and at least one word")
    rng = np.random.default_rng(seed)
    both = np.array([differences, words], np.float64)
    share = np.full(both.shape[1], 1 / both.shape[1])
    points: list[float] = []
    for start in range(0, rounds, _ROUNDS_AT_ONCE):
        drawn = rng.multinomial(both.shape[1], share, size=min(_ROUNDS_AT_ONCE, rounds - start))
        more, of = both @ drawn.T
        points.extend(100 * more / np.maximum(of, 1))
    low, high = np.percentile(points, [2.5, 97.5])
    return float(low), float(high)


def normalised(text: str, language: str) -> list[str]:
    """The words of *text* as they are compared. language: ISO 639-1, one of the corpus's five."""
    text = unicodedata.normalize("NFC", text).lower()
    text = re.sub(r"[’‘`´ʼ]", "'", text)
    text = _numerals_spelt(text, language)
    text = re.sub(r"[^\w'\s]|_", " ", text)
    text = _APOSTROPHES[language](text)
    text = _unified(" ".join(text.split()), language)
    text = _SPELLINGS.get(language, _unchanged)(text)
    return text.replace("'", "").split()


def _numerals_spelt(text: str, language: str) -> str:
    """*text* with every digit and sign of a number in words."""
    text = re.sub(_TIMES[language], lambda found: _time(found, language), text)
    text = _currencies_spelt(text, language)
    text = re.sub(rf"\b{_grouped(language)}\b", lambda found: _amount(found[0], language), text)
    text = re.sub(r"\s*%", f" {_PERCENT[language]} ", text)
    text = re.sub(
        _FRACTION.get(language, _FRACTION_ELSEWHERE), lambda found: _fraction(found, language), text
    )
    text = re.sub(_ORDINALS[language], lambda found: _ordinal(found, language), text)
    return re.sub(r"\d+", lambda found: f" {_number(found[0], language)} ", text)


def _number(digits: str, language: str) -> str:
    """A whole number: a year when it has four digits, one by one when it is a code."""
    if len(digits) > len(str(LARGEST)) or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(cardinal(int(digit), language) for digit in digits)
    return year(int(digits), language) if len(digits) == 4 else cardinal(int(digits), language)


def _ordinal(found: re.Match[str], language: str) -> str:
    number = int(found[1])
    return ordinal(number, language) if number else found[0]


def _fraction(found: re.Match[str], language: str) -> str:
    whole, after = found.groups()
    spoken = " ".join(cardinal(int(digit), language) for digit in after)
    return f"{_number(whole, language)} {_POINT[language]} {spoken}"


def _time(found: re.Match[str], language: str) -> str:
    hour, minute = (int(group) for group in found.groups() if group is not None)
    hours, minutes = cardinal(hour, language), cardinal(minute, language)
    if language in ("de", "fr"):
        mark = "uhr" if language == "de" else "heures"
        hours = {"eins": "ein", "un": "une"}.get(hours, hours)
        return f"{hours} {mark} {minutes if minute else ''}"
    if language in _QUARTERS:
        hours = {"uno": "una"}.get(hours, hours)
        tail = _QUARTERS[language].get(minute, f"{_AND[language]} {minutes}")
    else:
        tail = minutes if minute > 9 else f"oh {minutes}"
    return f"{hours} {tail if minute else ''}"


def _currencies_spelt(text: str, language: str) -> str:
    """Signs as words, after the amount wherever the sign stands, cents after the unit."""

    def spelt(found: re.Match[str]) -> str:
        one, more = _CURRENCIES[language][found["sign"]]
        amount = _amount(found["amount"], language)
        unit = one if amount == cardinal(1, language) else more
        cents = cardinal(int(found["cents"] or 0), language) if int(found["cents"] or 0) else ""
        return f" {amount} {unit} {cents} "

    number = rf"(?P<amount>{_grouped(language)}|\d+)(?:[.,](?P<cents>\d{{2}})\b)?"
    signs = f"(?P<sign>[{re.escape(''.join(_CURRENCIES[language]))}])"
    text = re.sub(rf"{signs}\s?{number}", spelt, text)
    return re.sub(rf"{number}\s?{signs}", spelt, text)


def _grouped(language: str) -> str:
    """A pattern for a number whose thousands stand apart."""
    return rf"\d{{1,3}}(?:{_BETWEEN_GROUPS[language]}\d{{3}})+"


def _amount(number: str, language: str) -> str:
    """A count of something, thousands apart or not: never a year; digits where there are no words."""
    digits = "".join(filter(str.isdecimal, number))
    return cardinal(int(digits), language) if int(digits) <= LARGEST else digits


def _unified(text: str, language: str) -> str:
    """*text* with the variants of a word or phrase replaced by one of them."""
    return re.sub(_variants(language), lambda found: _SAME[language][found[0]], text)


@cache
def _variants(language: str) -> re.Pattern[str]:
    longest_first = sorted(_SAME[language], key=len, reverse=True)
    return re.compile(rf"(?<![\w'])(?:{'|'.join(map(re.escape, longest_first))})(?![\w'])")


def _english_apostrophes(text: str) -> str:
    """Contractions that can only mean one thing in full; possessives and 's stay as they sound."""
    text = re.sub(r"\b(?!(?:ca|wo|sha)n't)(\w+)n't\b", r"\1 not", text)
    for short, full in (("'re", "are"), ("'ve", "have"), ("'ll", "will")):
        text = re.sub(rf"(\w){short}\b", rf"\1 {full}", text)
    return text


def _english_numbers(text: str) -> str:
    """Numbers without "and": "one hundred and five" as "one hundred five"; "fifteen hundred" as thousands."""
    text = re.sub(_HUNDREDS_OF_TEENS, lambda found: cardinal(100 * _TEENS.index(found[1]), "en"), text)
    words = text.split()
    kept = [
        word
        for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False)
        if not (word == "and" and before in ("hundred", "thousand") and after in _NUMBER_WORDS)
    ]
    return " ".join(kept)


def _german_spelling(text: str) -> str:
    """Swiss ss, no "ein" before hundreds, and ordinals without their ending: "am dritten" as "am dritte"."""
    text = text.replace("ß", "ss")
    text = re.sub(r"\bein(hundert|tausend)", r"\1", text)
    return re.sub(_german_ordinals(), r"\1", text)


@cache
def _german_ordinals() -> re.Pattern[str]:
    stems = "|".join(sorted((ordinal(n, "de") for n in range(1, 100)), key=len, reverse=True))
    return re.compile(rf"\b({stems})[nrsm]\b")


def _split_apostrophes(text: str) -> str:
    return text.replace("'", " ")


def _unchanged(text: str) -> str:
    return text


_APOSTROPHES: Final[Mapping[str, Callable[[str], str]]] = {
    "en": _english_apostrophes,
    "de": _unchanged,
    "fr": _split_apostrophes,
    "es": _unchanged,
    "it": _split_apostrophes,
}
_SPELLINGS: Final[Mapping[str, Callable[[str], str]]] = {"en": _english_numbers, "de": _german_spelling}
