"""How much of Whisper's 30 s window an utterance needs.

Whisper pads every utterance to 3000 frames of 10 ms and pays for all of them; attention costs their square. The
encoder accepts fewer (CTranslate2 since 3.19), but it was trained on 3000: without some silence after the speech it
loops or loses words, and below a floor it does so whatever the margin. Floor and margin are measured, see
`python -m bench accuracy`. Windows come in a few sizes, so that each can be
warmed.
"""

from bisect import bisect_left
from typing import Final

FRAMES_PER_S: Final = 100
FULL_WINDOW: Final = 3000
"""Frames of 10 ms; what Whisper was trained on."""

MARGIN: Final = 400
"""Frames of silence that follow the speech at least."""

WINDOWS: Final = (1000, 1250, 1500, 1750, 2000, 2500)
"""The short sizes in use, in frames. The first is the floor."""

LONGEST_S: Final = (WINDOWS[-1] - MARGIN) / FRAMES_PER_S
"""Seconds of audio that fit a short window."""


def window_for(frames: int) -> int:
    """The smallest window with room for *frames* of speech and the margin; the full one when no short one has."""
    index = bisect_left(WINDOWS, frames + MARGIN)
    return WINDOWS[index] if index < len(WINDOWS) else FULL_WINDOW
