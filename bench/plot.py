"""Draw what lies in bench/results into docs/images/bench: `python -m bench plot`.

The same results give the same bytes, so git shows a picture as changed only when a figure did: ids are salted with a constant,
no date is written, sizes are inches rather than what a layout engine makes of the fonts at hand, and settings of the user
do not count. Text stays text: it can be searched, and a reader's font takes the place of ours if that is missing. The
background is white on purpose, for readers with a dark page.

What a picture shows is decided in `bench.pictures`; nothing else imports matplotlib.
"""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.pictures import PICTURES, Bar, Kind, Panel, Picture, pictures
from bench.report import RESULTS, Report

IMAGES: Final = Path(__file__).parents[1] / "docs" / "images" / "bench"

STYLE: Final[Mapping[str, Any]] = {
    "svg.hashsalt": "everwarm",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
}
COLOURS: Final = {Kind.HELD: "#0072b2", Kind.MISSED: "#d55e00", Kind.OURS: "#0072b2", Kind.OTHER: "#999999"}

# Inches.
WIDTH: Final = 11.0
LEFT: Final = 4.2  # labels
RIGHT: Final = 3.2  # words
TOP: Final = 0.7
BOTTOM: Final = 0.5
ROW: Final = 0.21
HEADING: Final = 0.3
TICKS: Final = 0.25  # below each panel that has its own scale

MARGIN: Final = 1.03  # x the longest bar


class NoResults(Exception):
    """There is nothing to draw."""


def plot(results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw all that *results* has something for; returns the files, all in *images*. Raises NoResults."""
    reports = {path.stem: Report.read(path) for path in sorted(results.glob("*.json"))}
    if not reports:
        raise NoResults(f"no results in {results}: run `python -m bench NAME` or `python -m bench all` first")
    for name in (name for name in PICTURES if name not in reports):
        sys.stderr.write(f"bench: plot: no results of {name}: run `python -m bench {name}` first\n")
    images.mkdir(parents=True, exist_ok=True)
    drawn = []
    for picture in pictures(reports):
        drawn.append(images / f"{picture.name}.svg")
        drawn[-1].write_text(svg(picture), encoding="utf-8", newline="\n")
    return drawn


def svg(picture: Picture) -> str:
    """The picture as the text of an SVG file."""
    rows = sum(len(panel.bars) for panel in picture.panels)
    gap = HEADING + (0.0 if picture.one_scale else TICKS)
    height = TOP + BOTTOM + rows * ROW + len(picture.panels) * gap
    written = io.StringIO()
    with matplotlib.style.context(["default", dict(STYLE)]):
        figure = Figure(figsize=(WIDTH, height), facecolor="white")
        figure.text(0.2 / WIDTH, 1 - 0.28 / height, picture.title, fontsize=13, fontweight="bold")
        figure.text(0.2 / WIDTH, 1 - 0.5 / height, picture.subtitle, color="#444444")
        y = height - TOP
        for panel in picture.panels:
            tall = len(panel.bars) * ROW
            y -= HEADING + tall
            axes = figure.add_axes(
                (LEFT / WIDTH, y / height, (WIDTH - LEFT - RIGHT) / WIDTH, tall / height), facecolor="white"
            )
            _draw_panel(axes, panel, picture)
            y -= gap - HEADING
        figure.savefig(
            written,
            format="svg",
            metadata={"Title": picture.title, "Creator": "python -m bench plot", "Date": None},
        )
    return written.getvalue()


def _draw_panel(axes: Axes, panel: Panel, picture: Picture) -> None:
    compared = picture.panels if picture.one_scale else (panel,)
    end = max(picture.limit or 0.0, *(bar.reach for each in compared for bar in each.bars)) * MARGIN
    is_last = panel is picture.panels[-1]
    axes.set_xlim(0, end or 1.0)
    axes.set_ylim(len(panel.bars) - 0.5, -0.5)  # the first bar on top
    axes.set_yticks([])
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_title(
        panel.title, loc="left", x=-(LEFT - 0.2) / (WIDTH - LEFT - RIGHT), fontweight="bold", pad=4
    )
    axes.tick_params(axis="x", length=0, labelbottom=is_last or not picture.one_scale)
    if is_last:
        axes.set_xlabel(picture.axis)
    for row, bar in enumerate(panel.bars):
        _draw_bar(axes, row, bar)
    if picture.limit is not None:
        axes.axvline(picture.limit, color="black", linewidth=1.2)


def _draw_bar(axes: Axes, row: int, bar: Bar) -> None:
    axes.barh(row, bar.length, height=0.62, color=COLOURS[bar.kind])
    if bar.marks:
        axes.hlines(row, bar.length, bar.reach, color="black", linewidth=0.8)
    for mark, at in bar.marks:
        axes.plot([at], [row], marker=mark.value, color="black", markersize=5, clip_on=False)
    beside = axes.get_yaxis_transform()  # x in widths of the panel, y in rows
    axes.text(-0.02, row, bar.label, transform=beside, ha="right", va="center")
    weight = "bold" if bar.kind is Kind.MISSED else "normal"
    axes.text(1.02, row, bar.words, transform=beside, ha="left", va="center", fontweight=weight)
