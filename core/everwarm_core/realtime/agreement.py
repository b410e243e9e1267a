"""What of a growing utterance's transcript may be shown because it will not change; pure.

LocalAgreement-2 (Machacek and others, "Turning Whisper into Real-Time Transcription System", 2023): the words on which
two decodes in a row agree, from the beginning on. The last word of a decode is left out, for the speech may have been
cut in the middle of it, and punctuation may still change behind it. What was shown is never taken back.
"""

import re
from typing import Final

_PUNCTUATION: Final = re.compile(r"[^\w']+")


class Agreement:
    """Follows the decodes of one utterance."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._last: list[str] = []

    @property
    def shown(self) -> str:
        """All that was handed out, joined."""
        return "".join(self._shown)

    def hear(self, text: str) -> str:
        """What the newest decode, *text*, makes certain, to be put behind what was shown; often nothing."""
        words = text.split()
        agreed = _common(words[:-1], self._last[:-1])
        self._last = words
        known = len(self._shown)
        if agreed <= known or not _same(words[:known], self._shown):
            return ""
        return self._show(words[known:agreed])

    def finish(self, text: str) -> str:
        """What is missing of the final *text*; nothing where it says something else than what was shown."""
        words = text.split()
        known = len(self._shown)
        if [word.strip() for word in self._shown] != words[:known]:
            return ""
        return self._show(words[known:])

    def _show(self, words: list[str]) -> str:
        added = [word if not self._shown and not n else f" {word}" for n, word in enumerate(words)]
        self._shown += added
        return "".join(added)


def _common(one: list[str], other: list[str]) -> int:
    """How many words from the beginning are the same in both."""
    for count, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if _bare(mine) != _bare(yours):
            return count
    return min(len(one), len(other))


def _same(one: list[str], other: list[str]) -> bool:
    return len(one) == len(other) and _common(one, other) == len(one)


def _bare(word: str) -> str:
    return _PUNCTUATION.sub("", word).casefold()
