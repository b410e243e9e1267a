"""Where running platforms say that they run."""

import os
import stat
import subprocess
import sys
from pathlib import Path

from everwarm.platform.state import RunningState, announced, running_states, state_folder


def state(pid: int, started: float = 1.0) -> RunningState:
    return RunningState(pid, started, "http://127.0.0.1:8080", "redis://:secret@127.0.0.1:1/0", "local")


def test_state_is_found_while_it_is_announced_and_not_afterwards(tmp_path: Path) -> None:
    with announced(state(os.getpid()), tmp_path):
        assert running_states(tmp_path) == (state(os.getpid()),)
    assert running_states(tmp_path) == ()


def test_state_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with announced(state(os.getpid()), tmp_path / "new"):
        (file,) = (tmp_path / "new").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_state_of_a_killed_platform_is_passed_over_and_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with announced(state(ended.pid), tmp_path):
        assert running_states(tmp_path) == ()
        assert list(tmp_path.iterdir()) == []


def test_state_files_that_are_damaged_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text("{")
    (tmp_path / "2.json").write_text('{"pid": 2}')
    (tmp_path / "3.json").write_text("[]")
    assert running_states(tmp_path) == ()


def test_states_come_newest_first(tmp_path: Path) -> None:
    with announced(state(os.getpid(), 1.0), tmp_path), announced(state(os.getppid(), 2.0), tmp_path):
        assert [found.started for found in running_states(tmp_path)] == [2.0, 1.0]


def test_platform_runs_where_its_state_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with announced(state(os.getpid()), blocked / "folder"):
        assert running_states(blocked / "folder") == ()


def test_state_folder_follows_the_users_setting() -> None:
    assert state_folder({"XDG_STATE_HOME": "/x"}) == Path("/x/everwarm")
