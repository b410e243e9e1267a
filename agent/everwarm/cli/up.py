"""`everwarm up`: the local platform in the foreground.

Standard output carries one line for programs, `everwarm ready: URL`, and what to try next; everything else goes to
stderr: bars while pods load on a terminal, plain lines elsewhere, and what happens later (a pod that died and came
back) as it happens. The first SIGINT or SIGTERM drains, a second one kills.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from everwarm.cli.progress import LoadBars, PlainLines, Reporter
from everwarm.cli.signals import until_signalled
from everwarm.cli.terminal import notices, write_text
from everwarm.gateway.app import VERSION
from everwarm.platform.plan import PodPlan, default_resources, plan
from everwarm.platform.platform import LocalPlatform, running_platform
from everwarm.platform.state import RunningState, announced, state_folder
from everwarm_core import telemetry
from everwarm_core.cpus import available_cpus
from everwarm_core.logs import configure_logging
from everwarm_core.spec import WhisperModel, load_resources
from everwarm_core.telemetry import Telemetry

_LOG_LEVELS: Final = ("ERROR", "INFO", "DEBUG")  # of this process, which runs the gateway, by -v


def run_up(
    files: Sequence[Path], *, port: int, redis_url: str | None, replicas: int | None, verbosity: int
) -> None:
    """Run the platform until a signal. Raises EverwarmError when it cannot start."""
    plans = plan(_resources(files, replicas), cpus=available_cpus())
    configure_logging(level=_LOG_LEVELS[min(verbosity, 2)])
    exported = telemetry.start("everwarm-gateway", version=VERSION)
    try:
        asyncio.run(_run(plans, exported, port=port, redis_url=redis_url, verbosity=verbosity))
    finally:
        exported.shutdown()


def _resources(files: Sequence[Path], replicas: int | None) -> tuple[WhisperModel, ...]:
    declared = tuple(resource for path in files for resource in load_resources(path)) or default_resources()
    if replicas is None:
        return declared
    return tuple(
        resource.model_copy(update={"spec": resource.spec.model_copy(update={"replicas": replicas})})
        for resource in declared
    )


async def _run(
    plans: tuple[PodPlan, ...], exported: Telemetry, *, port: int, redis_url: str | None, verbosity: int
) -> None:
    console = notices()
    report: Reporter = LoadBars(console, verbosity) if console.is_terminal else PlainLines(console, verbosity)
    namespace = os.environ.get("EVERWARM_NAMESPACE") or "local"
    async with (
        until_signalled() as signals,
        running_platform(
            plans,
            port=port,
            redis_url=redis_url,
            namespace=namespace,
            on_event=report.on_event,
            metrics_page=exported.metrics_page,
        ) as platform,
    ):
        signals.on_first = lambda: _tell_drain(console)
        signals.hasten = platform.hasten
        await platform.wait_for(lambda platform: bool(platform.url))
        with announced(_state(platform), state_folder(os.environ)):
            with report:
                await platform.wait_until_warm()
            write_text(f"everwarm ready: {platform.url}\n")
            _tell_next(console, platform, plans)
            await platform.wait_until_lost()


def _state(platform: LocalPlatform) -> RunningState:
    return RunningState(
        pid=os.getpid(),
        started=time.time(),
        url=platform.url,
        redis_url=platform.redis_url,
        namespace=platform.namespace,
    )


def _tell_next(console: Console, platform: LocalPlatform, plans: tuple[PodPlan, ...]) -> None:
    model = plans[0].resource.name if plans else "tiny.en"
    console.print(
        escape(
            f"try:\n"
            f"  everwarm transcribe speech.wav --model {model}\n"
            f"  curl -F file=@speech.wav -F model={model} {platform.url}/v1/audio/transcriptions\n"
            f"  everwarm status --watch\n"
            f"Ctrl-C drains and ends."
        ),
        soft_wrap=True,
    )


def _tell_drain(console: Console) -> None:
    console.print("draining; once more ends at once", style="dim")
