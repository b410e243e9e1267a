"""What happens on the platform, as a person wants to see it: a bar per pod on a terminal, a line per event elsewhere.

`describe` is pure and decides what is worth a line at which verbosity; the reporters only draw.
"""

import logging
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from everwarm.platform.events import (
    GatewayStarted,
    PlatformEvent,
    PodChanged,
    PodExited,
    PodLogged,
    PodStarted,
    RegistryExited,
    RegistryStarted,
)
from everwarm_core.registry.records import PodRecord, PodState

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.NOTSET)  # of pods' log lines shown, by verbosity
_STEPS: Final = {PodState.LOADING: 1, PodState.WARMING: 2, PodState.WARM: 3}  # of a pod's bar, whose end is 3
_NEWS_STATES: Final = frozenset({PodState.WARM, PodState.DRAINING, PodState.FAILED})


def describe(event: PlatformEvent, *, verbosity: int) -> str | None:
    """The line for *event*; None when it is not worth one at *verbosity* (0 to 2)."""
    match event:
        case RegistryStarted():
            kind = "embedded Valkey" if event.is_embedded else "given"
            return f"registry: {without_password(event.url)} ({kind})"
        case RegistryExited():
            return f"registry: Valkey died ({event.end.cause}) and is started again on the same port"
        case PodStarted():
            return f"{event.pod}: started, pid {event.pid}"
        case PodChanged():
            return (
                f"{event.pod}: {state_of(event.record)}"
                if event.record.state in _NEWS_STATES or verbosity
                else None
            )
        case PodExited():
            return (
                f"{event.pod}: died ({event.end.cause}) and is started again in {event.end.retry_in_s:g} s: "
                f"{event.reason}"
            )
        case PodLogged():
            # Its reason comes with the line that the pod died.
            is_told = event.line.event == "pod.failed" and not verbosity
            shown = event.line.level >= _LEVELS[min(verbosity, 2)] and not is_told
            return f"{event.pod}: {event.line}" if shown else None
        case GatewayStarted():
            return f"gateway: listening at {event.url}" if verbosity else None


def state_of(record: PodRecord) -> str:
    """A pod's state with what is known of its start."""
    if record.state is not PodState.WARM:
        return record.state.value
    return f"warm for {', '.join(record.languages)}: loaded in {record.load_s:.1f} s, proven in {record.warm_s:.1f} s"


def without_password(url: str) -> str:
    """*url* without its user and password, to be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Reporter(Protocol):
    """Shows events; inside `with` the platform is starting."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    def on_event(self, event: PlatformEvent) -> None:
        """Show *event*, if it is worth it."""


class PlainLines:
    """A line per event: for logs, pipes and the time after the start."""

    def __init__(self, console: Console, verbosity: int) -> None:
        self._console = console
        self._verbosity = verbosity

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_event(self, event: PlatformEvent) -> None:
        """See Reporter."""
        if line := describe(event, verbosity=self._verbosity):
            self._console.print(escape(line), soft_wrap=True)


class LoadBars:
    """A bar per pod while the platform starts; afterwards, and for everything that is no progress, lines."""

    def __init__(self, console: Console, verbosity: int) -> None:
        self._lines = PlainLines(console, verbosity)
        self._is_starting = False
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        self._is_starting = True
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_starting = False
        self._progress.stop()

    def on_event(self, event: PlatformEvent) -> None:
        """See Reporter."""
        match event:
            case PodStarted() if event.pod not in self._bars:
                self._bars[event.pod] = self._progress.add_task(event.pod, total=3, state="starting")
            case PodChanged() if self._is_starting:
                self._show(event.pod, state_of(event.record), done=_STEPS.get(event.record.state, 0))
            case PodLogged() if self._is_starting and event.line.event == "weights.progress":
                self._show(event.pod, transfer(event.line.attributes), done=0)
            case _:
                self._lines.on_event(event)

    def _show(self, pod: str, state: str, *, done: int) -> None:
        self._progress.update(self._bars[pod], completed=done, state=escape(state))


def transfer(attributes: "dict[str, object] | object") -> str:
    """A pod's `weights.progress` event in words."""
    fields = attributes if isinstance(attributes, dict) else {}
    done, total = fields.get("done_bytes"), fields.get("total_bytes")
    if not isinstance(done, int | float) or not isinstance(total, int | float):
        return str(fields.get("what", "weights"))
    return f"{fields.get('what', 'weights')}: {done / 1e6:.0f} of {total / 1e6:.0f} MB"
