"""`everwarm key`: what it prints lets in whoever has it, and says no more than that."""

import json
import re
from pathlib import Path

import pytest

from everwarm.api_keys import ApiKey, Limits, digest_of, parse_keys
from everwarm.gateway.keys import Keyring
from tests.cli.test_usage import everwarm


def test_the_line_lets_the_key_in_with_its_name_and_limits(tmp_path: Path) -> None:
    said = everwarm(
        "key", "--name", "call-centre", "--concurrent", "4", "--audio-seconds-per-minute", "600",
        folder=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0
    (key,) = re.findall(r"ew-\S+", said.stderr)
    assert key not in said.stdout
    (tmp_path / "keys").write_text(said.stdout)
    caller = Keyring(tmp_path / "keys").caller(key)
    assert (caller.name, caller.limits) == ("call-centre", Limits(4, 600))


def test_json_has_the_key_and_the_line(tmp_path: Path) -> None:
    said = everwarm("key", "--json", folder=tmp_path)
    made = json.loads(said.stdout)
    assert parse_keys(made["line"]) == (ApiKey(digest_of(made["key"])),)
    assert (set(made), said.stderr) == ({"key", "line"}, "")


@pytest.mark.parametrize(
    "arguments", [("--name", "two words"), ("--concurrent", "0"), ("--audio-seconds-per-minute", "much")]
)
def test_what_no_line_can_say_ends_with_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    said = everwarm("key", *arguments, folder=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert "Traceback" not in said.stderr


def test_help_shows_examples(tmp_path: Path) -> None:
    said = everwarm("key", "--help", folder=tmp_path)
    assert "Examples" in said.stdout
    assert "everwarm key --name call-centre >> keys" in said.stdout
