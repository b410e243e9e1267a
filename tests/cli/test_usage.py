"""What a person who types something wrong, or `--help`, gets: one line, the right status, no traceback, at once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("aiohttp", "fastapi", "numpy", "redis", "uvicorn", "opentelemetry.sdk")


def everwarm(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EVERWARM_")}
    return subprocess.run(
        [sys.executable, "-m", "everwarm.cli", *arguments],
        env={**environ, "XDG_STATE_HOME": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_names_every_command_and_shows_examples(tmp_path: Path) -> None:
    said = everwarm("--help", folder=tmp_path)
    assert said.returncode == 0
    for command in ("demo", "up", "transcribe", "status", "gateway", "key", "--version", "Examples"):
        assert command in said.stdout


def test_version_is_printed(tmp_path: Path) -> None:
    said = everwarm("--version", folder=tmp_path)
    assert (said.returncode, said.stdout.split()[0]) == (0, "everwarm")


def test_command_line_imports_nothing_heavy_before_a_command_runs() -> None:
    code = f"import sys, everwarm.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("transcribe", "missing.wav"),
        ("up", "-f", "missing.yaml"),
        ("up", "--port", "70000"),
        ("up", "--redis-url", "nonsense"),
        ("status", "--url", "ftp://here"),
        ("unknown",),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    said = everwarm(*arguments, folder=tmp_path)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("command", [("transcribe", __file__), ("status",)])
def test_command_names_everwarm_up_when_nothing_answers(command: tuple[str, ...], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        said = everwarm(*command, "--url", url, folder=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith(f"everwarm: nothing answers at {url}")
    assert "`everwarm up`" in said.stderr
    assert "Traceback" not in said.stderr


def test_up_names_the_field_of_a_bad_resource(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: WhisperModel\nmetadata: {name: x}\nspec: {model: tiny.en, slot: 2}\n")
    said = everwarm("up", "-f", str(bad), folder=tmp_path)
    assert said.returncode == 1
    assert f"everwarm: {bad} is not a valid WhisperModel:\n  spec.slot:" in said.stderr
    assert "Traceback" not in said.stderr


def test_up_ends_with_the_reason_of_a_pod_that_cannot_start(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: WhisperModel\nmetadata: {name: x}\nspec: {model: no-such-model}\n")
    said = everwarm("up", "-f", str(bad), "--port", "0", folder=tmp_path)
    assert said.returncode == 1
    last = said.stderr.splitlines()[-1]
    assert last.startswith("everwarm: pod 'x-0' died 3 times")
    assert "weights of model 'no-such-model'" in last
    assert "Traceback" not in said.stderr


def test_up_says_so_when_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = everwarm("up", "--port", str(taken.getsockname()[1]), folder=tmp_path)
    assert said.returncode == 1
    assert "cannot listen" in said.stderr.splitlines()[-1]
    assert "Traceback" not in said.stderr


def test_up_says_so_when_its_registry_is_not_there(tmp_path: Path) -> None:
    said = everwarm("up", "--redis-url", "redis://127.0.0.1:1", folder=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith("everwarm: the registry cannot be reached")
