"""How many CPUs this process may really use, and how many threads each slot gets of them: pods plan their threads by
it, the local platform what each pod's share is.

Inside a container `os.cpu_count()` is the whole machine: eight threads on a quota of two CPUs are throttled for most
of each period, and the slowest thread decides how long a decode takes. So the cgroup's quota comes first (v2
`cpu.max`, then v1), then the affinity mask, then the count. The parsers are pure; only `available_cpus` reads files.
"""

import math
import os
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
PROC_CGROUP: Final = Path("/proc/self/cgroup")
ONE_BLAS_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""The products of matrices in an utterance's features are done in no time by one thread. OpenBLAS, told nothing, has the
other cores look out for more of them, each for tens of milliseconds, and those are the decodes': half a core at six
utterances a second. It is read when numpy is imported, so a pod sets it for itself, first thing."""


def quota_v2(cpu_max: str) -> float | None:
    """CPUs granted by the text of a `cpu.max` file (`<quota|max> <period>`, microseconds); None when unlimited."""
    parts = cpu_max.split()
    if len(parts) != 2 or parts[0] == "max":
        return None
    return _cpus(parts[0], parts[1])


def quota_v1(quota_us: str, period_us: str) -> float | None:
    """CPUs granted by `cpu.cfs_quota_us` and `cpu.cfs_period_us`; None when unlimited (a quota of -1)."""
    return _cpus(quota_us.strip(), period_us.strip())


def own_cgroups(proc_cgroup: str) -> dict[str, str]:
    """The paths in a `/proc/self/cgroup` file by controller; v2's only line has the empty controller."""
    found: dict[str, str] = {}
    for line in proc_cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator:
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def effective_cpus(*, quota: float | None, affinity: int | None, count: int | None) -> float:
    """The least of what quota, affinity mask and machine grant; never below a tenth of a CPU."""
    granted = [float(limit) for limit in (quota, affinity, count) if limit]
    return max(0.1, min(granted, default=1.0))


def threads_per_slot(cpus: float, slots: int) -> int:
    """Threads for each of *slots* parallel decodes, so that together they never exceed *cpus*; at least one."""
    return max(1, math.floor(cpus / slots))


def available_cpus(*, root: Path = CGROUP_ROOT, proc_cgroup: Path = PROC_CGROUP) -> float:
    """CPUs this process may use, as a float: a quota of 1.5 CPUs is 1.5."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return effective_cpus(quota=_quota(root, proc_cgroup), affinity=affinity, count=os.cpu_count())


def _quota(root: Path, proc_cgroup: Path) -> float | None:
    """The tightest quota from our own cgroup up to the root: a parent's binds its children."""
    own = own_cgroups(_read(proc_cgroup) or "")
    v2 = [quota_v2(_read(folder / "cpu.max") or "") for folder in _upwards(root, own.get("", "/"))]
    v1_root = root / "cpu"
    v1 = [
        quota_v1(_read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or "")
        for folder in _upwards(v1_root, own.get("cpu", "/"))
    ]
    return min((quota for quota in (*v2, *v1) if quota), default=None)


def _upwards(root: Path, path: str) -> list[Path]:
    """*root*/*path* and its parents down to *root*; inside a cgroup namespace the path may not exist here."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _cpus(quota: str, period: str) -> float | None:
    try:
        quota_us, period_us = int(quota), int(period)
    except ValueError:
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
