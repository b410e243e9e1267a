"""The files by which processes agree on a local pod, and the locks that say who is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everwarm.errors import EverwarmError
from everwarm.local_pod.place import Place, Told, default_root, make_private
from everwarm.local_pod.user import pod_environment_of


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place whose folder exists."""
    made = Place.of("tiny.en", {}, root=tmp_path / "everwarm")
    made.make()
    return made


def test_users_share_their_lock_and_a_guardian_does_not_get_it(place: Place) -> None:
    first, second, guardian = place.users(), place.users(), place.users()
    assert first.take_shared()
    assert second.take_shared()
    first.release()
    assert not guardian.take_exclusive()
    second.release()
    assert guardian.take_exclusive()


def test_a_user_is_kept_out_while_a_guardian_leaves(place: Place) -> None:
    guardian, user = place.users(), place.users()
    assert guardian.take_exclusive()
    assert not user.take_shared()
    guardian.release()
    assert user.take_shared()


def test_a_lock_is_free_once_its_process_was_killed(place: Place) -> None:
    holds = (
        "import sys; from everwarm.local_pod.place import *; "
        "lock = Place(Path(sys.argv[1])).users(); print(lock.take_shared(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(place.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"True\n"
        assert not place.users().take_exclusive()
        user.kill()
        user.wait()
        assert place.users().take_exclusive()


def test_a_lock_handed_on_is_held_until_the_last_holder_ends(place: Place) -> None:
    giver = place.guardian()
    assert giver.take_exclusive()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(giver.file,)
    ) as heir:
        giver.release()
        assert not place.guardian().take_exclusive()
        heir.kill()
        heir.wait()
    assert place.guardian().take_exclusive()


def test_a_lock_on_a_file_that_was_cleaned_away_is_no_longer_held(place: Place) -> None:
    lock = place.users()
    assert lock.take_shared()
    (place.folder / "users.lock").unlink()
    assert not lock.is_held


def test_what_is_told_is_read_back(place: Place) -> None:
    told = Told(url="http://127.0.0.1:1", pid=7, born=1.5, stage="ready")
    place.tell(told)
    assert place.told() == told
    place.forget()
    assert place.told() == Told()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1, "nonsense": 2}'])
def test_nonsense_in_the_file_counts_as_nothing_told(place: Place, content: str) -> None:
    (place.folder / "pod.json").write_text(content, encoding="utf-8")
    assert place.told() == Told()


def test_the_folder_is_the_users_alone(place: Place) -> None:
    assert place.folder.stat().st_mode & 0o777 == 0o700
    place.folder.chmod(0o755)
    place.make()
    assert place.folder.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EverwarmError, match="somebody else"):
        make_private(tmp_path / "link")


def test_the_runtime_folder_is_preferred_and_the_temporary_one_is_per_user(tmp_path: Path) -> None:
    assert default_root({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "everwarm"
    assert default_root({"XDG_RUNTIME_DIR": "/nowhere"}).name == f"everwarm-{os.getuid()}"


def test_places_differ_by_model_and_configuration_and_by_nothing_else(tmp_path: Path) -> None:
    usual = Place.of("base", {"a": "1", "b": "2"}, root=tmp_path)
    assert usual == Place.of("base", {"b": "2", "a": "1"}, root=tmp_path)
    assert usual != Place.of("small", {"a": "1", "b": "2"}, root=tmp_path)
    assert usual != Place.of("base", {"a": "1", "b": "3"}, root=tmp_path)
    assert Place.of("/models/../x", {}, root=tmp_path).folder.parent == tmp_path


def test_a_local_pod_inherits_nothing_that_speaks_of_a_cluster() -> None:
    inherited = {"PATH": "/bin", "EVERWARM_REDIS_URL": "redis://cluster", "EVERWARM_TOKEN_FILE": "/token"}
    made = pod_environment_of("tiny.en", "en", own={"EVERWARM_SLOTS": "2"}, inherited=inherited)
    assert made["PATH"] == "/bin"
    assert made["EVERWARM_SLOTS"] == "2"
    assert (made["EVERWARM_HOST"], made["EVERWARM_PORT"]) == ("127.0.0.1", "0")
    assert not {"EVERWARM_REDIS_URL", "EVERWARM_TOKEN_FILE"} & made.keys()
