"""The first request after ready against the steady median, over ten fresh starts.

Each start is a new process: bind, load, prove warm, ready. The moment `/readyz` turns 200 one clip is sent, then the
same clip again and again; the ratio of the first to the median of the rest is what a caller pays for being first.
Requests go over a new connection each, so that the first pays no more for TCP than the others do.
"""

import statistics
import tempfile
import time
from pathlib import Path

from bench.report import Figure, Promise, Report, spread
from tests.support.pods import running_pod
from tests.support.speech import clips

STARTS = 10
STEADY_REQUESTS = 15


def run() -> Report:
    """Ten starts of one pod of tiny.en, one after the other."""
    firsts, steadies, ratios, starts = [], [], [], []
    pcm = clips()[0].pcm()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(STARTS):
            began = time.perf_counter()
            with running_pod({"EVERWARM_CPUS": "2"}, folder=Path(folder)) as pod:
                starts.append(time.perf_counter() - began)
                first = pod.transcribe(pcm)
                steady = statistics.median(pod.transcribe(pcm) for _ in range(STEADY_REQUESTS))
            firsts.append(first)
            steadies.append(steady)
            ratios.append(first / steady)
    return Report(
        title="First request after ready",
        promises=(
            Promise(
                f"first request / steady median, median of {STARTS} fresh starts",
                statistics.median(ratios),
                1.2,
                "x",
            ),
        ),
        figures=(
            Figure("first / steady", statistics.median(ratios), "x", spread(ratios)),
            Figure("first request", statistics.median(firsts) * 1000, "ms", spread(firsts, 1000)),
            Figure("steady request", statistics.median(steadies) * 1000, "ms", spread(steadies, 1000)),
            Figure("process start to ready", statistics.median(starts), "s", spread(starts)),
        ),
    )
