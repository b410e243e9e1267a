"""Server-sent events of a streamed transcription, as OpenAI's clients read them: `data:` lines of JSON.

Pure. The deltas of one answer, joined, are exactly the text of its `transcript.text.done`: Whisper's segments carry
spaces in front, which the whole text loses at both ends, so spaces are held back until something follows them.
"""

import json

from everwarm_core.errors import EverwarmError
from everwarm_core.openai_errors import error_body
from everwarm_core.transcript import Transcript


class Deltas:
    """Turns segments' texts into deltas, one after the other."""

    def __init__(self) -> None:
        self._spaces = ""
        self._has_begun = False

    def of(self, text: str) -> str:
        """What a segment of *text* adds to the whole; empty when it is spaces alone."""
        solid = text.strip()
        if not solid:
            self._spaces += text
            return ""
        begin = text.index(solid)
        delta = (self._spaces + text[:begin] if self._has_begun else "") + solid
        self._spaces = text[begin + len(solid) :]
        self._has_begun = True
        return delta


def delta_event(delta: str) -> bytes:
    """More text."""
    return _event({"type": "transcript.text.delta", "delta": delta})


def done_event(transcript: Transcript) -> bytes:
    """The whole text. No `usage`: in this event OpenAI's type knows tokens alone, and strict clients would refuse seconds."""
    languages = [{"code": transcript.language}]
    return _event({"type": "transcript.text.done", "text": transcript.text, "languages": languages})


def error_event(error: EverwarmError) -> bytes:
    """The end of an answer that failed on the way; clients raise it."""
    return _event(error_body(error))


def _event(document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()
