"""The commands of the first hour: what `make` says, when it refuses, and how uv learns of a mirror."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def _make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        env=environ,
        check=False,
        capture_output=True,
        text=True,
    )


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that is like a fresh clone as far as make can see."""
    folder = tmp_path / "everwarm"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", ".ci/uv"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_make_alone_lists_every_command_with_a_sentence() -> None:
    """Nobody has to read the Makefile to find a command."""
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    listed = re.findall(r"^  make (\w+) +\S.*$", _make().stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())


def test_make_names_the_version_needed_when_python_is_too_old(clone: Path) -> None:
    """The message says what to type instead."""
    old = _script(clone / "python3.9", "exit 1")
    made = _make("demo", f"PYTHON={old}", cwd=clone)
    assert made.returncode != 0
    assert "needs Python 3.11 or newer" in made.stderr
    assert not (clone / ".venv").exists()


def test_make_names_the_package_needed_when_venv_is_missing(clone: Path) -> None:
    """Debian ships Python without venv; a half-made environment must not look finished to the next run."""
    bare = _script(clone / "python3", 'case "$1" in -m) mkdir -p .venv; exit 1;; esac')
    made = _make("demo", f"PYTHON={bare}", cwd=clone)
    assert made.returncode != 0
    assert "apt install python3-venv" in made.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("given", "index", "certificate"),
    [
        ({"PIP_INDEX_URL": "https://mirror.test/simple"}, "https://mirror.test/simple", ""),
        ({"PIP_CERT": "/etc/mirror.pem"}, "", "/etc/mirror.pem"),
        ({"PIP_INDEX_URL": "https://a.test", "UV_DEFAULT_INDEX": "https://b.test"}, "https://b.test", ""),
        ({"PIP_CERT": "/a.pem", "SSL_CERT_FILE": "/b.pem"}, "", "/b.pem"),
        ({}, "", ""),
    ],
)
def test_uv_uses_the_mirror_of_pip_unless_told_otherwise(
    clone: Path, given: dict[str, str], index: str, certificate: str
) -> None:
    """pip.conf is what a machine behind a mirror has, and uv does not read it."""
    _script(clone / ".venv/bin/python", f'exec "{sys.executable}" "$@"')
    _script(clone / ".venv/bin/uv", 'echo "$UV_DEFAULT_INDEX|$SSL_CERT_FILE|$*"')
    environ = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, **given}
    ran = subprocess.run(
        [clone / ".ci/uv", "pip", "list"], env=environ, check=True, capture_output=True, text=True
    )
    assert ran.stdout.strip() == f"{index}|{certificate}|pip list"


def test_ci_runs_what_everybody_runs_and_nothing_else() -> None:
    """What CI finds, everybody can find with the same command."""
    commands = [
        line
        for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert commands == [
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        "make test </dev/null",
        "make e2e </dev/null",
    ]


@pytest.mark.parametrize(
    "call", ["create_task(f())", "ensure_future(f())", "gather(f())", "wait_for(f(), 1)"]
)
def test_lint_refuses_tasks_without_an_owner(call: str) -> None:
    """Indentation shows lifetime: a task lives in a TaskGroup, a limit in asyncio.timeout."""
    code = f'"""Doc."""\n\nimport asyncio\n\nasyncio.{call}\n'
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--select",
            "TID251",
            "--stdin-filename",
            "core/everwarm_core/x.py",
            "-",
        ],
        cwd=ROOT,
        input=code,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 1
    assert "asyncio.TaskGroup" in checked.stdout or "asyncio.timeout" in checked.stdout
