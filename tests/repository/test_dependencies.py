"""Each member declares what it imports.

In the workspace everything is installed, so a missing line in a pyproject.toml works everywhere except in an image
that holds one member, or after another library drops the dependency it happened to bring along.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = sorted(path.parent for path in ROOT.glob("*/pyproject.toml"))


@cache
def _distributions() -> dict[str, set[str]]:
    """Top-level import name -> names of the distributions that provide it (several for a namespace package)."""
    return {name: {canonicalize_name(d) for d in found} for name, found in packages_distributions().items()}


def _declared(member: Path) -> set[str]:
    project = tomllib.loads((member / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    names: set[str] = {canonicalize_name(Requirement(item).name) for items in lists for item in items}
    # Members are released together, so what core brings is brought on purpose.
    return names | _declared(ROOT / "core") if "everwarm-core" in names else names


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_member_declares_every_distribution_it_imports(member: Path) -> None:
    declared = _declared(member)
    own = {path.parent.name for path in member.glob("*/__init__.py")}
    missing = {
        f"{name} ({path.relative_to(ROOT)})"
        for path in member.rglob("*.py")
        for name in _imported(path)
        if name not in sys.stdlib_module_names | own
        and not {*_distributions().get(name, ()), canonicalize_name(name)} & declared
    }
    assert sorted(missing) == []
