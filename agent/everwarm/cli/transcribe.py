"""`everwarm transcribe`: files in, transcripts out, by the same client that agents use."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from everwarm import Client
from everwarm.cli.endpoint import Endpoint, choose
from everwarm.cli.terminal import notices, write_text
from everwarm.gateway.app import VERSION
from everwarm.platform.state import running_states, state_folder
from everwarm.settings import AgentSettings
from everwarm_core import telemetry
from everwarm_core.errors import EverwarmError, InvalidParameter, PlatformError
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.transcript import Granularities, ResponseFormat, render

ASK_TIMEOUT_S: Final = 5.0  # for the list of models, which is in the gateway's memory
MAX_ANSWER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What to transcribe and how to print it; model None: the only one there is."""

    files: tuple[Path, ...]
    model: str | None
    language: str | None
    form: str
    word_timestamps: bool


def run_transcribe(job: Job, *, url: str | None, redis_url: str | None) -> int:
    """Print the transcripts in order; 1 when any file failed. Raises EverwarmError when nothing answers."""
    endpoint = choose(
        url=url, redis_url=redis_url, environ=os.environ, running=running_states(state_folder(os.environ))
    )
    exported = telemetry.start("everwarm-cli", version=VERSION) if telemetry.is_exporting() else None
    try:
        return asyncio.run(_transcribe(job, endpoint))
    finally:
        if exported:
            exported.shutdown()


async def _transcribe(job: Job, endpoint: Endpoint) -> int:
    names = await served_names(endpoint)
    model = job.model or only_name(names)
    failed = 0
    async with Client(
        redis_url=endpoint.redis_url, base_url=endpoint.url, namespace=endpoint.namespace
    ) as client:
        for path in job.files:
            try:
                with notices().status(f"transcribing {path.name}"):
                    text = await _one(client, job, path, model)
            except EverwarmError as error:
                notices().print(f"everwarm: {path}: {error}", markup=False, soft_wrap=True)
                failed += 1
                continue
            if len(job.files) > 1:
                write_text(f"==> {path} <==\n")
            write_text(text if text.endswith("\n") else f"{text}\n")
    return 1 if failed else 0


async def _one(client: Client, job: Job, path: Path, model: str) -> str:
    transcript = await client.transcribe(
        path, model=model, language=job.language, word_timestamps=job.word_timestamps
    )
    return render(transcript, ResponseFormat(job.form), Granularities(words=job.word_timestamps))


async def served_names(endpoint: Endpoint) -> tuple[str, ...]:
    """The names that can be asked for; raises PlatformError or RegistryUnavailable when nobody answers there."""
    if endpoint.redis_url:
        async with RegistryReader(endpoint.redis_url, endpoint.namespace) as reader:
            return tuple(sorted((await reader.read_all()).names))
    assert endpoint.url is not None
    return tuple(str(entry["id"]) for entry in await served_models(endpoint.url))


async def served_models(url: str) -> list[dict[str, object]]:
    """The entries of /v1/models at *url*. Raises PlatformError when there are none to be had."""
    api_key = AgentSettings().api_key
    headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)) as session,
            session.get(f"{url.rstrip('/')}/v1/models", headers=headers) as answer,
        ):
            if answer.status != 200:
                raise PlatformError(
                    f"{url} answers {answer.status} when asked for its models; is it Everwarm's?"
                )
            listed = await answer.json(content_type=None)
            return [entry for entry in listed["data"] if isinstance(entry.get("id"), str)]
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise PlatformError(
            f"nothing answers at {url}; start it with `everwarm up`, or name another place with --url or --redis-url"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlatformError(f"{url} answers, but not as Everwarm does; check the URL") from error


def only_name(names: Sequence[str]) -> str:
    """The name to use when none was given; raises InvalidParameter when there is a choice."""
    if len(names) == 1:
        return names[0]
    raise InvalidParameter(
        "--model", f"name one of {', '.join(names)}" if names else "no model is served yet"
    )
