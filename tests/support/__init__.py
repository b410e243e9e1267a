"""Real parts that tests and benchmarks start: receivers, servers, pods."""
