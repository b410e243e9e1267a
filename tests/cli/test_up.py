"""`everwarm up` as its users meet it: ready, used, hurt, healed and ended. Two real pods of tiny.en."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import redis

from tests.support.speech import FOLDER, clips, words

CLIP = next(clip for clip in clips() if clip.path.stem == "weather")
TWO_PODS = "kind: WhisperModel\nmetadata: {name: speech}\nspec: {model: tiny.en, aliases: [whisper-1], replicas: 2}\n"
TIMEOUT_S = 110.0  # two pods are warm after four seconds on an idle machine; tests share one
TRIES = 5

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def environment(folder: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("EVERWARM_", "OTEL_"))}
    return {**own, "XDG_STATE_HOME": str(folder)}


def everwarm(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "everwarm.cli", *arguments],
        env=environment(folder),
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.05)  # polls a condition


@dataclass
class Up:
    """A running `everwarm up`, with the lines of its stdout and stderr."""

    process: "subprocess.Popen[str]"
    folder: Path
    url: str = ""
    out: "queue.Queue[str]" = field(default_factory=queue.Queue)
    err: list[str] = field(default_factory=list)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Collect both streams inside the block; the process must have ended when it is left."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None

        def collect(stream: IO[str], keep: Callable[[str], None]) -> None:
            with stream:
                for line in stream:
                    keep(line.rstrip("\n"))

        readers = [
            threading.Thread(target=collect, args=(self.process.stdout, self.out.put)),
            threading.Thread(target=collect, args=(self.process.stderr, self.err.append)),
        ]
        for reader in readers:
            reader.start()
        yield
        for reader in readers:
            reader.join()

    def ready_line(self) -> str:
        """The first line of stdout."""
        try:
            return self.out.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise AssertionError("\n".join(self.err)) from None

    def status(self) -> list[dict[str, Any]]:
        """The pods, by `everwarm status --json`."""
        said = everwarm("status", "--json", folder=self.folder)
        assert said.returncode == 0, said.stderr
        pods: list[dict[str, Any]] = json.loads(said.stdout)["pods"]
        return pods

    def children(self) -> list[psutil.Process]:
        """Every living process below it."""
        return [p for p in psutil.Process(self.process.pid).children(recursive=True) if is_alive(p)]

    def child(self, word: str) -> psutil.Process:
        """The first child with *word* in its command line."""
        return next(p for p in self.children() if word in " ".join(p.cmdline()))

    def is_held(self) -> bool:
        """Whether a request is under way, by the pods' records: a command would take longer than a decode."""
        url = self.child("everwarm_stt").environ()["EVERWARM_REDIS_URL"]
        with redis.Redis.from_url(url, decode_responses=True) as registry:
            return any(
                registry.hget(key, "inflight") not in (None, "0")
                for key in registry.scan_iter("everwarm:*:pod:*")
            )

    def all_warm(self) -> bool:
        """Whether two pods are warm."""
        return [pod["state"] for pod in self.status()] == ["warm", "warm"]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def running_up(folder: Path, resources: str = TWO_PODS) -> Iterator[Up]:
    declared = folder / "models.yaml"
    declared.write_text(resources)
    process = subprocess.Popen(
        [sys.executable, "-m", "everwarm.cli", "up", "-f", str(declared), "--port", "0"],
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    up = Up(process, folder)
    with up.reading():
        try:
            yield up
        finally:
            for child in (
                psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            ):
                child.kill()
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as running:
        running.url = running.ready_line().removeprefix("everwarm ready: ")
        yield running


def test_up_prints_one_ready_line_and_nothing_else_on_stdout(up: Up) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", up.url)
    until(lambda: any("curl" in line for line in up.err), "what to try next")
    assert up.out.empty()


def test_status_shows_every_pod_warm_as_soon_as_up_is_ready(up: Up) -> None:
    pods = up.status()
    assert [(pod["state"], pod["languages"], pod["slots"]) for pod in pods] == [("warm", ["en"], 1)] * 2
    assert all(pod["load_s"] > 0 and pod["warm_s"] > 0 and pod["occupancy"] == 0 for pod in pods)
    assert set(pods[0]["names"]) == {"tiny.en", "speech", "whisper-1"}


def test_status_is_a_table_for_people(up: Up) -> None:
    said = everwarm("status", folder=up.folder)
    assert "2 of 2 pods warm" in said.stdout
    assert "tiny.en" in said.stdout


def test_status_knows_the_models_of_a_gateway(up: Up) -> None:
    said = everwarm("status", "--json", "--url", up.url, folder=up.folder)
    assert {model["id"] for model in json.loads(said.stdout)["models"]} == {"tiny.en", "speech", "whisper-1"}


def test_transcribe_needs_no_flags_where_a_platform_runs(up: Up) -> None:
    said = everwarm("transcribe", str(CLIP.path), "--model", "speech", folder=up.folder)
    assert said.returncode == 0, said.stderr
    assert words(said.stdout) == words(CLIP.text)


def test_transcribe_writes_every_format(up: Up) -> None:
    asked = ("transcribe", str(CLIP.path), "--model", "tiny.en", "--language", "en")
    assert everwarm(*asked, "--format", "vtt", folder=up.folder).stdout.startswith("WEBVTT\n\n00:00:0")
    assert everwarm(*asked, "--format", "srt", folder=up.folder).stdout.startswith("1\n00:00:0")
    assert words(json.loads(everwarm(*asked, "--format", "json", folder=up.folder).stdout)["text"])
    verbose = everwarm(*asked, "--format", "verbose_json", "--word-timestamps", folder=up.folder)
    assert len(json.loads(verbose.stdout)["words"]) == len(words(CLIP.text))


def test_transcribe_goes_on_after_a_bad_file_and_ends_with_1(up: Up) -> None:
    said = everwarm(
        "transcribe", str(FOLDER / "clips.json"), str(CLIP.path), "--model", "speech", folder=up.folder
    )
    assert said.returncode == 1
    assert "clips.json" in said.stderr
    assert words(CLIP.text) == words(said.stdout.splitlines()[-1])
    assert "Traceback" not in said.stderr


def test_transcribe_names_the_choice_when_there_are_several_models(up: Up) -> None:
    said = everwarm("transcribe", str(CLIP.path), folder=up.folder)
    assert (said.returncode, said.stderr) == (
        1,
        "everwarm: --model: name one of speech, tiny.en, whisper-1\n",
    )


def test_pod_that_is_killed_comes_back_warm_under_its_id(up: Up) -> None:
    before = {pod["pod"]: pod["boot"] for pod in up.status()}
    up.child("everwarm_stt").kill()
    until(
        lambda: {p["pod"] for p in up.status() if p["boot"] != before[p["pod"]]} != set() and up.all_warm(),
        "the pod",
    )
    assert {pod["pod"] for pod in up.status()} == set(before)
    assert any("died (SIGKILL)" in line for line in up.err)


def test_registry_that_is_killed_is_filled_again_by_the_pods(up: Up) -> None:
    pods = {pod["pod"] for pod in up.status()}
    valkey = up.child("-server ")
    valkey.kill()
    until(lambda: not is_alive(valkey), "the end of Valkey")
    until(lambda: everwarm("status", folder=up.folder).returncode == 0 and up.all_warm(), "the registry")
    assert {pod["pod"] for pod in up.status()} == pods
    said = everwarm("transcribe", str(CLIP.path), "--model", "speech", folder=up.folder)
    assert words(said.stdout) == words(CLIP.text)


def a_held_recording(up: Up) -> "subprocess.Popen[str]":
    """A recording that is being transcribed; begun again where a busy machine did not let us see it before its end."""
    for _ in range(TRIES):
        until(lambda: not up.is_held(), "the heartbeat after the last request")
        long = subprocess.Popen(
            [
                *(sys.executable, "-m", "everwarm.cli", "transcribe"),
                *(str(FOLDER / "recording.flac"), "-m", "speech"),
            ],
            env=environment(up.folder),
            stdout=subprocess.PIPE,
            text=True,
        )
        until(lambda long=long: up.is_held() or long.poll() is not None, "a request under way")  # type: ignore[misc]
        if long.poll() is None:
            return long
        long.communicate()
    raise AssertionError(f"{TRIES} recordings were done before anybody saw them")


def test_first_ctrl_c_finishes_what_is_held_and_leaves_nothing_behind(up: Up) -> None:
    long = a_held_recording(up)
    children = up.children()
    up.process.send_signal(signal.SIGINT)
    heard, _ = long.communicate(timeout=TIMEOUT_S)
    assert long.returncode == 0
    assert len(words(heard)) > 100
    assert up.process.wait(TIMEOUT_S) == 0
    assert not [child for child in children if is_alive(child)]
    assert list((up.folder / "everwarm").iterdir()) == []


def test_second_ctrl_c_ends_at_once_when_a_pod_does_not_drain(tmp_path: Path) -> None:
    with running_up(tmp_path, TWO_PODS.replace("replicas: 2", "replicas: 1")) as up:
        until(lambda: any("started, pid" in line for line in up.err), "the pod")
        children = up.children()
        up.child("everwarm_stt").suspend()
        up.process.send_signal(signal.SIGINT)
        until(lambda: any("draining" in line for line in up.err), "the drain")
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(15) == 0  # far below the drain's limit of 37 s
        assert not [child for child in children if is_alive(child)]


def test_ctrl_c_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        until(lambda: any("started, pid" in line for line in up.err), "the first pod")
        children = up.children()
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(TIMEOUT_S) == 0
        assert not [child for child in children if is_alive(child)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_killed_up_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        until(lambda: any("-1: started, pid" in line for line in up.err), "both pods")
        children = up.children()
        up.process.send_signal(signal.SIGKILL)
        until(lambda: not [child for child in children if is_alive(child)], "the end of its children")
