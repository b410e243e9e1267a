"""Python in a process of its own, for what importing brings along."""

import subprocess
import sys


def run_snippet(code: str, *arguments: str) -> str:
    """What *code* prints; raises AssertionError with its errors when it fails."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
