"""Fixtures of the tests that look into built images."""

from tests.cluster.fixtures import node, pytest_collection_finish

__all__ = ["node", "pytest_collection_finish"]
