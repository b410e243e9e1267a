"""The local platform, with two pods behind its gateway; both the gateway and one pod are spoken to."""

from collections.abc import Iterator

import psutil
import pytest

from tests.support.platform import TWO_PODS, RunningPlatform, running_platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A warm `everwarm up` for the whole session."""
    with running_platform(TWO_PODS, folder=tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.fixture(params=["gateway", "pod"])
def base_url(request: pytest.FixtureRequest, platform: RunningPlatform) -> str:
    """Where to connect: both speak the same."""
    if request.param == "gateway":
        return platform.url
    (listening,) = [c for c in platform.pods()[0].net_connections() if c.status == psutil.CONN_LISTEN]
    return f"http://127.0.0.1:{listening.laddr.port}"
