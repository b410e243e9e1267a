"""Where a command sends its requests."""

import pytest

from everwarm.cli.endpoint import DEFAULT_URL, Endpoint, choose, choose_registry
from everwarm.platform.state import RunningState
from everwarm_core.errors import InvalidParameter

RUNNING = (RunningState(1, 1.0, "http://127.0.0.1:9", "redis://127.0.0.1:10/0", "local"),)
BOTH = {"EVERWARM_BASE_URL": "http://gateway:8080", "EVERWARM_REDIS_URL": "redis://redis:6379/0"}


def test_endpoint_is_what_the_flags_say_whatever_else_is_set() -> None:
    chosen = choose(url="http://here:1", redis_url=None, environ=BOTH, running=RUNNING)
    assert chosen == Endpoint(url="http://here:1")


def test_endpoint_is_the_environments_before_the_platform_that_runs_here() -> None:
    assert choose(url=None, redis_url=None, environ=BOTH, running=RUNNING).url == "http://gateway:8080"
    only_redis = {"EVERWARM_REDIS_URL": BOTH["EVERWARM_REDIS_URL"], "EVERWARM_NAMESPACE": "prod"}
    chosen = choose(url=None, redis_url=None, environ=only_redis, running=RUNNING)
    assert chosen == Endpoint(redis_url="redis://redis:6379/0", namespace="prod")


def test_endpoint_is_the_newest_platform_here_when_nothing_is_said() -> None:
    assert choose(url=None, redis_url=None, environ={}, running=RUNNING).url == "http://127.0.0.1:9"


def test_endpoint_is_the_default_port_when_nothing_runs_here() -> None:
    assert choose(url=None, redis_url=None, environ={}, running=()).url == DEFAULT_URL


def test_status_prefers_the_registry_of_the_platform_here() -> None:
    chosen = choose_registry(url=None, redis_url=None, environ={}, running=RUNNING)
    assert chosen.redis_url == "redis://127.0.0.1:10/0"


@pytest.mark.parametrize("url", ["nonsense", "redis://h:port", "http://h", ""])
def test_endpoint_refuses_what_is_no_redis_url(url: str) -> None:
    with pytest.raises(InvalidParameter, match="redis://host:6379/0"):
        Endpoint(redis_url=url)
