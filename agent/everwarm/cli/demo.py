"""`everwarm demo`: the play, a bar while it runs, then the tables and what they prove."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from everwarm.cli.signals import until_signalled
from everwarm.cli.terminal import answers, notices, write_json
from everwarm.demo.report import as_json as results_as_json
from everwarm.demo.report import broken, comparison, proof, who_served
from everwarm.demo.results import Way
from everwarm.demo.run import SceneResult, Step, run_scene, scenes
from everwarm.demo.weights import has_base_wheels
from everwarm_core.errors import PlatformError
from everwarm_core.logs import configure_logging

INTERRUPTED: Final = 130

_DOING: Final = {
    Way.BEFORE: "a model per utterance",
    Way.CACHED: "a model per worker",
    Way.EVERWARM: "a model per pod",
}


def show_demo(*, is_quick: bool, as_json: bool) -> int:
    """Run the demo and print it; 0 when every claim held. Raises EverwarmError when it cannot run."""
    if missing := [name for name in ("everwarm_stt", "faster_whisper") if find_spec(name) is None]:
        raise PlatformError(f"the demo needs {' and '.join(missing)}: pip install 'everwarm[demo]'")
    configure_logging(level=logging.getLevelName(logging.ERROR))
    results = asyncio.run(_run(is_quick=is_quick))
    if results is None:
        return INTERRUPTED
    failed = broken(results)
    if as_json:
        write_json(results_as_json(results))
    else:
        _print(answers(), results)
    if failed:
        notices().print(f"everwarm: not every claim held: {'; '.join(failed)}", markup=False, style="red")
        return 1
    return 0


async def _run(*, is_quick: bool) -> tuple[SceneResult, ...] | None:
    results: list[SceneResult] = []
    async with until_signalled() as signals:
        with _progress(notices()) as on_step:
            for scene in scenes(is_quick=is_quick, has_base=has_base_wheels()):
                result = await run_scene(scene, on_step=on_step)
                results.append(result)
    return None if signals.count else tuple(results)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Step], None]]:
    """Shows steps: a bar per way on a terminal, a line per way elsewhere."""
    if not console.is_terminal:

        def tell(step: Step) -> None:
            if step.done == 0:
                console.print(f"{step.model}: {_DOING[step.way]}, {step.total} utterances", markup=False)

        yield tell
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        started: dict[tuple[str, Way], object] = {}

        def draw(step: Step) -> None:
            key = (step.model, step.way)
            if key not in started:
                started[key] = bars.add_task(f"{step.model}: {_DOING[step.way]}", total=step.total)
            bars.update(started[key], completed=step.done)  # type: ignore[arg-type]  # a TaskID

        yield draw


def _print(console: Console, results: tuple[SceneResult, ...]) -> None:
    for result in results:
        console.print(comparison(result), "")
        console.print(who_served(result), "")
        console.print(f"What this proves with {result.model}:", style="bold")
        console.print(proof(result), "")
