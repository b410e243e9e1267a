"""The installation's one Secret: what it holds, who makes it, what survives, and what other namespaces get of it."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.errors import RegistryUnavailable
from everwarm_core.registry.access import Role
from everwarm_core.registry.connection import connect
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.writer import RegistryWriter
from everwarm_operator.access import RULES, home_rules, secret_rules
from everwarm_operator.desired.platform_secret import (
    MAX_OWNERS,
    TOKEN,
    USERS,
    BundledValkey,
    ExternalRedis,
    completed,
    copy_owners,
    data_of,
    for_pods,
    is_current,
    missing_keys,
    password_key,
    secret,
    url_key,
)
from tests.cluster.control_plane import ControlPlane
from tests.fixtures.records import ids, pod_record, running, seen
from tests.fixtures.valkey import running_valkey
from tests.operator.homes import DEPLOYMENT, NAME, settings_of
from tests.operator.running import Json, World, grant, running_operator, start_operator

BUNDLED = BundledValkey("valkey.everwarm.svc:6379")
EXTERNAL = ExternalRedis("redis://pods:word@redis.example:6379/0")
SECRETS = "/api/v1/namespaces/{}/secrets"
LEASE_S = 120.0  # outlives the test, which beats once only


def made(held: Mapping[str, str], registry: BundledValkey | ExternalRedis = BUNDLED) -> dict[str, str]:
    """What the Secret should hold, given *held*."""
    numbers = count()
    return completed(held, registry, make_secret=lambda: f"word-{next(numbers)}")


# --- What it holds -------------------------------------------------------------------------------------------------


async def test_a_bundled_valkey_lets_each_role_in_by_its_url_and_no_further() -> None:
    with running_valkey(acl=made({})[USERS]) as server:
        data = made(made({}), BundledValkey(f"127.0.0.1:{server.port}"))
        async with connect(data[url_key(Role.POD)]) as redis:
            await RegistryWriter(redis, "speech", ttl_s=LEASE_S).heartbeat(pod_record())
        for role in (Role.AGENT, Role.OPERATOR):
            reader = RegistryReader(data[url_key(role)], "speech")
            async with running(reader.run()):
                await seen(reader, lambda snapshot: ids(snapshot) == {"pod-a"})
            async with connect(data[url_key(role)]) as redis:
                with pytest.raises(RegistryUnavailable, match="no permissions"):
                    await RegistryWriter(redis, "speech").heartbeat(pod_record())


@given(
    held=st.dictionaries(
        st.sampled_from([TOKEN, *map(password_key, Role), "of somebody else"]), st.text("abc", min_size=1)
    ),
    registry=st.sampled_from([BUNDLED, EXTERNAL]),
)
def test_what_it_holds_is_kept_and_what_is_missing_is_added(
    held: dict[str, str], registry: BundledValkey | ExternalRedis
) -> None:
    data = made(held, registry)
    assert data.items() >= held.items()
    assert missing_keys(data, registry) == ()
    assert made(data, registry) == data


def test_each_secret_is_a_word_of_its_own() -> None:
    data = made({})
    assert len({data[TOKEN], *(data[password_key(role)] for role in Role)}) == 1 + len(Role)


def test_an_external_redis_needs_no_users_and_no_passwords() -> None:
    assert made({}, EXTERNAL).keys() == {TOKEN, url_key(Role.POD)}


def test_a_new_address_reaches_the_urls_and_leaves_the_passwords() -> None:
    before, after = made({}), made(made({}), BundledValkey("elsewhere:6379"))
    assert all(after[password_key(role)] == before[password_key(role)] for role in Role)
    assert all("@elsewhere:6379/" in after[url_key(role)] for role in Role)


def test_pods_get_nothing_of_the_other_roles() -> None:
    data = made({})
    shown = "".join(for_pods(data).values())
    assert not any(data[password_key(role)] in shown for role in (Role.AGENT, Role.OPERATOR))


def test_a_secret_says_nothing_of_its_content_in_its_metadata() -> None:
    before, after = (secret("speech", NAME, {TOKEN: word}, owners=()).body["metadata"] for word in "ab")
    assert before == after


def test_a_copy_belongs_to_a_bounded_number_of_resources() -> None:
    owners = copy_owners({f"uid-{number}": f"name-{number}" for number in range(3 * MAX_OWNERS)})
    assert len(owners) == MAX_OWNERS


@pytest.mark.parametrize(
    ("data", "uids", "current"),
    [({TOKEN: "a"}, ["one", "two"], True), ({TOKEN: "b"}, ["one"], False), ({TOKEN: "a"}, ["two"], False)],
    ids=["same, one of its owners lives", "other content", "its owners are gone"],
)
def test_a_copy_is_current_with_the_same_content_and_an_owner_that_lives(
    *, data: dict[str, str], uids: list[str], current: bool
) -> None:
    live = secret("speech", NAME, {TOKEN: "a"}, owners=copy_owners({"one": "base"})).body
    assert is_current(live, data, uids) == current


# --- Who makes it --------------------------------------------------------------------------------------------------


def granted(control_plane: ControlPlane, home: str) -> Path:
    """The rights of an operator that serves its own namespace."""
    return grant(control_plane, home, rules=(*RULES, *home_rules(NAME, DEPLOYMENT)))


def found(control_plane: ControlPlane, namespace: str) -> list[Json]:
    """The Secrets of a namespace."""
    listed: list[Json] = control_plane.request("GET", SECRETS.format(namespace))["items"]
    return [item for item in listed if item["metadata"]["name"] == NAME]


def test_the_secret_is_made_once_and_lives_as_long_as_the_operators_deployment(
    control_plane: ControlPlane, home: str, redis_url: str, tmp_path: Path
) -> None:
    kubeconfig, variables = granted(control_plane, home), settings_of(home)
    with running_operator(control_plane, kubeconfig, home, redis_url, tmp_path, **variables):
        (first,) = found(control_plane, home)
    with running_operator(control_plane, kubeconfig, home, redis_url, tmp_path, **variables):
        (second,) = found(control_plane, home)
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    control_plane.request("DELETE", f"/apis/apps/v1/namespaces/{home}/deployments/{DEPLOYMENT}")
    control_plane.wait_for("Secret gone", lambda: not found(control_plane, home), within_s=60)


def test_a_secret_that_is_lost_comes_back_as_it_was(
    control_plane: ControlPlane, home: str, redis_url: str, tmp_path: Path
) -> None:
    world = World(control_plane, home, redis_url)
    kubeconfig = granted(control_plane, home)
    with running_operator(control_plane, kubeconfig, home, redis_url, tmp_path, **settings_of(home)):
        world.apply("speech")
        (before,) = found(control_plane, home)
        control_plane.request("DELETE", f"{SECRETS.format(home)}/{NAME}")
        world.wait("Secret again", lambda: found(control_plane, home))
        (after,) = found(control_plane, home)
    assert data_of(after) == data_of(before)


def test_pods_take_token_and_url_from_the_secret(
    control_plane: ControlPlane, home: str, redis_url: str, tmp_path: Path
) -> None:
    world = World(control_plane, home, redis_url)
    kubeconfig = granted(control_plane, home)
    with running_operator(control_plane, kubeconfig, home, redis_url, tmp_path, **settings_of(home)):
        world.apply("speech")
        world.wait("its pod", world.pods)
    (pod,) = world.pods()
    (container,) = pod["spec"]["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["EVERWARM_REDIS_URL"]["valueFrom"]["secretKeyRef"] == {"name": NAME, "key": url_key(Role.POD)}
    assert redis_url not in str(pod)
    assert NAME in [volume.get("secret", {}).get("secretName") for volume in pod["spec"]["volumes"]]


def test_a_namespace_elsewhere_gets_what_pods_need_for_as_long_as_it_has_resources(
    control_plane: ControlPlane, home: str, redis_url: str, tmp_path: Path
) -> None:
    elsewhere = f"{home}-elsewhere"
    control_plane.create_namespace(elsewhere)
    kubeconfig = grant(control_plane, home, rules=home_rules(NAME, DEPLOYMENT))
    grant(control_plane, elsewhere, rules=(*RULES, *secret_rules(NAME)), account_in=home)
    world = World(control_plane, elsewhere, redis_url)
    with running_operator(
        control_plane, kubeconfig, elsewhere, redis_url, tmp_path, **settings_of(home)
    ) as operator:
        world.apply("first")
        world.wait("copy", lambda: found(control_plane, elsewhere))
        (copy,), (original,) = found(control_plane, elsewhere), found(control_plane, home)
        assert data_of(copy) == for_pods(data_of(original))
        world.apply("second")
        world.delete("first")
        world.wait("copy of the second", lambda: _owners(control_plane, elsewhere) == {"second"})
        world.delete("second")
        world.wait("copy gone", lambda: not found(control_plane, elsewhere))
        assert data_of(original)[TOKEN] not in operator.log.read_text()


def _owners(control_plane: ControlPlane, namespace: str) -> set[str]:
    return {
        owner["name"]
        for copy in found(control_plane, namespace)
        for owner in copy["metadata"]["ownerReferences"]
    }


@pytest.mark.parametrize(
    ("data", "words"),
    [(None, "does not exist; create it"), ({TOKEN: "YQ=="}, "lacks redis-url-pod")],
    ids=["missing", "incomplete"],
)
def test_a_secret_of_somebody_else_that_is_not_whole_ends_the_operator_with_the_reason(
    control_plane: ControlPlane,
    home: str,
    redis_url: str,
    tmp_path: Path,
    data: dict[str, str] | None,
    words: str,
) -> None:
    kubeconfig = granted(control_plane, home)
    if data is not None:
        control_plane.request("POST", SECRETS.format(home), {"metadata": {"name": NAME}, "data": data})
    variables = settings_of(home, EVERWARM_OPERATOR_PLATFORM_SECRET_MANAGED="false")
    operator = start_operator(kubeconfig, home, redis_url, tmp_path, **variables)
    assert operator.ended() == 1
    assert words in operator.log.read_text().splitlines()[-1]
