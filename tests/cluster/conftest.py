"""Fixtures of the tests that need a control plane."""

from tests.cluster.fixtures import control_plane, namespace, node, pytest_collection_finish

__all__ = ["control_plane", "namespace", "node", "pytest_collection_finish"]
