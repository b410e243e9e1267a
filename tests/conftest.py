"""Fixtures every test may ask for by name."""

from tests.fixtures.logs import told
from tests.fixtures.valkey import own_valkey, redis_url, valkey

__all__ = ["own_valkey", "redis_url", "told", "valkey"]
