"""Where running platforms say that they run, so that `everwarm status` and `transcribe` need no flags on one machine.

One small JSON file per platform, named by its process id, in the user's state folder; removed when the platform
ends. A file whose process is gone is what a SIGKILL leaves: readers pass over it and remove it. The folder is the
user's alone, since a Redis URL may carry a password.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunningState:
    """A platform that runs: *started* in Unix seconds; *url* is its gateway's."""

    pid: int
    started: float
    url: str
    redis_url: str
    namespace: str


def state_folder(environ: Mapping[str, str]) -> Path:
    """The user's folder for our state, by the system's custom; the temporary one for users without a home."""
    if given := environ.get("XDG_STATE_HOME"):
        return Path(given) / "everwarm"
    try:
        home = Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"everwarm-{os.getuid()}"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "everwarm"
    return home / ".local" / "state" / "everwarm"


@contextmanager
def announced(state: RunningState, folder: Path) -> Iterator[None]:
    """*state* can be found in *folder* inside the block; a folder that cannot be written to is no reason to fail."""
    path = folder / f"{state.pid}.json"
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(state), file)
        fresh.replace(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def running_states(folder: Path) -> tuple[RunningState, ...]:
    """The platforms that run, the newest first."""
    found = []
    for path in folder.glob("*.json"):
        state = _read(path)
        if state is not None and _lives(state.pid):
            found.append(state)
        elif state is not None:
            with suppress(OSError):
                path.unlink()
    return tuple(sorted(found, key=lambda state: state.started, reverse=True))


def _read(path: Path) -> RunningState | None:
    try:
        return RunningState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's, so it lives
    return True
