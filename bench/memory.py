"""Memory of processes, as the kernel accounts it.

PSS (proportional set size) shares a page's cost among the processes that map it, so the sum over processes is the
memory really in use; RSS would count shared weights once per process.
"""

from pathlib import Path


def pss_mib(pid: int) -> float:
    """PSS of process *pid* in MiB; Linux only, from /proc/<pid>/smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Pss in /proc/{pid}/smaps_rollup")


def mapped_libraries(pid: int) -> frozenset[str]:
    """Names of the files that process *pid* maps, such as libctranslate2."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return frozenset(Path(line.split(maxsplit=5)[5]).name for line in lines if line.count("/"))
