"""The one Secret of an installation: the token between agents and pods, and the way to the registry for each role.

It is made once and then only completed: what it holds stays, since pods, gateways and Valkey have it already, and what
is missing (all of it at first, a new key after an upgrade) is added. What follows from passwords is written anew each
time, so that a change of the rules or of the address arrives. Randomness comes in as an argument.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from everwarm_core.registry.access import Role, acl_file, password_hash
from everwarm_core.spec import API_VERSION, KIND
from everwarm_operator.manifest import Manifest
from everwarm_operator.naming import FIELD_MANAGER, MANAGED_BY_LABEL, PART_OF_LABEL

TOKEN: Final = "token"
"""The internal token; two on lines of their own while one replaces the other, the one to show first."""
USERS: Final = "users.acl"
"""The ACL file of the bundled Valkey."""
MAX_OWNERS: Final = 20  # of a copy; enough that one lives while any does, and few enough to be read

Data = Mapping[str, str]


def password_key(role: Role) -> str:
    """The key with the password of *role*'s user in the bundled Valkey."""
    return f"redis-{role.value}-password"


def url_key(role: Role) -> str:
    """The key with the registry's URL for *role*, its password in it."""
    return f"redis-url-{role.value}"


@dataclass(frozen=True, slots=True)
class BundledValkey:
    """The chart's own Valkey at *address*, `host:port`, whose users are made from the Secret."""

    address: str


@dataclass(frozen=True, slots=True)
class ExternalRedis:
    """A Redis of somebody else's, which pods reach at *pod_url*."""

    pod_url: str


def completed(
    held: Data, registry: BundledValkey | ExternalRedis, *, make_secret: Callable[[], str]
) -> dict[str, str]:
    """Everything the Secret should hold, given what it holds; *make_secret* makes a random word that fits a URL."""
    data = dict(held)
    if TOKEN not in data:
        data[TOKEN] = make_secret()
    if isinstance(registry, ExternalRedis):
        data[url_key(Role.POD)] = registry.pod_url
        return data
    for role in Role:
        if password_key(role) not in data:
            data[password_key(role)] = make_secret()
        data[url_key(role)] = f"redis://{role.user}:{data[password_key(role)]}@{registry.address}/0"
    data[USERS] = acl_file({role: (password_hash(data[password_key(role)]),) for role in Role})
    return data


def missing_keys(held: Data, registry: BundledValkey | ExternalRedis) -> tuple[str, ...]:
    """The keys that a Secret made by somebody else lacks."""
    needed = [TOKEN, url_key(Role.POD)]
    if isinstance(registry, BundledValkey):
        needed += [url_key(Role.AGENT), url_key(Role.OPERATOR), USERS]
    return tuple(key for key in needed if not held.get(key))


def for_pods(data: Data) -> dict[str, str]:
    """What of *data* a namespace with pods needs, and so gets a copy of: not the rights of the other roles."""
    return {key: data[key] for key in (TOKEN, url_key(Role.POD))}


def secret(namespace: str, name: str, data: Data, *, owners: Sequence[Mapping[str, Any]]) -> Manifest:
    """The Secret with *data*; it goes with the last of *owners* (owner references).

    It carries no digest of itself, as other objects do: that would tell whoever reads metadata when a guess is right.
    """
    return Manifest(
        "v1",
        "Secret",
        namespace,
        name,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {MANAGED_BY_LABEL: FIELD_MANAGER, PART_OF_LABEL: "everwarm"},
                "ownerReferences": list(owners),
            },
            "type": "Opaque",
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in sorted(data.items())},
        },
    )


def data_of(live: Mapping[str, Any]) -> dict[str, str]:
    """What the Secret *live* holds, as text."""
    encoded = live.get("data") or {}
    return {key: base64.b64decode(text).decode("utf-8", "replace") for key, text in encoded.items()}


def copy_owners(resources: Mapping[str, str]) -> list[dict[str, str]]:
    """Owner references of a copy: to the WhisperModels of its namespace, name by UID."""
    chosen = sorted(resources.items())[:MAX_OWNERS]
    return [{"apiVersion": API_VERSION, "kind": KIND, "name": name, "uid": uid} for uid, name in chosen]


def is_current(live: Mapping[str, Any], data: Data, uids: Sequence[str]) -> bool:
    """Whether the copy *live* holds *data* and will stay while any resource with one of *uids* does."""
    owners = {owner["uid"] for owner in live["metadata"].get("ownerReferences") or ()}
    return data_of(live) == dict(data) and not owners.isdisjoint(uids)
