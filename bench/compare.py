"""What changed since the results that are committed: `python -m bench compare [REVISION]`.

The saved baseline is `bench/results` at a revision of git, HEAD by default. Measured again, a promise has regressed when it
held and no longer does, or came nearer to its limit by more than `NOISE` of what it was: two runs of the same code on a
shared machine differ by as much.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.report import RESULTS, number

NOISE: Final = 0.15


@dataclass(frozen=True, slots=True)
class Change:
    """One promise, in the baseline and now."""

    benchmark: str
    name: str
    unit: str
    before: float
    now: float
    limit: float

    @property
    def is_regression(self) -> bool:
        """Whether it got worse by more than noise, or is broken now and was not."""
        was_held, is_held = self.before <= self.limit, self.now <= self.limit
        return (was_held and not is_held) or self.now > self.before + abs(self.before) * NOISE


def changes(benchmark: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[Change]:
    """Every promise that both results of *benchmark* know, as parsed from their JSON."""
    known = {promise["name"]: promise["value"] for promise in before["promises"]}
    for promise in now["promises"]:
        if promise["name"] in known:
            yield Change(
                benchmark,
                promise["name"],
                promise["unit"],
                known[promise["name"]],
                promise["value"],
                promise["limit"],
            )


def table(found: list[Change]) -> str:
    """Markdown, a row for each change."""
    rows = ["| benchmark | promise | before | now | limit | |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {change.benchmark} | {change.name} | {number(change.before)} | {number(change.now)} | {number(change.limit)}"
        f" {change.unit} | {'**worse**' if change.is_regression else ''} |"
        for change in found
    ]
    return "\n".join(rows) + "\n"


def compare(revision: str) -> list[Change]:
    """The promises of all results that lie in `bench/results` now, against those at *revision*."""
    found: list[Change] = []
    for path in sorted(RESULTS.glob("*.json")):
        shown = subprocess.run(
            ["git", "show", f"{revision}:./{path.name}"], cwd=RESULTS, capture_output=True, check=False
        )
        if shown.returncode == 0:  # else it is new
            found += changes(path.stem, json.loads(shown.stdout), json.loads(path.read_bytes()))
    return found
