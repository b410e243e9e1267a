"""Benchmarks: every figure in the README and the docs comes from a command in here.

`python -m bench` lists them, `python -m bench NAME...` runs some, `python -m bench all` runs all. Each measures in one
run what it compares, reports ratios rather than seconds where it can, and writes `bench/results/NAME.json` beside
the table it prints. A benchmark exits 1 when a promise is broken, so it doubles as an acceptance check. `compare` holds
results against those committed, `plot` draws them.
"""
