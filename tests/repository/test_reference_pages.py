"""The reference in docs/ is made from the code, so it cannot lag behind."""

from pathlib import Path

import pytest

from docs.generate import pages


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_reference_page_equals_what_the_code_says(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `make docs`"
