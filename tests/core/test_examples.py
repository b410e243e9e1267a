"""The examples in the repository are valid and can stand side by side on one platform."""

from pathlib import Path

import pytest

from everwarm_core.spec import ensure_names_are_unique, load_resources

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_a_valid_whispermodel(path: Path) -> None:
    resources = load_resources(path)
    assert resources
    ensure_names_are_unique(resources)
