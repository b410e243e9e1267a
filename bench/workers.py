"""Four LiveKit workers, and how many copies of the model they hold.

Each worker is a process of its own that makes its STT by `create_stt` and transcribes clips, as the job processes of an
agents server do. With pods, no worker may map CTranslate2's library at all. With `fallback="local"` and nothing to talk
to, one pod process serves all four, started by whichever came first.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.livekit_worker import Found
from bench.report import Figure, Promise, Report
from tests.support.platform import TWO_PODS, running_platform

WORKERS: Final = 4
NOBODY: Final = "http://127.0.0.1:9"  # the discard port: refused at once


def run() -> Report:
    """Both ways, one after the other."""
    with tempfile.TemporaryDirectory() as folder, running_platform(TWO_PODS, folder=Path(folder)) as platform:
        remote = _run_workers({"EVERWARM_REDIS_URL": platform.redis_url()})
    with tempfile.TemporaryDirectory() as folder:
        local = _run_workers(
            {"EVERWARM_BASE_URL": NOBODY, "XDG_RUNTIME_DIR": folder, "EVERWARM_WORKER_FALLBACK": "local"}
        )
    return Report(
        title="Workers",
        promises=(
            Promise(
                "copies of the model in four workers, with pods",
                sum(w.holds_engine for w in remote),
                0,
                "copies",
            ),
            Promise(
                "copies of the model in four workers, local fallback",
                sum(w.holds_engine for w in local),
                0,
                "copies",
            ),
            Promise("local pods for four workers, beyond one", abs(len(_pods_seen(local)) - 1), 0, "pods"),
            Promise("wrong transcripts", sum(w.wrong for w in (*remote, *local)), 0, "transcripts"),
        ),
        figures=(
            Figure("memory of a worker (PSS)", sum(w.pss_mib for w in remote) / WORKERS, "MiB"),
            Figure("utterances", sum(w.utterances for w in (*remote, *local)), ""),
        ),
    )


def _run_workers(environment: dict[str, str]) -> list[Found]:
    """Start all workers at once and read what each found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVERWARM_")}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.livekit_worker"],
            env={**inherited, **environment},
            stdout=subprocess.PIPE,
        )
        for _ in range(WORKERS)
    ]
    found = []
    for worker in workers:
        told, _ = worker.communicate(timeout=300)
        if worker.returncode != 0:
            raise RuntimeError(f"a worker failed with exit code {worker.returncode}")
        found.append(Found(**json.loads(told)))
    return found


def _pods_seen(workers: list[Found]) -> set[int]:
    return {pid for worker in workers for pid in worker.pod_pids}
