"""The event loop of our own programs and threads: uvloop, where there is one.

Both do for one utterance at a time: `python -m bench overhead` found no difference there. A program that brings its own
loop keeps it.
"""

import asyncio
import sys


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new loop; asyncio's own on Windows, for which uvloop has no release."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
