"""When a pod says that it is warm, or drains; and what its process keeps to."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_stt.admission import Admission, Capacity
from everwarm_stt.pod import GATE_S, Pod
from everwarm_stt.settings import PodSettings


def a_pod(*, probe_seconds: float, asked_at: float | None) -> Pod:
    settings = PodSettings(model="tiny.en", probe_seconds=probe_seconds)
    return Pod(settings, "http://127.0.0.1:1", Admission(Capacity(1, 4)), asked_at=asked_at)


@given(period_s=st.sampled_from([0.5, 1.0, 10.0]), since=st.floats(0, 2))
def test_it_says_so_shortly_before_the_next_question(period_s: float, since: float) -> None:
    now = 1000.0 + since * period_s
    wait_s = a_pod(probe_seconds=period_s, asked_at=1000.0).tells_in_s(now)
    questions_from_now = (now + wait_s + GATE_S - 1000.0) / period_s
    assert 0 <= wait_s <= period_s
    assert questions_from_now == pytest.approx(round(questions_from_now), abs=1e-6)


@pytest.mark.parametrize(
    ("probe_seconds", "asked_at"),
    [(0.0, 1000.0), (1.0, None), (1.0, 990.0)],
    ids=["it is told that nobody asks", "nobody has asked", "nobody asks any more"],
)
def test_it_says_so_at_once_where_nobody_asks(probe_seconds: float, asked_at: float | None) -> None:
    assert a_pod(probe_seconds=probe_seconds, asked_at=asked_at).tells_in_s(1000.0) == 0


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which is Linux's"
)
def test_its_process_has_no_threads_of_openblas() -> None:
    script = (
        "import os, sys; from everwarm_stt.main import main; sys.argv = ['everwarm-pod', '--version']; main();"
        "import numpy; print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "1"
