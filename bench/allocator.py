"""What the allocator's settings cost and keep: the same requests on pods of base that differ in nothing else.

The settings that pods run with (`everwarm_core.pod_environment`) are chosen by this; docs/adr/0007 tells why.
"""

import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import openai
import psutil

from bench.endurance import RESOURCE, kinds_of_requests
from bench.memory import pss_mib
from bench.report import Figure, Report
from everwarm_core.pod_environment import MALLOC
from tests.support.pods import running_pod

REQUESTS: Final = 60
ONE_MIB: Final = str(1 << 20)
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "as pods run": MALLOC,
    "glibc's defaults": {},
    "one arena": {"MALLOC_ARENA_MAX": "1"},
    "all kept": {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
        "MALLOC_TOP_PAD_": str(16 << 20),
    },
    "all given back at once": {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": ONE_MIB,
        "MALLOC_TRIM_THRESHOLD_": ONE_MIB,
    },
}


def run() -> Report:
    """Seconds, system time and memory for each of `SETTINGS`."""
    figures = [figure for name, setting in SETTINGS.items() for figure in _measure(name, setting)]
    return Report(title="Allocator settings", promises=(), figures=tuple(figures))


def _measure(name: str, setting: Mapping[str, str]) -> list[Figure]:
    # An empty value would be read as 0; glibc's own default is what it does without the variable.
    unset = dict.fromkeys(MALLOC)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_pod(
            {"EVERWARM_CPUS": "2", **unset, **setting}, folder=Path(folder), resource=RESOURCE
        ) as pod,
    ):
        client = openai.OpenAI(base_url=f"{pod.url}/v1", api_key="none", max_retries=0, timeout=300)
        request = kinds_of_requests(client, pod)
        process = psutil.Process(pod.process.pid)
        before, began = process.cpu_times(), time.perf_counter()
        with ThreadPoolExecutor(3) as callers:
            for _ in callers.map(request, range(REQUESTS)):
                pass
        wall_s, after = time.perf_counter() - began, process.cpu_times()
        return [
            Figure(f"{name}: wall", wall_s, "s"),
            Figure(f"{name}: CPU", after.user + after.system - before.user - before.system, "s"),
            Figure(f"{name}: of it in the kernel", after.system - before.system, "s"),
            Figure(f"{name}: memory afterwards", pss_mib(process.pid), "MiB"),
        ]
