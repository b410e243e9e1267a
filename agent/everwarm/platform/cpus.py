"""How many CPUs there are to share between the pods: the affinity mask, cut down to the cgroup's quota.

Each pod is told its share and plans its threads by it. A quota counts in a dev container: eight threads on a quota
of two CPUs are throttled for most of each period.
"""

import os
from pathlib import Path
from typing import Final

CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2, as seen from inside a container


def quota(cpu_max: str) -> float | None:
    """CPUs granted by the text of a `cpu.max` file, `<microseconds|max> <period>`; None when it sets no limit."""
    parts = cpu_max.split()
    if len(parts) == 2 and parts[0].isdecimal() and parts[1].isdecimal() and int(parts[1]) > 0:
        return int(parts[0]) / int(parts[1])
    return None


def available_cpus() -> float:
    """CPUs this process may use, at least one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit = quota(CPU_MAX.read_text(encoding="ascii"))
    except OSError:
        limit = None
    return max(1.0, min(float(count), limit or float(count)))
