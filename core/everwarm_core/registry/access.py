"""Who may do what with the registry: the users of a Redis or Valkey that knows more than one, as ACL rules.

Three roles, each with the commands its code sends and not one more. Pods write everything of a namespace. Agents read
everything and write nothing but `wanted:*`, so that a stolen agent's password cannot send utterances anywhere. The
operator reads. Who has no password can do nothing. What the rules cannot say is "its own entries only": a pod may
write any pod's (each command inside a script is checked too, but a key belongs to a namespace, not to a user).

The chart's Valkey gets `acl_file`; whoever runs the server takes the lines of docs/reference/registry.md, which are
made from here. All is pure: passwords come in as SHA-256 digests, since that is what an ACL keeps.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final

from everwarm_core.registry.names import KeyNames


class Role(StrEnum):
    """A part of the platform, as the registry knows it."""

    POD = "pod"
    AGENT = "agent"
    OPERATOR = "operator"

    @property
    def user(self) -> str:
        """Its user's name."""
        return f"everwarm-{self.value}"


CONNECT: Final = ("client|setinfo",)
"""What redis-py says of itself when it connects; it goes on without, but each refusal would stand in ACL LOG. Unknown to
Redis 7.0, whose users do without the rule."""

READ: Final = ("time", "get", "zrevrange", "zrangebyscore", "hmget", "hgetall", "xread", "xrevrange")
"""`reader`, and who asks as the registry's page says (ZRANGEBYSCORE)."""

WANT: Final = ("multi", "incrby", "pexpire", "exec")
"""`RegistryReader.want`; INCRBY is how redis-py writes INCR."""

WRITE: Final = (
    "evalsha",
    "script|load",
    # Each command of a script needs its right too: heartbeat.lua and deregister.lua.
    "time",
    "zadd",
    "zremrangebyscore",
    "zrem",
    "pttl",
    "pexpire",
    "hget",
    "hmget",
    "hset",
    "del",
    "get",
    "set",
    "xadd",
    # What a predecessor was in: `RegistryWriter.heartbeat`.
    "multi",
    "exec",
)
"""`writer`, with its scripts."""

COMMANDS: Final[Mapping[Role, Sequence[str]]] = {
    Role.POD: (*CONNECT, *WRITE),
    Role.AGENT: (*CONNECT, *READ, *WANT),
    Role.OPERATOR: (*CONNECT, *READ),
}

NOBODY: Final = "user default reset off"
"""Whoever shows no password, and whom a server would otherwise let do everything."""


def password_hash(password: str) -> str:
    """The digest of *password* that an ACL keeps in its place: SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(password.encode()).hexdigest()


def acl_rules(role: Role, *, namespaces: Collection[str] = ()) -> tuple[str, ...]:
    """The words after the name and the passwords of *role*'s user: its keys, then its commands.

    namespaces: those whose registry it may use; none means all. Raises ValueError when one is no plain name.
    """
    prefixes = [_prefix(namespace) for namespace in sorted(namespaces)] or ["everwarm:{*}:"]
    reads = role is not Role.POD
    keys = [f"%R~{prefix}*" if reads else f"~{prefix}*" for prefix in prefixes]
    if role is Role.AGENT:
        keys += [f"~{prefix}wanted:*" for prefix in prefixes]
    return (*keys, "-@all", *(f"+{command}" for command in COMMANDS[role]))


def acl_user(role: Role, password_hashes: Sequence[str], *, namespaces: Collection[str] = ()) -> str:
    """The line of an ACL file that makes *role*'s user; also the words after ACL SETUSER, but for its first.

    password_hashes: digests as `password_hash` makes them, any of which lets in; two while a password changes. Raises
    ValueError when there is none or one is not such a digest, for the server would then refuse the whole file.
    """
    if not password_hashes:
        raise ValueError(f"user {role.user!r} needs a password")
    for digest in password_hashes:
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError("a password's digest is 64 hexadecimal digits, in lower case")
    passwords = [f"#{digest}" for digest in password_hashes]
    return " ".join(["user", role.user, "reset", "on", *passwords, *acl_rules(role, namespaces=namespaces)])


def acl_file(password_hashes: Mapping[Role, Sequence[str]], *, namespaces: Collection[str] = ()) -> str:
    """A whole ACL file (`--aclfile`): the three users, and nothing for anybody else.

    password_hashes: of every role. Raises KeyError when one is missing, ValueError as `acl_user` does.
    """
    users = [acl_user(role, password_hashes[role], namespaces=namespaces) for role in Role]
    return "\n".join([NOBODY, *users, ""])


def _prefix(namespace: str) -> str:
    keys = KeyNames(namespace)
    return keys.pods.removesuffix("pods")
