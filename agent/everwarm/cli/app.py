"""The commands and their options; what they do is in the module of the same name.

Errors of Everwarm's own tree are told in one line on stderr and end with status 1; wrong usage ends with 2, as
everywhere; anything else is a defect and shows its traceback.
"""

import os
import sys
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from everwarm.api_keys import MAX_LIMIT, MAX_NAME_CHARS, is_name
from everwarm.cli.endpoint import HTTP_SCHEMES, REDIS_SCHEMES, is_url
from everwarm_core.errors import EverwarmError

INTERRUPTED = 130  # 128 + SIGINT, the shell's custom

app = typer.Typer(
    name="everwarm",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""[bold]Examples[/bold]

everwarm demo [dim]# before and after, on this machine[/dim]

everwarm up -f examples/whispermodel.yaml [dim]# pods, registry and gateway, until Ctrl-C[/dim]

everwarm transcribe call.wav --format srt [dim]# on what `everwarm up` started[/dim]

everwarm status --watch""",
)


def _checked_url(given: str | None) -> str | None:
    if given is not None and not is_url(given, HTTP_SCHEMES):
        raise typer.BadParameter("write it as http://host:8080")
    return given


def _checked_redis_url(given: str | None) -> str | None:
    if given is not None and not is_url(given, REDIS_SCHEMES):
        raise typer.BadParameter("write it as redis://host:6379/0")
    return given


def _checked_name(given: str | None) -> str | None:
    if given is not None and not is_name(given):
        raise typer.BadParameter(f"use letters, digits and any of ._@/+-, at most {MAX_NAME_CHARS}")
    return given


Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        callback=_checked_url,
        metavar="URL",
        help="A gateway, or a single pod. [dim](EVERWARM_BASE_URL)[/dim]",
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        callback=_checked_redis_url,
        metavar="URL",
        help="The registry. [dim](EVERWARM_REDIS_URL)[/dim]",
    ),
]


class Format(StrEnum):
    """The forms of a transcript; the names are OpenAI's."""

    TEXT = "text"
    JSON = "json"
    VERBOSE_JSON = "verbose_json"
    SRT = "srt"
    VTT = "vtt"


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(f"everwarm {version('everwarm')}")
        raise typer.Exit


@app.callback()
def everwarm(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Speech-to-text for voice agents, from pods that are already warm."""


@app.command()
def demo(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="The small model alone, in half a minute.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Play real speech three ways - a model per utterance, per worker, per pod - and compare them.

    Ends with 0 only if every claim held.
    """
    from everwarm.cli.demo import show_demo

    raise typer.Exit(show_demo(is_quick=quick, as_json=json))


@app.command()
def up(
    *,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="WhisperModel resources in YAML; may be repeated. Default: one pod of tiny.en.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The gateway's port on 127.0.0.1; 0 takes a free one.")
    ] = 8080,
    redis_url: Annotated[
        str | None,
        typer.Option(
            "--redis-url",
            callback=_checked_redis_url,
            metavar="URL",
            help="A registry to use instead of an embedded Valkey.",
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas", "-n", min=1, max=64, help="Pods of each resource, whatever its file says."
        ),
    ] = None,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Show what pods log; -vv: all of it.")
    ] = 0,
) -> None:
    """Run registry, pods and gateway on this machine, until Ctrl-C.

    Prints `everwarm ready: URL` once every pod is warm. The first Ctrl-C drains, the second one ends at once.
    """
    from everwarm.cli.up import run_up

    run_up(tuple(file or ()), port=port, redis_url=redis_url, replicas=replicas, verbosity=verbose)


@app.command()
def transcribe(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="Audio files."),
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Default: the only model that is served."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", "-l", metavar="CODE", help="Such as en, or auto. Default: the model's."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", "-o", help="What to print.")] = Format.TEXT,
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="Also time each word (in verbose_json).")
    ] = False,
    url: Url = None,
    redis_url: RedisUrl = None,
) -> None:
    """Transcribe audio files on warm pods and print the transcripts."""
    from everwarm.cli.transcribe import Job, run_transcribe

    job = Job(tuple(files), model, language, form.value, word_timestamps)
    raise typer.Exit(run_transcribe(job, url=url, redis_url=redis_url))


@app.command()
def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with --watch a line per change.")] = False,
    url: Url = None,
    redis_url: RedisUrl = None,
) -> None:
    """Show models, pods and languages: what is warm, how long it took, how busy it is."""
    from everwarm.cli.status import run_status

    run_status(is_watching=watch, as_json=json, url=url, redis_url=redis_url)


@app.command()
def gateway(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [dim](EVERWARM_GATEWAY_HOST)[/dim]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port; 0 takes a free one. [dim](EVERWARM_GATEWAY_PORT)[/dim]"),
    ] = None,
    redis_url: RedisUrl = None,
    namespace: Annotated[
        str | None, typer.Option(help="The registry's namespace. [dim](EVERWARM_NAMESPACE)[/dim]")
    ] = None,
) -> None:
    """Run the OpenAI-shaped HTTP gateway alone, in front of a registry.

    Everything else is set by EVERWARM_GATEWAY_*; see docs/reference/settings.md.
    """
    from everwarm.cli.gateway import run

    run(gateway_host=host, gateway_port=port, redis_url=redis_url, namespace=namespace)


@app.command(
    epilog="""[bold]Examples[/bold]

everwarm key --name call-centre >> keys [dim]# adds the line and shows the key[/dim]

everwarm key --name trial --concurrent 4 --audio-seconds-per-minute 600

everwarm key --json [dim]# both, for a program[/dim]"""
)
def key(
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="LABEL", callback=_checked_name, help="What logs call its caller."),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option("--concurrent", metavar="N", min=1, max=MAX_LIMIT, help="Utterances at a time."),
    ] = None,
    audio_seconds_per_minute: Annotated[
        int | None,
        typer.Option(
            "--audio-seconds-per-minute",
            metavar="N",
            min=1,
            max=MAX_LIMIT,
            help="Seconds of audio, in any minute on the average.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: key and line.")] = False,
) -> None:
    """Make an API key for the gateway: the key, shown this once on stderr, and the line that lets it in, on stdout.

    The line holds the key's hash. It goes into the file of EVERWARM_GATEWAY_API_KEYS_FILE, in a cluster a Secret.
    Limits are those of each gateway; without one nothing limits the key.
    """
    from everwarm.cli.key import run_key

    run_key(name or "", concurrent, audio_seconds_per_minute, as_json=json)


def main() -> None:
    """The console script."""
    try:
        app()
    except EverwarmError as error:
        sys.stderr.write(f"everwarm: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader left (`everwarm status | head`); the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
