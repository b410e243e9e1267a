"""The embedded Valkey: a real one, killed and back on its port."""

import os
import signal

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from everwarm.platform.process import Exit
from everwarm.platform.valkey import find_server, major_version, running_valkey, server_argv
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("line", "major"),
    [
        ("Valkey server v=9.1.2 sha=0:1 malloc=libc bits=64 build=1", 9),
        ("Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=1", 6),
        ("something else", None),
    ],
)
def test_version_is_read_from_what_the_server_prints(line: str, major: int | None) -> None:
    assert major_version(line) == major


def test_server_listens_on_loopback_alone_and_persists_nothing() -> None:
    argv = " ".join(server_argv(find_server(), port=1234, folder=find_server().parent))
    assert "--bind 127.0.0.1" in argv
    assert "--appendonly no" in argv
    assert "--save  --" in argv


async def test_valkey_answers_again_on_the_same_port_after_it_was_killed() -> None:
    exits: list[Exit] = []
    async with running_valkey(on_line=lambda _: None, on_exit=exits.append) as server:
        client = Redis.from_url(server.url)
        await client.set("kept", "in memory only")
        assert server.process.pid is not None
        os.kill(server.process.pid, signal.SIGKILL)
        await until(lambda: bool(exits))
        await until(lambda: _answers(client))
        assert await client.get("kept") is None
        await client.aclose()
    assert [end.cause for end in exits] == ["SIGKILL"]


async def test_valkey_is_gone_when_its_block_is_left() -> None:
    async with running_valkey(on_line=lambda _: None, on_exit=lambda _: None) as server:
        url = server.url
    with pytest.raises((RedisError, OSError)):
        await Redis.from_url(url).ping()


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
