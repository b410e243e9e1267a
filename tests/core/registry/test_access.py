"""The rights of each role on a real server: enough for all that its code does, and nothing beyond."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.registry.access import (
    CONNECT,
    READ,
    WANT,
    WRITE,
    Role,
    acl_file,
    acl_rules,
    acl_user,
    password_hash,
)
from everwarm_core.registry.connection import connect
from everwarm_core.registry.names import KeyNames
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import PodState
from everwarm_core.registry.writer import RegistryWriter
from tests.fixtures.records import ids, pod_record, running, seen
from tests.fixtures.valkey import OwnedValkey, running_valkey

PASSWORDS = {role: f"secret of {role}" for role in Role}
HASHES = {role: [password_hash(password)] for role, password in PASSWORDS.items()}
KEYS = KeyNames("local")


@pytest.fixture
def guarded() -> Iterator[OwnedValkey]:
    """A Valkey with the users of the platform, and nobody else."""
    with running_valkey(acl=acl_file(HASHES)) as server:
        yield server


def url(server: OwnedValkey, role: Role) -> str:
    return server.url.replace("//", f"//{role.user}:{PASSWORDS[role].replace(' ', '%20')}@")


@pytest.fixture
async def as_pod(guarded: OwnedValkey) -> AsyncIterator[Redis]:
    client = connect(url(guarded, Role.POD))
    yield client
    await client.aclose()


@pytest.fixture
async def as_agent(guarded: OwnedValkey) -> AsyncIterator[Redis]:
    client = connect(url(guarded, Role.AGENT))
    yield client
    await client.aclose()


def admin_of(server: OwnedValkey) -> Any:
    """A client that may do everything; untyped, as redis-py's raw commands are."""
    return SyncRedis.from_url(server.admin_url)


async def raw(client: Any, *command: str) -> object:
    """Any command, written out."""
    return await client.execute_command(*command)


def refusals(server: OwnedValkey) -> Any:
    """What the server has refused to anybody so far, as its log tells."""
    return [entry["object"] for entry in admin_of(server).acl_log()]


# --- Enough --------------------------------------------------------------------------------------------------------


async def test_pod_says_all_that_a_pod_ever_says(guarded: OwnedValkey, as_pod: Redis) -> None:
    """Heartbeats in every state, a restart that served more before, the change of languages, and leaving."""
    writer = RegistryWriter(as_pod, "local")
    for state in PodState:
        await writer.heartbeat(pod_record(state=state, languages=("en", "auto")))
    restarted = pod_record(boot="another", names=("base.en",), languages=("en",))
    await writer.heartbeat(restarted)
    assert await writer.deregister(restarted)
    assert refusals(guarded) == []


@pytest.mark.parametrize("role", [Role.AGENT, Role.OPERATOR])
async def test_readers_follow_the_registry_and_hear_of_changes(
    guarded: OwnedValkey, as_pod: Redis, role: Role
) -> None:
    writer = RegistryWriter(as_pod, "local")
    await writer.heartbeat(pod_record())
    follow = ["base.en"] if role is Role.AGENT else None
    reader = RegistryReader(url(guarded, role), "local", follow=follow)
    async with running(reader.run()):
        await seen(reader, lambda s: ids(s) == {"pod-a"})
        await writer.heartbeat(pod_record("pod-b"))
        await seen(reader, lambda s: ids(s) == {"pod-a", "pod-b"})
        await writer.deregister(pod_record("pod-b"))
        await seen(reader, lambda s: ids(s) == {"pod-a"})
        assert ids(await reader.read_all()) == {"pod-a"}
    assert refusals(guarded) == []


async def test_agent_notes_what_it_wants(guarded: OwnedValkey, as_agent: Redis) -> None:
    async with RegistryReader(url(guarded, Role.AGENT), "local") as reader:
        await reader.want("base.en")
    assert await as_agent.get(KEYS.wanted("base.en")) == "1"
    assert refusals(guarded) == []


async def test_operator_reads_every_namespace_and_what_is_wanted_in_it(guarded: OwnedValkey) -> None:
    pod, agent = connect(url(guarded, Role.POD)), connect(url(guarded, Role.AGENT))
    async with pod, agent:
        for namespace in ("speech", "other.team"):
            await RegistryWriter(pod, namespace).heartbeat(pod_record())
            async with RegistryReader(url(guarded, Role.OPERATOR), namespace) as reader:
                assert ids(await reader.read_all()) == {"pod-a"}
        await agent.incr(KeyNames("speech").wanted("tiny"))
        async with connect(url(guarded, Role.OPERATOR)) as operator:
            assert await operator.get(KeyNames("speech").wanted("tiny")) == "1"
    assert refusals(guarded) == []


async def test_agent_asks_who_is_warm_as_the_contract_says(as_pod: Redis, as_agent: Redis) -> None:
    await RegistryWriter(as_pod, "local").heartbeat(pod_record())
    now_ms = (await as_agent.time())[0] * 1000
    assert await as_agent.zrangebyscore(KEYS.warm("base.en", "en"), now_ms, "+inf") == ["pod-a"]


# --- And nothing beyond --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("SET", KEYS.epoch, "mine"),
        ("INCRBY", KEYS.epoch, "1"),
        ("PEXPIRE", KEYS.warm("base.en", "en"), "1"),
        ("ZADD", KEYS.pods, "1", "mine"),
        ("HSET", KEYS.pod("pod-a"), "url", "http://elsewhere"),
        ("XADD", KEYS.changes, "*", "state", "gone"),
        ("DEL", KEYS.pods),
        ("EVAL", "return redis.call('del', KEYS[1])", "1", KEYS.pods),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("role", [Role.AGENT, Role.OPERATOR])
async def test_readers_cannot_change_the_registry(
    guarded: OwnedValkey, as_pod: Redis, role: Role, command: tuple[str, ...]
) -> None:
    await RegistryWriter(as_pod, "local").heartbeat(pod_record())
    async with connect(url(guarded, role)) as client:
        with pytest.raises(NoPermissionError):
            await raw(client, *command)


async def test_agent_cannot_run_the_script_of_a_heartbeat(as_pod: Redis, as_agent: Redis) -> None:
    """Not even where a pod has loaded it."""
    await RegistryWriter(as_pod, "local").heartbeat(pod_record())
    with pytest.raises(NoPermissionError):
        await RegistryWriter(as_agent, "local")._beat(keys=[KEYS.pods], args=[])


async def test_operator_wants_nothing(guarded: OwnedValkey) -> None:
    async with connect(url(guarded, Role.OPERATOR)) as client:
        with pytest.raises(NoPermissionError):
            await client.incr(KEYS.wanted("base.en"))


@pytest.mark.parametrize("role", list(Role))
async def test_no_role_touches_keys_that_are_not_the_registrys(guarded: OwnedValkey, role: Role) -> None:
    async with connect(url(guarded, role)) as client:
        for key in ("sessions", "everwarm:local:pods", "everwarm"):
            with pytest.raises(NoPermissionError):
                await client.get(key)


async def test_a_script_of_a_pod_cannot_leave_the_registry(as_pod: Redis) -> None:
    """The rights are those of the caller inside a script too, whatever keys it was called with."""
    digest = await as_pod.script_load("return redis.call('get', 'sessions')")
    with pytest.raises(ResponseError, match="ACL failure in script"):
        await as_pod.evalsha(digest, 1, KEYS.pods)


async def test_nobody_does_anything_without_a_password(guarded: OwnedValkey) -> None:
    async with connect(guarded.url) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()


async def test_a_user_of_some_namespaces_sees_no_other(guarded: OwnedValkey) -> None:
    admin = admin_of(guarded)
    line = acl_user(Role.AGENT, HASHES[Role.AGENT], namespaces=["speech", "tests"])
    admin.execute_command("ACL", "SETUSER", *line.split()[1:])
    async with connect(url(guarded, Role.AGENT)) as client:
        assert await client.get(KeyNames("tests").epoch) is None
        await client.incr(KeyNames("speech").wanted("tiny"))
        for other in ("local", "speech2"):
            with pytest.raises(NoPermissionError):
                await client.get(KeyNames(other).epoch)


async def test_either_password_lets_in_while_one_replaces_the_other(guarded: OwnedValkey) -> None:
    admin = admin_of(guarded)
    line = acl_user(Role.AGENT, [password_hash("newer"), *HASHES[Role.AGENT]])
    admin.execute_command("ACL", "SETUSER", *line.split()[1:])
    for password in ("newer", PASSWORDS[Role.AGENT]):
        admin.execute_command("AUTH", Role.AGENT.user, password)


@pytest.mark.parametrize(
    ("role", "command"),
    [
        *((Role.POD, command) for command in WRITE),
        *((Role.AGENT, command) for command in (*READ, *WANT)),
        *((role, command) for role in Role for command in CONNECT),
        *((Role.OPERATOR, command) for command in READ),
    ],
)
async def test_each_right_is_needed(
    guarded: OwnedValkey, role: Role, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out is missed, so nothing is granted that the code does not use."""
    monkeypatch.setattr("everwarm_core.registry.reader.BLOCK_S", 0.02)
    admin = admin_of(guarded)
    admin.execute_command("ACL", "SETUSER", role.user, f"-{command}")
    await _everything(guarded, role)
    denied = {entry["object"] for entry in admin.acl_log()}
    assert denied & {command, command.split("|", maxsplit=1)[0]}, f"nobody missed {command}"


async def _everything(server: OwnedValkey, role: Role) -> None:
    """All that *role* does with the registry; what is refused is told by the server's log."""
    if role is Role.POD:
        async with connect(url(server, role)) as client:
            writer = RegistryWriter(client, "local")
            before = pod_record(boot="before", names=("base.en", "old"))
            for record in (before, pod_record(), pod_record(state=PodState.DRAINING)):
                with suppress(RegistryUnavailable):
                    await writer.heartbeat(record)
            with suppress(RegistryUnavailable):
                await writer.deregister(pod_record())
        return
    async with connect(server.admin_url) as admin:
        await RegistryWriter(admin, "local").heartbeat(pod_record())
    async with RegistryReader(url(server, role), "local") as reader, connect(url(server, role)) as client:
        with suppress(RegistryUnavailable):
            await reader.read_all()
        for first in (True, False):
            with suppress(NoPermissionError, RegistryUnavailable):
                reader._cursor = None if first else "0-0"
                await reader._next_changes()
        with suppress(RegistryUnavailable):
            ((_, fields),) = (await reader._read(None, known={})).hashes.items()
            await reader._read(None, known={"pod-a": fields})
        await reader.want("base.en")
        with suppress(NoPermissionError):
            await client.zrangebyscore(KEYS.warm("base.en", "en"), 0, "+inf")


# --- The text ------------------------------------------------------------------------------------------------------


def test_file_is_one_line_a_user_with_nothing_for_others() -> None:
    first, *users, end = acl_file(HASHES).split("\n")
    assert (first, end) == ("user default reset off", "")
    assert [line.split()[1] for line in users] == [role.user for role in Role]


@pytest.mark.parametrize("role", list(Role))
def test_page_of_the_registry_shows_the_rules(role: Role) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "registry.md").read_text(encoding="utf-8")
    assert f"ACL SETUSER {role.user} reset on #<sha256> {' '.join(acl_rules(role))}\n" in page


def test_file_holds_no_password() -> None:
    assert not any(password in acl_file(HASHES) for password in PASSWORDS.values())


@pytest.mark.parametrize("digests", [[], ["secret"], ["A" * 64], [f"{'a' * 64} +@all"]])
def test_what_is_no_digest_is_refused(digests: list[str]) -> None:
    with pytest.raises(ValueError, match="password"):
        acl_user(Role.POD, digests)


def test_a_namespace_that_would_widen_the_rights_is_refused() -> None:
    with pytest.raises(ValueError, match="namespace"):
        acl_rules(Role.POD, namespaces=["a}:* ~*"])
