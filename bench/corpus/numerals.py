"""Numbers in words, in five languages, in the one spelling that `words` compares: 0 to 9999, ordinals, and
years.

Not for people to read: hyphens are spaces, English has no "and", French no plural s on "vingt" and "cent",
German no leading "ein" on "hundert" and "tausend". `words` brings what a text says in words to the same
spelling.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

Spell = Callable[[int], str]

LARGEST: Final = 9999


def cardinal(number: int, language: str) -> str:
    """*number*, 0 to 9999, in words separated by spaces."""
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{number} is not between 0 and {LARGEST}")
    return CARDINALS[language](number)


def ordinal(number: int, language: str) -> str:
    """*number*, from 1, as an ordinal; beyond the tenth Spanish and Italian speakers use the cardinal."""
    return ORDINALS[language](number)


def year(number: int, language: str) -> str:
    """*number* of four digits as the year it probably is; the cardinal where years are read as such."""
    century, rest = divmod(number, 100)
    if language == "en" and 11 <= century <= 19 and rest:
        return f"{english(century)} {english(rest) if rest > 9 else f'oh {english(rest)}'}"
    if language == "en" and 2010 <= number <= 2099:
        return f"twenty {english(rest)}"
    if language == "de" and 11 <= century <= 19:
        return german(century) + "hundert" + (german(rest) if rest else "")
    return cardinal(number, language)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_EN_ONES: Final = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_EN_TENS: Final = _words("- - twenty thirty forty fifty sixty seventy eighty ninety")
_EN_ORDINALS: Final[Mapping[str, str]] = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_DE_ONES: Final = _words(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn "
    "siebzehn achtzehn neunzehn"
)
_DE_TENS: Final = _words("- - zwanzig dreissig vierzig fünfzig sechzig siebzig achtzig neunzig")
_DE_ORDINALS: Final = {1: "erste", 3: "dritte", 7: "siebte", 8: "achte"}
_FR_ONES: Final = _words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
)
_FR_TENS: Final = _words("- - vingt trente quarante cinquante soixante")
_ES_ONES: Final = _words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis "
    "diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis "
    "veintisiete veintiocho veintinueve"
)
_ES_TENS: Final = _words("- - - treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_ES_HUNDREDS: Final = _words(
    "- ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
_ES_ORDINALS: Final = _words("- primero segundo tercero cuarto quinto sexto séptimo octavo noveno décimo")
_IT_ONES: Final = _words(
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove"
)
_IT_TENS: Final = _words("- - venti trenta quaranta cinquanta sessanta settanta ottanta novanta")
_IT_ORDINALS: Final = _words("- primo secondo terzo quarto quinto sesto settimo ottavo nono decimo")


def english(number: int) -> str:
    """1234 -> "one thousand two hundred thirty four"."""
    if number < 20:
        return _EN_ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _EN_TENS[tens] + (f" {_EN_ONES[ones]}" if ones else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, unit)
    return f"{english(head)} {name}" + (f" {english(rest)}" if rest else "")


def german(number: int) -> str:
    """1234 -> "tausendzweihundertvierunddreissig"."""
    if number < 20:
        return _DE_ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        head = "" if ones == 0 else ("ein" if ones == 1 else _DE_ONES[ones]) + "und"
        return head + _DE_TENS[tens]
    unit, name = (1000, "tausend") if number >= 1000 else (100, "hundert")
    head_number, rest = divmod(number, unit)
    return ("" if head_number == 1 else german(head_number)) + name + (german(rest) if rest else "")


def french(number: int) -> str:
    """1234 -> "mille deux cent trente quatre"."""
    if number < 17:
        return _FR_ONES[number]
    if number < 20:
        return f"dix {_FR_ONES[number - 10]}"
    if number < 100:
        return _french_tens(number)
    unit, name = (1000, "mille") if number >= 1000 else (100, "cent")
    head, rest = divmod(number, unit)
    return ("" if head == 1 else f"{french(head)} ") + name + (f" {french(rest)}" if rest else "")


def _french_tens(number: int) -> str:
    if number >= 80:
        return "quatre vingt" + (f" {french(number - 80)}" if number > 80 else "")
    tens = min(number // 10, 6)
    ones = number - 10 * tens
    if ones == 0:
        return _FR_TENS[tens]
    return f"{_FR_TENS[tens]} {'et ' if ones in (1, 11) else ''}{french(ones)}"


def spanish(number: int) -> str:
    """1234 -> "mil doscientos treinta y cuatro"."""
    if number < 30:
        return _ES_ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _ES_TENS[tens] + (f" y {_ES_ONES[ones]}" if ones else "")
    if number == 100:
        return "cien"
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return _ES_HUNDREDS[hundreds] + (f" {spanish(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    return (
        ("" if thousands == 1 else f"{spanish(thousands)} ") + "mil" + (f" {spanish(rest)}" if rest else "")
    )


def italian(number: int) -> str:
    """1234 -> "milleduecentotrentaquattro"."""
    if number < 20:
        return _IT_ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        head = _IT_TENS[tens][:-1] if ones in (1, 8) else _IT_TENS[tens]
        return head + (_IT_ONES[ones] if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return ("" if hundreds == 1 else _IT_ONES[hundreds]) + "cento" + (italian(rest) if rest else "")
    thousands, rest = divmod(number, 1000)
    return ("mille" if thousands == 1 else f"{_IT_ONES[thousands]}mila") + (italian(rest) if rest else "")


def _english_ordinal(number: int) -> str:
    *head, last = english(number).split()
    if last in _EN_ORDINALS:
        last = _EN_ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return " ".join([*head, last])


def _german_ordinal(number: int) -> str:
    return _DE_ORDINALS.get(number) or german(number) + ("te" if number < 20 else "ste")


def _french_ordinal(number: int) -> str:
    if number == 1:
        return "premier"
    *head, last = french(number).split()
    stem = {"cinq": "cinqu", "neuf": "neuv"}.get(last, last.removesuffix("e"))
    return " ".join([*head, f"{stem}ième"])


def _listed(names: Sequence[str], otherwise: Spell) -> Spell:
    return lambda number: names[number] if 0 < number < len(names) else otherwise(number)


CARDINALS: Final[Mapping[str, Spell]] = {
    "en": english,
    "de": german,
    "fr": french,
    "es": spanish,
    "it": italian,
}
ORDINALS: Final[Mapping[str, Spell]] = {
    "en": _english_ordinal,
    "de": _german_ordinal,
    "fr": _french_ordinal,
    "es": _listed(_ES_ORDINALS, spanish),
    "it": _listed(_IT_ORDINALS, italian),
}
