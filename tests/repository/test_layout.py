"""Rules about the tree that no linter knows: names that break Python, versions in step, a first docstring each."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = sorted(path.parent for path in ROOT.glob("*/pyproject.toml"))
SOURCES = ("agent", "bench", "core", "docs", "examples", "images", "operator", "stt_pod", "tests")


def _modules() -> Iterator[Path]:
    for folder in SOURCES:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_operator_folder_is_never_a_package() -> None:
    """`operator/__init__.py` would shadow the standard library's operator for everything run from the root."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_package_in_the_root_shadows_the_standard_library() -> None:
    """The same trap under any other name."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    modules = {path.stem for path in ROOT.glob("*.py")}
    assert (packages | modules) & sys.stdlib_module_names == set()


def test_members_have_the_same_version_licence_and_python() -> None:
    """They are released together, so a user never has to match versions."""
    projects = [
        tomllib.loads((member / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for member in MEMBERS
    ]
    facts = {(project["version"], project["license"], project["requires-python"]) for project in projects}
    assert len(facts) == 1, facts
    assert facts.pop()[1:] == ("Apache-2.0", ">=3.11")


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_member_has_one_typed_package(member: Path) -> None:
    """Users get our types: `py.typed` stands in the package itself."""
    packages = [path.parent for path in member.glob("*/__init__.py")]
    assert len(packages) == 1
    assert (packages[0] / "py.typed").exists()


def test_every_module_opens_with_a_docstring() -> None:
    """A reader learns what a module is for from its first lines."""
    silent = [
        str(path.relative_to(ROOT))
        for path in _modules()
        if (text := path.read_text(encoding="utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


def test_no_module_leaves_work_for_later() -> None:
    """What is not done is an issue, not a comment in the code."""
    marker = re.compile(r"#.*\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _modules()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marker.search(line)
    ]
    assert found == []
