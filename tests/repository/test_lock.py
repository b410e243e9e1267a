"""The lock holds every dependency with hashes and no address (docs/adr/0001).

An address would tie every install to one index; a missing hash would let a mirror send something else. Both can come
back unnoticed with a change of `make lock`, and a forgotten `make lock` leaves a dependency out, so the file itself
is read here. No network: what an index offers is not a property of this repository.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("*/pyproject.toml"))
PINS = [Requirement(line.removesuffix("\\")) for line in LOCK.splitlines() if re.match(r"\w", line)]


def _load(path: Path) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def _direct_dependencies() -> Iterator[tuple[str, str]]:
    """Every dependency written in a pyproject.toml, with the file it stands in; members are not in the lock."""
    members = {_load(path)["project"]["name"] for path in PROJECTS}
    for path in PROJECTS:
        project = _load(path)["project"]
        optional = project.get("optional-dependencies", {}).values()
        for dependency in (*project["dependencies"], *(item for extra in optional for item in extra)):
            if Requirement(dependency).name not in members:
                yield str(path), dependency
    for group in _load(Path("pyproject.toml"))["dependency-groups"].values():
        for dependency in group:
            yield "pyproject.toml", dependency


def test_lock_holds_no_address() -> None:
    """No index, link or path: any mirror can serve it."""
    found = re.findall(r".*(?:://|^-|\bfile:|--index|--find-links| @ ).*", LOCK, flags=re.MULTILINE)
    assert found == []


def test_lock_names_the_command_that_makes_it() -> None:
    """The header is the same on every machine."""
    header = [line for line in LOCK.splitlines() if line.startswith("#")]
    assert header[1:] == ["#    make lock"]


def test_lock_pins_each_package_with_a_hash() -> None:
    """Every entry is one version, followed by at least one sha256."""
    entries = re.split(r"\n(?=\w)", LOCK)[1:]
    assert len(entries) == len(PINS)
    for entry, pin in zip(entries, PINS, strict=True):
        assert re.fullmatch(r"==[^,]+", str(pin.specifier)), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, pin.name


@pytest.mark.parametrize(("path", "dependency"), list(_direct_dependencies()))
def test_lock_has_a_fitting_version_of_each_direct_dependency(path: str, dependency: str) -> None:
    """A changed pyproject.toml without `make lock` fails here, not at an install."""
    wanted = Requirement(dependency)
    versions = [
        str(pin.specifier).removeprefix("==")
        for pin in PINS
        if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
    ]
    assert versions, f"{path}: {wanted.name} is not in requirements.lock; run make lock"
    assert all(wanted.specifier.contains(version, prereleases=True) for version in versions)


def test_lock_of_uv_is_not_committed() -> None:
    """uv.lock records where each file was downloaded from."""
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
