"""The benchmark's peers, as far as they need neither the network nor an environment of their own."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from bench.peers.client import MODEL_ID, PeerFailed, drive, transcribe
from bench.peers.environments import (
    MARKER,
    InstallFailed,
    cache_folder,
    environment,
    install_arguments,
    pins_hash,
)
from bench.peers.serving import PEERS, NotReady, Peer, Served, _end, _start, server_environment

RAY, LITSERVE = PEERS


class Echo:
    """A peer that answers the length of what it got, in *groups* and after *delay_s*; counts who is there at once."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.groups = asyncio.Barrier(1)
        self.most_at_once = 0
        self.received: list[bytes] = []
        self.headers: list[str | None] = []
        self._now = 0

    async def transcribe(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append(body)
        self.headers.append(request.headers.get("serve_multiplexed_model_id"))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await self.groups.wait()
        await asyncio.sleep(self.delay_s)
        self._now -= 1
        if body == b"bad":
            return web.Response(status=500, text="it broke")
        return web.json_response({"text": f"{len(body)} bytes"})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def url(echo: Echo) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/transcribe", echo.transcribe)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


# --- The client ----------------------------------------------------------------------------------------------------


async def test_transcribe_sends_the_samples_as_they_are_and_returns_the_text(url: str, echo: Echo) -> None:
    assert await transcribe(url, b"\x01\x02\x03\x04") == "4 bytes"
    assert echo.received == [b"\x01\x02\x03\x04"]


async def test_each_request_names_the_model_that_ray_serves(url: str, echo: Echo) -> None:
    await drive(url, [b"ab", b"cd"], 1)
    assert echo.headers == [MODEL_ID, MODEL_ID]
    assert f"--model-id={MODEL_ID}" in RAY.options


async def test_drive_sends_each_clip_once_whatever_the_callers(url: str, echo: Echo) -> None:
    clips = [bytes(2 * number) for number in range(1, 8)]
    took_s = await drive(url, clips, 3)
    assert len(took_s) == 7
    assert sorted(echo.received) == clips


async def test_drive_keeps_exactly_as_many_requests_in_flight_as_there_are_callers(
    url: str, echo: Echo
) -> None:
    echo.delay_s = 0.02  # in which one too many would come
    echo.groups = asyncio.Barrier(4)  # for fewer nobody is answered, however slowly they come
    await drive(url, [b"ab"] * 12, 4)
    assert echo.most_at_once == 4


async def test_drive_measures_the_whole_wait_for_each_answer(url: str, echo: Echo) -> None:
    echo.delay_s = 0.05
    assert all(took >= 0.05 for took in await drive(url, [b"ab"] * 4, 4))


async def test_drive_with_more_callers_than_clips_ends(url: str) -> None:
    assert len(await drive(url, [b"ab"], 16)) == 1


@pytest.mark.parametrize("callers", [1, 4])
async def test_drive_fails_with_what_the_peer_said_when_a_request_fails(url: str, callers: int) -> None:
    with pytest.raises(PeerFailed, match="answered 500: it broke"):
        await drive(url, [b"bad"] * 8, callers)


# --- The environments ----------------------------------------------------------------------------------------------


def test_changed_pin_or_python_means_another_environment() -> None:
    """An environment is never changed after it was made, so results can be traced to one lock."""
    assert pins_hash("ray==1", "3.11") == pins_hash("ray==1", "3.11")
    assert len({pins_hash("ray==1", "3.11"), pins_hash("ray==2", "3.11"), pins_hash("ray==1", "3.12")}) == 3


def test_environments_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "everwarm-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "everwarm-bench"


def test_finished_environment_is_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = tmp_path / "some.lock"
    lock.write_text("some==1\n")
    pins = pins_hash(lock.read_text(), sys.version)
    folder = cache_folder() / f"env-some-{pins}"
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    assert environment("some", lock) == folder / "bin" / "python"
    assert capfd.readouterr().err == ""


def test_failure_to_make_an_environment_is_said_on_stderr_and_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cache folder that is a file stands for a full disk or a missing network."""
    no_folder = tmp_path / "file"
    no_folder.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_folder))
    with pytest.raises(InstallFailed, match=r"litserve: exit code 1 from .* -m venv"):
        environment(LITSERVE.key, LITSERVE.lock)
    told = capfd.readouterr()
    assert "making litserve's environment in" in told.err
    assert told.out == ""


def test_nothing_is_installed_without_its_hash() -> None:
    assert "--require-hashes" in install_arguments(RAY.lock)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_lock_holds_what_the_peer_asks_for_and_no_address(peer: Peer) -> None:
    locked = peer.lock.read_text(encoding="utf-8")
    for wanted in peer.lock.with_suffix(".in").read_text(encoding="utf-8").split():
        name, version = wanted.split("==")
        assert f"\n{name.split('[')[0]}=={version} " in locked
    assert "://" not in locked


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
@pytest.mark.parametrize("library", ["faster-whisper", "ctranslate2"])
def test_peer_decodes_with_the_same_libraries_as_we_do(peer: Peer, library: str) -> None:
    """Else a comparison of servers would compare releases of CTranslate2; when ours move, the peers' move too."""
    ours = Path(__file__).parents[2] / "requirements.lock"
    pin = re.compile(rf"^{library}==(\S+)", re.MULTILINE)
    assert pin.findall(peer.lock.read_text(encoding="utf-8")) == pin.findall(ours.read_text(encoding="utf-8"))


# --- The servers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_command_line_holds_all_that_may_differ_between_runs(peer: Peer) -> None:
    command = peer.command(
        Path("/env/bin/python"),
        port=4711,
        weights=Path("/weights"),
        beam_size=5,
        replicas=2,
        threads=1,
        language="en",
    )
    python, flag, script, *options = command
    assert (python, flag) == ("/env/bin/python", "-P")
    assert Path(script).is_file()
    wanted = {
        "--port=4711",
        "--weights=/weights",
        "--beam-size=5",
        "--replicas=2",
        "--threads=1",
        "--language=en",
    }
    assert {*wanted, *peer.options} == set(options)


def test_server_gets_its_own_folder_and_none_of_our_variables() -> None:
    inherited = {
        "PATH": "/bin",
        "EVERWARM_CPUS": "1",
        "PYTHONPATH": ".",
        "RAY_ADDRESS": "auto",
        "TMPDIR": "/tmp",
    }
    given = server_environment(RAY, inherited, folder=Path("/tmp/peer-x"))
    assert given["PATH"] == "/bin"
    assert given["TMPDIR"] == "/tmp/peer-x"
    assert given["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not {"EVERWARM_CPUS", "PYTHONPATH", "RAY_ADDRESS"} & given.keys()


def started(script: str, folder: Path) -> Served:
    """A stand-in for a peer: a shell that runs *script*, and whose `/health` nobody answers."""
    return Served(LITSERVE, _start(LITSERVE, ["sh", "-c", script], folder), "http://127.0.0.1:9", folder)


def test_peer_that_ends_before_it_is_ready_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    served = started("echo no module named ray >&2; exit 3", tmp_path)
    with pytest.raises(NotReady, match="ended with exit code 3; its log ends:\nno module named ray"):
        served.wait_until_ready(timeout_s=20)


def test_peer_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    served = started("exec sleep 60", tmp_path)
    try:
        with pytest.raises(NotReady, match=r"LitServe was not ready after 0\.1 s"):
            served.wait_until_ready(timeout_s=0.1)
    finally:
        _end(served)
    assert served.pids() == []


def test_process_that_outlived_its_parent_is_still_the_peers_and_ends_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some of Ray's processes do so when its driver dies, and they are nobody's descendants then."""
    monkeypatch.setattr("bench.peers.serving.LINGER_S", 0.1)
    served = started("(trap '' TERM; exec sleep 60) & echo $!", tmp_path)
    served.process.wait(10)
    orphan = int(served.log.read_text())
    deadline = time.monotonic() + 10
    while served.pids() != [orphan]:  # while it turns into `sleep` its environment cannot be read
        assert time.monotonic() < deadline
        time.sleep(0.01)
    _end(served)
    assert served.pids() == []
