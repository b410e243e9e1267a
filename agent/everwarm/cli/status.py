"""`everwarm status`: the registry as a table, once or as it changes; from a gateway alone, less of it."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.live import Live
from rich.table import Table

from everwarm.cli.endpoint import Endpoint, choose_registry
from everwarm.cli.progress import without_password
from everwarm.cli.signals import until_signalled
from everwarm.cli.terminal import answers, write_json
from everwarm.cli.transcribe import served_models
from everwarm.platform.state import running_states, state_folder
from everwarm_core.registry.reader import RegistryReader
from everwarm_core.registry.records import PodRecord, PodState, Snapshot

WATCH_URL_S = 1.0  # a gateway is asked, a registry tells

_STYLES = {PodState.WARM: "green", PodState.FAILED: "red", PodState.DRAINING: "yellow"}


@dataclass(frozen=True, slots=True)
class PodStatus:
    """One pod, as shown; occupancy is busy slots over slots, load_s and warm_s are seconds."""

    pod: str
    model: str
    names: tuple[str, ...]
    languages: tuple[str, ...]
    state: str
    load_s: float
    warm_s: float
    slots: int
    queue: int
    inflight: int
    occupancy: float
    url: str
    node: str
    started: float
    version: str
    boot: str


def run_status(*, is_watching: bool, as_json: bool, url: str | None, redis_url: str | None) -> None:
    """Show the pods, or keep showing them until a signal. Raises EverwarmError when nobody can be asked."""
    endpoint = choose_registry(
        url=url, redis_url=redis_url, environ=os.environ, running=running_states(state_folder(os.environ))
    )
    asyncio.run(_show(endpoint, is_watching=is_watching, as_json=as_json))


async def _show(endpoint: Endpoint, *, is_watching: bool, as_json: bool) -> None:
    if endpoint.redis_url is None:
        await _show_gateway(str(endpoint.url), is_watching=is_watching, as_json=as_json)
        return
    async with RegistryReader(endpoint.redis_url, endpoint.namespace) as reader:
        first = await reader.read_all()  # fails at once when the registry is not there
        if not is_watching:
            _print_once(first, endpoint, as_json=as_json)
            return
        async with until_signalled(), asyncio.TaskGroup() as group:
            group.create_task(reader.run(), name="registry")
            with Live(console=answers(), auto_refresh=False, transient=False) as live:
                snapshot: Snapshot | None = None
                while True:
                    snapshot = await reader.changed(snapshot)
                    if as_json:
                        write_json(as_dict(snapshot, endpoint))
                    else:
                        live.update(table(snapshot, endpoint), refresh=True)


def _print_once(snapshot: Snapshot, endpoint: Endpoint, *, as_json: bool) -> None:
    if as_json:
        write_json(as_dict(snapshot, endpoint))
    else:
        answers().print(table(snapshot, endpoint))


async def _show_gateway(url: str, *, is_watching: bool, as_json: bool) -> None:
    async with until_signalled():
        while True:
            models = await served_models(url)
            if as_json:
                write_json({"url": url, "models": models})
            else:
                answers().print(models_table(url, models))
            if not is_watching:
                return
            await asyncio.sleep(WATCH_URL_S)


def pod_status(pod: PodRecord) -> PodStatus:
    """*pod* as it is shown."""
    busy = min(pod.inflight, pod.slots)
    return PodStatus(
        pod=pod.id,
        model=pod.model,
        names=pod.names,
        languages=pod.languages,
        state=pod.state.value,
        load_s=pod.load_s,
        warm_s=pod.warm_s,
        slots=pod.slots,
        queue=pod.queue,
        inflight=pod.inflight,
        occupancy=busy / max(1, pod.slots),
        url=pod.url,
        node=pod.node,
        started=pod.started,
        version=pod.version,
        boot=pod.boot,
    )


def pods_in(snapshot: Snapshot) -> tuple[PodStatus, ...]:
    """The pods of *snapshot*, by model and age."""
    pods = sorted((lease.pod for lease in snapshot.leases), key=lambda pod: (pod.model, pod.started, pod.id))
    return tuple(pod_status(pod) for pod in pods)


def as_dict(snapshot: Snapshot, endpoint: Endpoint) -> dict[str, Any]:
    """*snapshot* for machines."""
    return {
        "registry": without_password(str(endpoint.redis_url)),
        "namespace": endpoint.namespace,
        "frozen": snapshot.frozen,
        "pods": [asdict(pod) for pod in pods_in(snapshot)],
    }


def table(snapshot: Snapshot, endpoint: Endpoint) -> Table:
    """*snapshot* for people: a row per pod, its languages beside it."""
    pods = pods_in(snapshot)
    shown = Table(
        title=f"{without_password(str(endpoint.redis_url))}, namespace {endpoint.namespace}",
        caption=_caption(snapshot, pods),
    )
    for heading in ("MODEL", "POD", "STATE"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("WARM FOR")
    for heading in ("LOAD", "PROOF", "BUSY", "QUEUE"):
        shown.add_column(heading, justify="right", no_wrap=True)
    last_model = None
    for pod in pods:
        title = "" if pod.model == last_model else pod.model
        if title and (others := [name for name in pod.names if name != pod.model]):
            title += f"\n[dim]{', '.join(others)}[/dim]"
        last_model = pod.model
        style = _STYLES.get(PodState(pod.state), "default")
        shown.add_row(
            title,
            pod.pod[:8],
            f"[{style}]{pod.state}[/]",
            ", ".join(pod.languages) if pod.state == PodState.WARM else "",
            f"{pod.load_s:.1f} s" if pod.load_s else "",
            f"{pod.warm_s:.1f} s" if pod.warm_s else "",
            f"{min(pod.inflight, pod.slots)}/{pod.slots}",
            f"{max(0, pod.inflight - pod.slots)}/{pod.queue}",
        )
    return shown


def _caption(snapshot: Snapshot, pods: Sequence[PodStatus]) -> str:
    warm = sum(pod.state == PodState.WARM for pod in pods)
    told = f"{warm} of {len(pods)} pods warm"
    return f"{told}; Redis is out of reach, this is what it said last" if snapshot.frozen else told


def models_table(url: str, models: Sequence[dict[str, Any]]) -> Table:
    """What a gateway or pod says of its models; pods that are not warm are known to the registry alone."""
    shown = Table(title=url, caption="with --redis-url: each pod, its times and its occupancy")
    for heading in ("NAME", "WARM FOR", "WARM PODS"):
        shown.add_column(heading)
    for model in models:
        shown.add_row(
            str(model["id"]), ", ".join(model.get("languages") or ()), str(model.get("warm_pods", ""))
        )
    return shown
