"""What pages of docs/ tell readers to type, for tests that do it: fenced blocks, in the order of the page."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
GATEWAY: Final = "//127.0.0.1:8080"  # where every page has `everwarm up` listen
RUN_TIMEOUT_S: Final = 60.0


def blocks(page: str, language: str, *, gateway: str) -> list[str]:
    """The blocks of docs/*page* in *language* (`python`, `sh`), with *gateway* as the gateway's URL."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block.replace(GATEWAY, gateway.removeprefix("http:")) for block in found]


def ran(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> str:
    """What *command* prints, run from the checkout's root as a reader would; fails unless it exits with 0."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
