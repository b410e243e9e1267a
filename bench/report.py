"""What a benchmark found: figures, promises held or broken, and how both are written down.

Results are JSON for machines and a Markdown table for people; both name the machine, since a figure without one
means little. Ratios are preferred: they survive another machine, seconds do not.
"""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

RESULTS: Final = Path(__file__).parent / "results"


def machine() -> str:
    """The machine in a few words: cores, architecture, system, Python."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; *spread* says how it varied, as `min .. max`."""

    name: str
    value: float
    unit: str
    spread: str = ""


@dataclass(frozen=True, slots=True)
class Promise:
    """A bound the project states; held when *value* <= *limit*."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def held(self) -> bool:
        """Whether the measured value stays within the limit."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Report:
    """All that one benchmark found."""

    title: str
    figures: tuple[Figure, ...]
    promises: tuple[Promise, ...]
    notes: tuple[str, ...] = ()
    machine: str = field(default_factory=machine)
    load_average: float = field(default_factory=lambda: round(os.getloadavg()[0], 2))

    @property
    def held(self) -> bool:
        """Whether every promise held."""
        return all(promise.held for promise in self.promises)

    def markdown(self) -> str:
        """A table of promises, a table of figures, and the notes."""
        lines = [f"## {self.title}", "", f"{self.machine}; load average {self.load_average}", ""]
        if self.promises:
            lines += ["| promise | measured | limit | held |", "|---|---|---|---|"]
            lines += [
                f"| {p.name} | {number(p.value)} {p.unit} | {number(p.limit)} {p.unit} | {'yes' if p.held else '**no**'} |"
                for p in self.promises
            ]
            lines.append("")
        if self.figures:
            lines += ["| figure | value | spread |", "|---|---|---|"]
            lines += [f"| {f.name} | {number(f.value)} {f.unit} | {f.spread} |" for f in self.figures]
            lines.append("")
        return "\n".join([*lines, *self.notes, ""])

    def write(self, name: str) -> Path:
        """Write `results/<name>.json` and `.md`; returns the JSON's path."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote at *path*, the JSON."""
        saved = json.loads(path.read_bytes())
        return cls(
            saved["title"],
            tuple(Figure(**figure) for figure in saved["figures"]),
            tuple(Promise(**promise) for promise in saved["promises"]),
            tuple(saved["notes"]),
            saved["machine"],
            saved["load_average"],
        )


def number(value: float) -> str:
    """A figure with three significant digits, and no exponent."""
    if value == int(value):
        return str(int(value))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which *share* (0..1) of *values* lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def percentiles(seconds: Sequence[float]) -> str:
    """The median, p95 and p99 of *seconds*, in words."""
    return (
        f"p50 {statistics.median(seconds):.2f} s, p95 {quantile(seconds, 0.95):.2f} s,"
        f" p99 {quantile(seconds, 0.99):.2f} s"
    )


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """`min .. median .. max` of *values*, each times *scale*."""
    return " .. ".join(number(v * scale) for v in (min(values), statistics.median(values), max(values)))
