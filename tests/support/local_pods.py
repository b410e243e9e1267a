"""The machine's local pods as the process table shows them: found by the runtime folder they were started in."""

import contextlib
from pathlib import Path

import psutil


def local_pods(runtime: Path) -> list[psutil.Process]:
    """The pods whose users' XDG_RUNTIME_DIR is *runtime*."""
    return _processes("everwarm_stt", runtime)


def guardians(runtime: Path) -> list[psutil.Process]:
    """The guardians whose users' XDG_RUNTIME_DIR is *runtime*."""
    return _processes("everwarm.local_pod", runtime)


def end_guardians(runtime: Path) -> None:
    """End every guardian, and with it its pod, and wait until they are gone."""
    found = [*guardians(runtime), *local_pods(runtime)]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=20)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)


def _processes(module: str, runtime: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # A process may end between any two of these questions; a zombie has neither arguments nor environment.
        with contextlib.suppress(psutil.Error):
            arguments = process.cmdline()
            # The tether is the same process for a moment: only what became Python's `-m` counts.
            is_module = any(arguments[at : at + 2] == ["-m", module] for at in range(1, len(arguments)))
            is_tether = any(argument.endswith("tether.py") for argument in arguments)
            if is_module and not is_tether and process.environ().get("XDG_RUNTIME_DIR") == str(runtime):
                found.append(process)
    return found
