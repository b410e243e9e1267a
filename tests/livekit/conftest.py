"""What the tests of the LiveKit plugin share: a real pod, and frames of real speech."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from everwarm.livekit import factory
from tests.support.pods import PodProcess, running_pod

NAMESPACE: Final = "livekit"


@pytest.fixture(scope="package")
def pod(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcess]:
    """A warm pod of tiny.en, in the registry at *valkey* under NAMESPACE."""
    environment = {"EVERWARM_REDIS_URL": valkey, "EVERWARM_NAMESPACE": NAMESPACE}
    with running_pod(environment, folder=tmp_path_factory.mktemp("livekit-pod")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing outside says where pods are; local pods, if any, stay in the test's own folder and on one CPU."""
    for name in ("EVERWARM_BASE_URL", "EVERWARM_REDIS_URL", "EVERWARM_FALLBACK_URLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("EVERWARM_CPUS", "1")


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    """Each test begins, as a process does, without any STT; those it made are closed."""
    yield
    for stt in factory._instances.values():
        thread = stt._own_loop.stop()
        if thread is not None:
            thread.join()
    factory._instances.clear()
