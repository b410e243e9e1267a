"""Fixtures of tests that talk to Kubernetes: one control plane for the whole run, a namespace for each test.

A conftest imports them by name, with the hook, which has the programs built before the first test's timeout runs.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from tests.cluster.binaries import find_binaries
from tests.cluster.control_plane import ControlPlane, running_control_plane

_PLANE: Final = pytest.StashKey[ControlPlane]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now, where it may take minutes and where its progress is seen."""
    wanted = any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        with _uncaptured(session.config):
            find_binaries()


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> ControlPlane:
    """A control plane that runs for the whole session: keep to a namespace of your own, and undo an outage.

    pytest takes a fixture that two conftests import for two fixtures; that they share one control plane is seen to
    here.
    """
    if _PLANE not in pytestconfig.stash:
        running = ExitStack()
        pytestconfig.add_cleanup(running.close)
        folder = tmp_path_factory.mktemp("cluster") / "plane"
        pytestconfig.stash[_PLANE] = running.enter_context(running_control_plane(folder))
    return pytestconfig.stash[_PLANE]


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a namespace that only this test uses; what is in it is deleted after the test."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.create_namespace(name)
    yield name
    control_plane.request(
        "DELETE", f"/api/v1/namespaces/{name}"
    )  # its controllers empty it in their own time


@contextmanager
def _uncaptured(config: pytest.Config) -> Iterator[None]:
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
        return
    with capture.global_and_fixture_disabled():
        yield
