"""Fixtures of tests that talk to Kubernetes: one control plane for the whole run, a namespace for each test.

A real node takes root, changes the machine while it runs and is slower, so it starts only for who asks for it:
`EVERWARM_E2E=1`. Without, tests that want one are skipped, and say so.

A conftest imports them by name, with the hook, which has the programs built before the first test's timeout runs.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from tests.cluster.binaries import build_binaries, find_binaries
from tests.cluster.collector import collector_module
from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.cluster.machine import obstacle, prepare_machine
from tests.cluster.node import Node, running_node
from tests.cluster.node_images import make_base_image

OPT_IN: Final = "EVERWARM_E2E"

_PLANE: Final = pytest.StashKey[ControlPlane]()
_NODE: Final = pytest.StashKey[Node]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now, where it may take minutes and where its progress is seen."""
    wanted = any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items)
    if session.config.option.collectonly:
        return
    with _uncaptured(session.config):
        if wanted:
            find_binaries()
        if asked_for_e2e():
            collector_module().build()
            if obstacle() is None:
                prepare_machine()
                build_binaries()
                make_base_image()


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


def asked_for_e2e() -> bool:
    """Whether this run may start what is slow to build or changes the machine while it runs."""
    return os.environ.get(OPT_IN) == "1"


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A real node with a control plane of its own, for the whole session; skips where there is to be none."""
    if not asked_for_e2e():
        pytest.skip(
            f"a real node starts only with {OPT_IN}=1: it needs root and changes this machine's network"
        )
    if why := obstacle():
        pytest.skip(why)
    if _NODE not in pytestconfig.stash:
        running = ExitStack()
        pytestconfig.add_cleanup(running.close)
        folder = tmp_path_factory.mktemp("cluster") / "node"
        with _uncaptured(pytestconfig):
            pytestconfig.stash[_NODE] = running.enter_context(running_node(folder))
    return pytestconfig.stash[_NODE]


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
