"""The file of keys: what its lines say, what is wrong with them, and how a running gateway follows its changes."""

import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from everwarm.api_keys import (
    MAX_LIMIT,
    UNLIMITED,
    ApiKey,
    BadLine,
    Limits,
    digest_of,
    line_of,
    new_key,
    parse_keys,
)
from everwarm.credentials import LOOK_EVERY_S
from everwarm.gateway.keys import Keyring
from everwarm_core.errors import RateLimited, SettingsError, Unauthorized

SHOWN = st.from_regex(r"[A-Za-z0-9._~+/=-]{1,60}", fullmatch=True).filter(lambda key: key != "#")
NAMES = st.from_regex(r"[A-Za-z0-9._@/+-]{1,64}", fullmatch=True)
LIMITS = st.none() | st.integers(1, MAX_LIMIT)


def api_keys() -> st.SearchStrategy[ApiKey]:
    """Any key that a line can say."""
    return st.builds(
        ApiKey,
        digest=st.binary(min_size=32, max_size=32),
        name=st.just("") | NAMES,
        limits=st.builds(Limits, concurrent=LIMITS, audio_s_per_minute=LIMITS),
    )


@given(keys=st.lists(api_keys(), unique_by=lambda key: key.digest))
def test_a_line_says_what_it_was_made_of(keys: list[ApiKey]) -> None:
    text = "\n\n".join(map(line_of, keys))
    assert parse_keys(text) == tuple(keys)


@given(shown=SHOWN, key=api_keys())
def test_a_plain_key_and_its_hash_are_the_same_key(shown: str, key: ApiKey) -> None:
    options = line_of(key).split()[1:]
    hashed = f"sha256:{hashlib.sha256(shown.encode()).hexdigest()}"
    assert parse_keys(" ".join([shown, *options])) == parse_keys(" ".join([hashed, *options]))


@given(text=st.text() | st.lists(st.text(), max_size=5).map("\n".join))
def test_any_text_is_keys_or_a_bad_line_that_is_there(text: str) -> None:
    lines = text.splitlines()
    bad: list[int] = []
    keys: tuple[ApiKey, ...] = ()
    try:
        keys = parse_keys(text)
    except BadLine as error:
        bad.append(error.number)
    assert len({key.digest for key in keys}) == len(keys)
    assert all(lines[number - 1].strip() for number in bad)


@given(secret=st.from_regex(r"[a-z]{12}[A-Z]{12}", fullmatch=True), at=st.integers(0, 3))
def test_a_bad_line_is_told_by_its_number_and_never_by_its_words(secret: str, at: int) -> None:
    for line in (
        f"sha256:{secret}",
        f"{secret} {secret}",
        f"{secret} {secret}=1",
        f"{secret} name={secret}!",
        f"{secret} concurrent={secret}",
        f"{secret} audio_seconds_per_minute=0",
        f"{secret} concurrent=1 concurrent=1",
        f"{secret}\n{secret} concurrent=1",
    ):
        with pytest.raises(BadLine) as bad:
            parse_keys("\n" * at + line)
        assert bad.value.number == at + line.count("\n") + 1
        assert secret not in str(bad.value)


def test_lines_of_before_are_keys_as_they_were() -> None:
    assert parse_keys("first-key\n\n  second-key  \r\nfirst-key\n") == (
        ApiKey(digest_of("first-key")),
        ApiKey(digest_of("second-key")),
    )


def test_a_line_that_begins_with_a_hash_and_a_space_says_nothing() -> None:
    assert parse_keys("# the keys of the call centre\n#\n#key\n") == (ApiKey(digest_of("#key")),)


def test_a_new_key_is_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"ew-[A-Za-z0-9_-]{43}", key) for key in keys)


class Written:
    """A file of keys under a clock that only moves by hand, and the ring that follows it."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.now = 0.0
        self.write(text)
        self.ring = Keyring(path, clock=lambda: self.now)

    def write(self, text: str) -> None:
        """Put *text* into the file; the version is new whatever the file system's clock says."""
        self.path.write_text(text)
        version_ns = round((self.now + 1) * 1e9)
        os.utime(self.path, ns=(version_ns, version_ns))

    def later(self, seconds: float = LOOK_EVERY_S) -> None:
        self.now += seconds


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "keys", "plain name=desk concurrent=1\n")


def test_a_key_has_its_name_and_limits(written: Written) -> None:
    caller = written.ring.caller("plain")
    assert (caller.name, caller.limits) == ("desk", Limits(concurrent=1))


@pytest.mark.parametrize("shown", ["", "plai", "plain ", "PLAIN", digest_of("plain").hex(), "\udcff"])
def test_whatever_is_no_key_is_refused(written: Written, shown: str) -> None:
    with pytest.raises(Unauthorized):
        written.ring.caller(shown)


def test_a_changed_file_counts_without_a_restart(written: Written) -> None:
    written.later()
    written.write(f"sha256:{digest_of('other').hex().upper()}\n")
    written.later()
    assert written.ring.caller("other").limits == UNLIMITED
    with pytest.raises(Unauthorized):
        written.ring.caller("plain")


def test_a_caller_keeps_what_is_under_way_and_what_it_owes_when_its_line_changes(written: Written) -> None:
    caller = written.ring.caller("plain")
    with caller.utterance():
        written.later()
        written.write("plain concurrent=2 audio_seconds_per_minute=60\n")
        written.later()
        assert written.ring.caller("plain") is caller
        with caller.utterance(100.0), pytest.raises(RateLimited), caller.utterance():
            pass
        written.later()
        written.write("plain audio_seconds_per_minute=600\n")
        written.later()
        with pytest.raises(RateLimited), written.ring.caller("plain").utterance():
            pass
        written.write("plain\n")
        written.later()
        with written.ring.caller("plain").utterance():
            pass


def test_a_bad_new_file_keeps_the_old_keys_and_is_logged_once(written: Written) -> None:
    written.later()
    written.write("plain\nsecret concurrent=none\n")
    with capture_logs() as told:
        for _ in range(3):
            written.later()
            assert written.ring.caller("plain").name == "desk"
    (kept,) = told
    assert kept["event"] == "keys.kept"
    assert kept["reason"].startswith("line 2: concurrent=")
    assert "secret" not in str(kept)
    written.write("third\n")
    written.later()
    assert written.ring.caller("third").limits == UNLIMITED


def test_a_file_that_is_gone_keeps_the_old_keys_and_is_logged_once(written: Written) -> None:
    written.path.unlink()
    with capture_logs() as told:
        for _ in range(3):
            written.later()
            written.ring.caller("plain")
            written.ring.caller("plain")
    assert [event["event"] for event in told] == ["keys.kept"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"sha256:12\n", "line 1: after sha256: come"),
        (b"\xff\xfe", "it is no UTF-8 text"),
        (b"a" * (1 << 21), "it is larger than"),
        (None, "No such file"),
    ],
    ids=["a bad line", "no text", "huge", "missing"],
)
def test_a_gateway_does_not_start_with_a_file_it_cannot_use(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"EVERWARM_GATEWAY_API_KEYS_FILE: {said}"):
        Keyring(path)
