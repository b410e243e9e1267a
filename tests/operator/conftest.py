"""Fixtures of the tests that need a control plane."""

from tests.cluster.fixtures import control_plane, namespace, pytest_collection_finish
from tests.operator.homes import home

__all__ = ["control_plane", "home", "namespace", "pytest_collection_finish"]
