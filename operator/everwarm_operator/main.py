"""The program `everwarm-operator`: settings from the environment, one control loop, one exit code.

0 after SIGTERM, 1 when it cannot go on (its last line of log says why), 2 for a wrong command line. Whatever it did not
finish stands in the cluster as it was; the next one looks at everything and goes on from there.
"""

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from everwarm_core import telemetry
from everwarm_core.environment import PREFIX, environment_error
from everwarm_core.errors import EverwarmError, PlatformError
from everwarm_core.logs import configure_logging
from everwarm_core.registry.access import Role
from everwarm_core.telemetry import Telemetry
from everwarm_operator.desired.platform_secret import url_key
from everwarm_operator.server import serving
from everwarm_operator.settings import VERSION, OperatorSettings

if TYPE_CHECKING:
    from everwarm_operator.controller import Controller

log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    """Run the operator until it is told to stop."""
    match sys.argv[1:]:
        case []:
            sys.exit(_run())
        case ["--help" | "-h"]:
            sys.stdout.write(help_text())
        case ["--version"]:
            sys.stdout.write(f"{VERSION}\n")
        case arguments:
            sys.stderr.write(
                f"everwarm-operator takes no arguments, got {' '.join(arguments)!r}; see --help\n"
            )
            sys.exit(2)


def help_text() -> str:
    """What `--help` prints: every variable, from the settings' own descriptions."""
    lines = [
        "everwarm-operator: WhisperModel resources become pods that are Ready only when proven warm.",
        "",
        "It takes no arguments; everything is an environment variable:",
        "",
    ]
    for name, field in OperatorSettings.model_fields.items():
        default = "" if field.is_required() or field.default in (None, "", ()) else f" [{field.default}]"
        lines += [f"  {PREFIX}{name.upper()}{default}", f"      {field.description}"]
    lines += [
        "",
        "The cluster is the one it runs in, else that of KUBECONFIG. Traces and metrics go where",
        "OTEL_EXPORTER_OTLP_ENDPOINT says; /metrics works either way.",
        "",
        "Examples:",
        "  EVERWARM_REDIS_URL=redis://valkey:6379 everwarm-operator",
        "  KUBECONFIG=~/.kube/config EVERWARM_OPERATOR_NAMESPACES=speech \\",
        "      EVERWARM_REDIS_URL=redis://127.0.0.1:6379 everwarm-operator",
    ]
    return "\n".join(lines) + "\n"


def _run() -> int:
    configure_logging()
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it tells of each event that a handler has succeeded
    failure: EverwarmError | None = None
    try:
        try:
            settings = OperatorSettings()
        except ValidationError as error:
            raise environment_error("the operator", error) from error
        _operate(settings)
    except EverwarmError as error:
        failure = error
    except Exception:  # the edge of the program: a defect, told with its trace
        log.exception("operator.crashed")
        return 1
    if failure is not None:
        log.error("operator.failed", reason=str(failure), error=type(failure).__name__)
        return 1
    log.info("operator.ended")
    return 0


def _operate(settings: OperatorSettings) -> None:
    import uvloop

    exported = telemetry.start("everwarm-operator", version=VERSION)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(operate(settings, exported))
    finally:
        exported.shutdown()


async def operate(settings: OperatorSettings, exported: Telemetry) -> None:
    """One operator's whole life, until SIGTERM or SIGINT. Raises PlatformError when it cannot begin, or its kind goes."""
    from everwarm_operator.cluster import Cluster, Refused
    from everwarm_operator.controller import Controller
    from everwarm_operator.handlers import KIND, watch
    from everwarm_operator.platform_secrets import PlatformSecrets

    stop, listed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Cluster() as cluster:
        secrets, redis_url = None, settings.redis_url
        if home := settings.home():
            secrets = PlatformSecrets(
                cluster, home, settings.registry(), refresh_s=settings.operator_resync_seconds
            )
            try:
                held = await secrets.ensure()
            except Refused as error:
                raise PlatformError(f"Secret {home.secret_name!r} cannot be seen to: {error}") from error
            redis_url = redis_url or held[url_key(Role.OPERATOR)]
        assert redis_url is not None, "the settings say so"
        controller = Controller(
            cluster,
            settings.platform(),
            secrets,
            redis_url=redis_url,
            workers=settings.operator_workers,
            resync_s=settings.operator_resync_seconds,
        )
        async with asyncio.TaskGroup() as group:
            working = group.create_task(_work(controller, settings, listed, exported), name="work")

            async def end_work() -> None:
                working.cancel()
                await asyncio.wait((working,))

            is_there = await watch(
                controller,
                cluster,
                settings.operator_namespaces,
                ready=listed,
                stop=stop,
                before_end=end_work,
            )
            await end_work()
    if not is_there:
        raise PlatformError(
            f"{KIND} is served no more: its CRD was deleted, and with it all that was declared"
        )


async def _work(
    controller: "Controller", settings: OperatorSettings, listed: asyncio.Event, exported: Telemetry
) -> None:
    """Answer at the operator's own door and reconcile, until cancelled."""
    async with serving(
        settings.operator_host, settings.operator_port, is_ready=listed.is_set, exported=exported
    ) as port:
        log.info("operator.started", version=VERSION, port=port, pid=os.getpid())
        await controller.run()
