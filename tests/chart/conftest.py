"""Fixtures of the chart's tests, and Helm built before the first of them, where it may take minutes."""

import pytest

from tests.cluster import fixtures
from tests.cluster.clients import find_helm
from tests.cluster.fixtures import control_plane, namespace

__all__ = ["control_plane", "namespace"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now."""
    fixtures.pytest_collection_finish(session)
    wanted = any("/tests/chart/" in item.path.as_posix() for item in session.items)
    if wanted and not session.config.option.collectonly:
        with fixtures._uncaptured(session.config):
            find_helm()
