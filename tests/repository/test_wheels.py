"""The members' wheels hold what runs need beside modules.

Images install wheels while everybody else works from the tree, so a file left out of a wheel would be noticed only in
a cluster.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DATA = {
    "core": ["everwarm_core/py.typed"],
    "stt_pod": ["everwarm_stt/py.typed", "everwarm_stt/data/warmup.flac"],
    "agent": ["everwarm/py.typed", "everwarm/demo/clips/clips.json", "everwarm/demo/clips/weather.flac"],
}
SCRIPTS = {
    "stt_pod": "everwarm-pod = everwarm_stt.main:main",
    "agent": "everwarm = everwarm.cli:main",
}


def _wheel(member: str, folder: Path) -> zipfile.ZipFile:
    """Build with the backend that pip and uv would call, in this environment: no download."""
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    made = subprocess.run(
        [sys.executable, "-c", build],
        cwd=ROOT / member,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return zipfile.ZipFile(folder / made.stdout.splitlines()[-1])


@pytest.mark.parametrize("member", DATA)
def test_wheel_ships_data_and_console_script(member: str, tmp_path: Path) -> None:
    with _wheel(member, tmp_path) as wheel:
        names = wheel.namelist()
        assert set(DATA[member]) <= set(names)
        assert not [name for name in names if "__pycache__" in name]
        scripts = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert SCRIPTS.get(member, "") in "".join(scripts)
