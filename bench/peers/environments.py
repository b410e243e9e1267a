"""One virtual environment per peer, made from its lock at the first use and kept for the next run.

Frameworks pin what they need, often against each other and against us, so none is installed beside the project. An
environment lies in the user's cache under a name that holds a hash of the lock and of the Python that made it: a
changed pin makes a new one and leaves the old one to be deleted. A marker, written last, tells a finished
environment from one whose making was interrupted; that one is made anew. A lock has every version and hash, so a peer
measured next year is the one measured today. To change a pin, edit the peer's `.in` file and run the command that the
head of its `.lock` shows. Called by `bench.peers.serving`; says on stderr what it does, since it may take minutes.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

HASH_DIGITS: Final = 12
MARKER: Final = "installed"


class InstallFailed(RuntimeError):
    """A peer's environment could not be made; what pip said went to stderr."""


def environment(peer: str, lock: Path) -> Path:
    """The Python of *peer*'s environment, which holds exactly what *lock* says; made if it is not there.

    Raises InstallFailed, with the network down for one.
    """
    folder = cache_folder() / f"env-{peer}-{pins_hash(lock.read_text(encoding='utf-8'), sys.version)}"
    python = folder / "bin" / "python"
    if (folder / MARKER).exists():
        return python

    sys.stderr.write(f"bench: making {peer}'s environment in {folder}\n")
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], peer)
    sys.stderr.write(f"bench: installing what {lock.name} pins\n")
    _run([str(python), *install_arguments(lock)], peer)
    (folder / MARKER).touch()
    sys.stderr.write(f"bench: {peer}'s environment is ready\n")
    return python


def cache_folder() -> Path:
    """Where environments are kept: under $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "everwarm-bench"


def pins_hash(pins: str, python: str) -> str:
    """Digits that change with the *pins* or with the version of *python* that they are installed for."""
    return hashlib.sha256(f"{python}\n{pins}".encode()).hexdigest()[:HASH_DIGITS]


def install_arguments(lock: Path) -> list[str]:
    """What the environment's Python is called with to install *lock*; pip's own configuration applies."""
    return [
        "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement", str(lock),
    ]  # fmt: skip


def _run(command: list[str], peer: str) -> None:
    # The benchmark's table goes to stdout, so what is said here must not.
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise InstallFailed(f"{peer}: exit code {done.returncode} from {' '.join(command)}")
