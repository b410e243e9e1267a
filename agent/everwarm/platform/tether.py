"""A tiny program that becomes another one which ends with its parent: `python tether.py PARENT_PID COMMAND...`.

The local platform promises to leave nothing behind, also when it is killed with SIGKILL and can clean up nothing.
Linux can promise that for it: `PR_SET_PDEATHSIG` makes the kernel send SIGTERM to a child when its parent dies, and
the setting survives `exec`. It is set here, in a program of its own, because running Python between fork and exec
(`preexec_fn`) is unsafe once the parent has threads. Other systems have no such call: there the command is started
directly, and only an orderly end of the platform ends its children.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def tethered(argv: Sequence[str]) -> tuple[str, ...]:
    """*argv* such that the process ends when this one does, as far as the system can promise it."""
    if sys.platform != "linux":
        return tuple(argv)
    # Isolated and without site-packages: a few milliseconds until exec.
    return (sys.executable, "-I", "-S", str(Path(__file__)), str(os.getpid()), *argv)


def main(parent_pid: int, argv: Sequence[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's death, then become *argv*; never returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        sys.exit(0)  # the parent died before the call above, so the kernel will not tell us
    os.execvp(argv[0], list(argv))  # noqa: S606  # no shell: becoming the command is the point


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
