"""What the pictures of the results show, as plain data: reports go in, bars come out, and `bench.plot` draws them.

Every picture is panels of horizontal bars. What was measured stands beside each bar in words, so a bar may be cut, and
nobody has to tell colours apart. The ways and settings of a benchmark are read from the names of its figures, and
quantiles from their spreads, as the benchmark wrote them.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bench.report import Figure, Promise, Report, number

OVERVIEW: Final = "overview"
CUT: Final = 4.0  # x the limit; what is missed by more needs no length to be seen
OURS: Final = "Everwarm"  # how the names of our own ways begin
QUANTILE: Final = re.compile(r"\b(p\d\d) ([\d.]+) (\w+)")
THEIR_RATE: Final = re.compile(r"faster-whisper ([\d.]+) %")
WER: Final = "% WER"
INTERVAL: Final = "upper end of its 95 % interval"


class Kind(StrEnum):
    """What a bar stands for; each has its colour."""

    HELD = "held"
    MISSED = "MISSED"
    OURS = "ours"
    OTHER = "other"


class Mark(StrEnum):
    """The shape of a point beyond the bar, as matplotlib writes it."""

    TICK = "|"
    DIAMOND = "d"
    ARROW = ">"


QUANTILE_MARKS: Final = {"p95": Mark.TICK, "p99": Mark.DIAMOND}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar from zero to *length*; *words* say what was measured."""

    label: str
    length: float
    words: str
    kind: Kind
    marks: tuple[tuple[Mark, float], ...] = ()

    @property
    def reach(self) -> float:
        """Where the bar or the last of its marks ends."""
        return max(self.length, *(at for _, at in self.marks), 0.0)


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that belong together."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """One file. *limit* is where a line crosses all panels; *one_scale* lets bars be compared from panel to panel."""

    name: str
    title: str
    subtitle: str
    axis: str
    panels: tuple[Panel, ...]
    one_scale: bool
    limit: float | None = None


def pictures(reports: Mapping[str, Report]) -> Iterator[Picture]:
    """Those that *reports*, by the names of their benchmarks, have something for."""
    if promising := {name: report for name, report in reports.items() if report.promises}:
        yield overview(promising)
    for name, picture in PICTURES.items():
        if name in reports:
            yield picture(reports[name])


def overview(reports: Mapping[str, Report]) -> Picture:
    """Every promise of every benchmark, as a share of its limit."""
    promises = [promise for report in reports.values() for promise in report.promises]
    missed = sum(not promise.held for promise in promises)
    machines = sorted({report.machine for report in reports.values()})
    return Picture(
        OVERVIEW,
        f"Promises: {len(promises) - missed} held, {missed} missed",
        f"The line is the limit, an arrow goes beyond {number(CUT)} x or a limit of 0. {'; '.join(machines)}",
        "measured / limit",
        tuple(
            Panel(f"{report.title} ({name})", tuple(_promised(promise) for promise in report.promises))
            for name, report in reports.items()
        ),
        one_scale=True,
        limit=1.0,
    )


def _promised(promise: Promise) -> Bar:
    """A limit of 0 has no shares: none of it is used, or all that the picture has room for."""
    share = promise.value / promise.limit if promise.limit > 0 else 0.0 if promise.held else math.inf
    kind = Kind.HELD if promise.held else Kind.MISSED
    measured = f"{number(promise.value)} of {number(promise.limit)} {promise.unit}".rstrip()
    return Bar(
        promise.name,
        min(max(share, 0.0), CUT),
        f"{measured}: {kind}",
        kind,
        ((Mark.ARROW, CUT),) if share > CUT else (),
    )


def latency(report: Report) -> Picture:
    """The median of every way, a panel for each setting: `setting: way`."""
    named = [(figure.name.partition(": "), figure) for figure in report.figures]
    return Picture(
        "latency",
        report.title,
        f"Bars end at p50, ticks are p95, diamonds p99. {_where(report)}",
        "ms",
        _panels((setting, _measured(way, figure)) for (setting, _, way), figure in named),
        one_scale=False,
    )


def throughput(report: Report) -> Picture:
    """The answers of every system, a panel for each number of callers: `system, callers`."""
    named = [(figure.name.rpartition(", "), figure) for figure in report.figures]
    return Picture(
        "throughput",
        report.title,
        _where(report),
        "answers/s",
        _panels((callers, _measured(system, figure)) for (system, _, callers), figure in named),
        one_scale=True,
    )


def accuracy(report: Report) -> Picture:
    """Both word error rates for each language, a panel for each setting: `setting, language`."""
    highest = {
        setting: promise.value
        for promise in report.promises
        for setting, _, what in [promise.name.partition(": ")]
        if what == INTERVAL
    }
    bars: list[tuple[str, Bar]] = []
    for figure in report.figures:
        setting, _, language = figure.name.rpartition(", ")
        if figure.unit != WER:
            continue
        found = THEIR_RATE.search(figure.spread)
        theirs = float(found[1]) if found else None
        high = highest.get(setting) if language == "all" and theirs is not None else None
        words = f"{figure.value:.2f} %"
        marks: tuple[tuple[Mark, float], ...] = ()
        if theirs is not None and high is not None:
            marks = ((Mark.TICK, theirs + high),)
            words += f": {figure.value - theirs:+.2f} points, {high:+.2f} at most"
        bars.append((setting, Bar(f"{language}: {OURS}", figure.value, words, Kind.OURS, marks)))
        if theirs is not None:
            bars.append((setting, Bar(f"{language}: faster-whisper", theirs, f"{theirs:.2f} %", Kind.OTHER)))
    return Picture(
        "accuracy",
        "Word error rates",
        "A tick is the upper end of the 95 % interval of the difference to faster-whisper. " + _where(report),
        "% of words",
        _panels(bars),
        one_scale=True,
    )


PICTURES: Final[Mapping[str, Callable[[Report], Picture]]] = {
    "latency": latency,
    "throughput": throughput,
    "accuracy": accuracy,
}


def _where(report: Report) -> str:
    return f"{report.machine}; load average {report.load_average}"


def _measured(way: str, figure: Figure) -> Bar:
    """*figure* as it is, with those quantiles of its spread that have its unit."""
    at = {name: float(value) for name, value, unit in QUANTILE.findall(figure.spread) if unit == figure.unit}
    marks = tuple((mark, at[name]) for name, mark in QUANTILE_MARKS.items() if name in at)
    words = f"{number(figure.value)} {figure.unit}" + (f"; {figure.spread}" if figure.spread else "")
    return Bar(way, figure.value, words, Kind.OURS if way.startswith(OURS) else Kind.OTHER, marks)


def _panels(bars: Iterable[tuple[str, Bar]]) -> tuple[Panel, ...]:
    """Bars by the title of their panel, both in the order they come in."""
    by_title: dict[str, list[Bar]] = {}
    for title, bar in bars:
        by_title.setdefault(title, []).append(bar)
    return tuple(Panel(title, tuple(found)) for title, found in by_title.items())
