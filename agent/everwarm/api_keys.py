"""The file of keys that a gateway takes: its lines, and how a new key and its line are made. Pure, but for new keys.

A line is a key as callers show it, or the SHA-256 of one as `sha256:<64 hex digits>`, and behind either what belongs
to the key, in any order: `name=<label>`, `concurrent=<n>`, `audio_seconds_per_minute=<n>`. Empty lines, and lines that
begin with `#` and a space, say nothing.

SHA-256 and no slow hash: a slow one makes guessing a password dear, and a key is no password. `everwarm key` draws 256
random bits, which nobody guesses however fast a guess is, and the gateway hashes the shown key on every request. Whoever
writes a short word into the file has chosen a password, and its hash does not hide it.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

KEY_PREFIX: Final = "ew-"  # so that scanners for leaked secrets, and people, know one when they see it
KEY_BYTES: Final = 32
HASHED: Final = "sha256:"
MAX_NAME_CHARS: Final = 64
MAX_LIMIT: Final = (
    1_000_000  # utterances, or seconds a minute: beyond any cluster; without it a typo would be no limit
)

_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_NAME: Final = re.compile(rf"[A-Za-z0-9._@/+-]{{1,{MAX_NAME_CHARS}}}")  # harmless in logs and messages
_COUNT: Final = re.compile(r"[0-9]{1,7}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one key may take of one gateway; None where nothing limits it.

    concurrent: utterances under way at a time; audio_s_per_minute: seconds of audio, in any minute on the average.
    """

    concurrent: int | None = None
    audio_s_per_minute: int | None = None


UNLIMITED: Final = Limits()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: its SHA-256, never itself; name is a label for logs, empty when it has none."""

    digest: bytes
    name: str = ""
    limits: Limits = UNLIMITED


class BadLine(ValueError):
    """Line *number* of the file cannot be used; *reason* says why, without a word of the line: it may hold a key."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")
        self.number, self.reason = number, reason


def new_key() -> str:
    """A key that nobody has yet."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: str) -> bytes:
    """The SHA-256 of *key*."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys in a file that holds *text*, each once, in its order. Raises BadLine at the first that cannot be used."""
    found: dict[bytes, tuple[int, ApiKey]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0] == "#":
            continue
        key = _key(number, words)
        first, same = found.setdefault(key.digest, (number, key))
        if same != key:
            raise BadLine(number, f"the key of line {first} again, with another name or other limits")
    return tuple(key for _, key in found.values())


def line_of(key: ApiKey) -> str:
    """The line that `parse_keys` reads as *key*."""
    limits = key.limits
    words = [HASHED + key.digest.hex()]
    if key.name:
        words.append(f"name={key.name}")
    if limits.concurrent is not None:
        words.append(f"concurrent={limits.concurrent}")
    if limits.audio_s_per_minute is not None:
        words.append(f"audio_seconds_per_minute={limits.audio_s_per_minute}")
    return " ".join(words)


def is_name(text: str) -> bool:
    """Whether *text* may be a key's name."""
    return _NAME.fullmatch(text) is not None


def _key(number: int, words: list[str]) -> ApiKey:
    shown, *options = words
    if shown.startswith(HASHED):
        digits = shown.removeprefix(HASHED)
        if not _DIGEST.fullmatch(digits):
            raise BadLine(number, f"after {HASHED} come the 64 hexadecimal digits of a SHA-256, and a space")
        digest = bytes.fromhex(digits)
    else:
        digest = digest_of(shown)
    given = dict(_options(number, options))
    name = given.get("name", "")
    if "name" in given and not is_name(name):
        raise BadLine(
            number, f"name= wants letters, digits and any of ._@/+- after it, at most {MAX_NAME_CHARS}"
        )
    limits = Limits(
        concurrent=_limit(number, given, "concurrent"),
        audio_s_per_minute=_limit(number, given, "audio_seconds_per_minute"),
    )
    return ApiKey(digest, name, limits)


def _options(number: int, words: list[str]) -> Iterator[tuple[str, str]]:
    seen = set()
    for word in words:
        option, has_value, value = word.partition("=")
        if option not in ("name", "concurrent", "audio_seconds_per_minute") or not has_value:
            raise BadLine(
                number,
                "behind the key come name=<label>, concurrent=<n> or audio_seconds_per_minute=<n>, nothing else",
            )
        if option in seen:
            raise BadLine(number, f"{option}= twice")
        seen.add(option)
        yield option, value


def _limit(number: int, given: dict[str, str], option: str) -> int | None:
    if option not in given:
        return None
    text = given[option]
    limit = int(text) if _COUNT.fullmatch(text) else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise BadLine(number, f"{option}= wants a whole number from 1 to {MAX_LIMIT}")
    return limit
