"""Time to choose a pod among 5,000 in the snapshot, with loads known for all of them.

What a request pays before anything is sent: candidates for the key, then the choice. The worst case is measured too:
all pods busy, so that no idle one ends the search early.
"""

import time
from random import Random
from typing import Final

from bench.report import Figure, Promise, Report, quantile
from everwarm.routing.loads import Loads
from everwarm.routing.pick import pick
from everwarm_core.registry.records import Lease, PodRecord, PodState, Snapshot

PODS: Final = 5_000
CHOICES: Final = 20_000


def run() -> Report:
    """p50 and p99 of one choice, for pods that are idle, mixed and all busy."""
    figures, promises = [], []
    for name, busy_share in (("idle pods", 0.0), ("nine in ten pods busy", 0.9), ("all pods busy", 1.0)):
        took = _choices_s(busy_share)
        p99 = quantile(took, 0.99) * 1e6
        figures.append(Figure(f"p50, {name}", quantile(took, 0.5) * 1e6, "us"))
        figures.append(Figure(f"p99, {name}", p99, "us"))
        promises.append(Promise(f"p99 of a choice among {PODS} pods, {name}", p99, 50, "us"))
    return Report(title="Routing", promises=tuple(promises), figures=tuple(figures))


def _choices_s(busy_share: float) -> list[float]:
    rng = Random(7)
    snapshot = Snapshot(
        taken_at=0.0,
        epoch="bench",
        leases=tuple(
            Lease(_pod(number, inflight=3 if rng.random() < busy_share else 0), 1e9) for number in range(PODS)
        ),
    )
    loads = Loads()
    for lease in snapshot.leases:
        load = loads.started(lease.pod, 4.0)
        loads.succeeded(load, 4.0, service_s=0.5, inflight=lease.pod.inflight, slots=lease.pod.slots)
    snapshot.by_key  # noqa: B018 - built once per snapshot, not per request
    took = []
    for _ in range(CHOICES):
        began = time.perf_counter()
        candidates = snapshot.by_key["base.en", "en"]
        choice = pick(candidates, loads, exclude=(), rng=rng, audio_s=4.0, now=1.0)
        took.append(time.perf_counter() - began)
        if choice is None:
            raise RuntimeError("no pod was chosen among warm ones")
    return took


def _pod(number: int, *, inflight: int) -> PodRecord:
    return PodRecord(
        id=f"pod-{number}",
        url=f"http://10.0.{number // 256}.{number % 256}:8000",
        state=PodState.WARM,
        model="base.en",
        names=("base.en",),
        languages=("en",),
        slots=2,
        queue=4,
        inflight=inflight,
        version="0.1.0",
        node="node",
        started=0.0,
        load_s=1.0,
        warm_s=1.0,
        boot=f"boot-{number}",
    )
