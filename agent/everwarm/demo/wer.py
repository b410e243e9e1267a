"""Word error rate: how far a transcript is from what was said; pure."""

import re
from collections.abc import Iterable

_WORD = re.compile(r"[a-z0-9']+")


def words(text: str) -> tuple[str, ...]:
    """The words of *text*, without case and punctuation."""
    return tuple(_WORD.findall(text.lower()))


def word_errors(said: str, heard: str) -> int:
    """The least number of words to substitute, insert or delete to make *said* of *heard*."""
    reference, hypothesis = words(said), words(heard)
    row = list(range(len(hypothesis) + 1))
    for number, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], number
        for column, other in enumerate(hypothesis, start=1):
            substituted = diagonal + (word != other)
            diagonal = row[column]
            row[column] = min(substituted, row[column] + 1, row[column - 1] + 1)
    return row[-1]


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Errors over words said, of all (said, heard) *pairs* together; 0 is perfect."""
    errors = total = 0
    for said, heard in pairs:
        errors += word_errors(said, heard)
        total += len(words(said))
    return errors / max(1, total)
