"""Fixtures every test may ask for by name, and settings for all of them, whichever of them run."""

from hypothesis import settings

from tests.fixtures.logs import told
from tests.fixtures.valkey import own_valkey, redis_url, valkey

__all__ = ["own_valkey", "redis_url", "told", "valkey"]

# Examples are judged by what they find, not by how long they take: runs share their machine with other work.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
