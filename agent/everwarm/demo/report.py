"""The results as tables and sentences for a terminal, and as JSON for machines."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from everwarm.demo.measure import MEMORY_KIND
from everwarm.demo.results import Way, WayResult
from everwarm.demo.run import SceneResult

_TITLES: Final = {
    Way.BEFORE: "before\nmodel per utterance",
    Way.CACHED: "cached\nmodel per worker",
    Way.EVERWARM: "Everwarm\nmodel per pod",
}


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.0f} MB"


_ROWS: Final[tuple[tuple[str, Callable[[WayResult], float], Callable[[float], str]], ...]] = (
    ("first request", lambda way: way.first_s, _seconds),
    ("later requests", lambda way: way.later_s, _seconds),
    ("memory, peak", lambda way: way.memory_peak, _megabytes),
    ("memory, steady", lambda way: way.memory_steady, _megabytes),
    ("  in the workers", lambda way: way.memory_workers, _megabytes),
    ("CPU per utterance", lambda way: way.cpu_per_utterance_s, _seconds),
    ("CPU, peak", lambda way: way.cpu_peak_percent, lambda value: f"{value:.0f} %"),
    ("model loads", lambda way: way.loads, lambda value: f"{value:.0f}"),
)


def comparison(result: SceneResult) -> Table:
    """The original system's rows, one column a way; beneath each figure how it relates to `before`."""
    utterances = len(result.ways[0].played)
    workers = len(result.ways[0].workers)
    table = Table(
        title=f"{result.model}: {utterances} utterances, {workers} workers",
        caption=f"x: times the figure of `before`; memory is {MEMORY_KIND.upper()} over all processes of a way",
    )
    table.add_column("")
    for way in result.ways:
        table.add_column(_TITLES[way.way], justify="right")
    for title, figure, shown in _ROWS:
        reference = figure(result.ways[0])
        cells = [shown(reference)]
        for way in result.ways[1:]:
            ratio = f"  {figure(way) / reference:.2f} x" if reference else ""
            cells.append(f"{shown(figure(way))}[dim]{ratio}[/dim]")
        table.add_row(title, *cells)
    table.add_row("word errors", *(f"{way.word_error_rate:.1%}" for way in result.ways))
    return table


def who_served(result: SceneResult) -> Table:
    """Utterances by pod and worker, the Everwarm way."""
    everwarm = result.ways[-1]
    table = Table(title=f"{result.model}: which pod served what")
    table.add_column("pod")
    for worker in everwarm.workers:
        table.add_column(f"worker {worker}", justify="right")
    table.add_column("all", justify="right")
    table.add_column("median", justify="right")
    for pod in everwarm.pods:
        by_worker = everwarm.served.get(pod, {})
        counts = [by_worker.get(worker, 0) for worker in everwarm.workers]
        took = [played.answer.seconds for played in everwarm.played if played.answer.served_by == pod]
        table.add_row(
            pod, *map(str, counts), str(sum(counts)), _seconds(statistics.median(took)) if took else ""
        )
    return table


def proof(result: SceneResult) -> RenderableType:
    """Each claim with its evidence, in words."""
    lines = []
    for claim in result.claims:
        mark = Text("holds  ", style="green") if claim.held else Text("BROKEN ", style="bold red")
        lines.append(mark + Text(f"{claim.sentence}: {claim.evidence}."))
    return Group(*lines)


def broken(results: Sequence[SceneResult]) -> tuple[str, ...]:
    """The claims that did not hold, as `model: claim`."""
    return tuple(f"{r.model}: {claim.name}" for r in results for claim in r.claims if not claim.held)


def as_json(results: Sequence[SceneResult]) -> dict[str, Any]:
    """Everything measured and claimed."""
    return {
        "held": not broken(results),
        "broken": list(broken(results)),
        "memory_kind": MEMORY_KIND,
        "models": [
            {
                "model": result.model,
                "ways": [way.summary() for way in result.ways],
                "claims": [
                    {
                        "name": claim.name,
                        "sentence": claim.sentence,
                        "evidence": claim.evidence,
                        "held": claim.held,
                    }
                    for claim in result.claims
                ],
            }
            for result in results
        ],
    }
