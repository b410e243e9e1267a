"""What the tests with Pipecat share: a real platform, and an environment that says nothing of it."""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.platform import RunningPlatform, running_platform

RESOURCES: Final = """
apiVersion: everwarm.dev/v1alpha1
kind: WhisperModel
metadata: {name: tiny}
spec: {model: tiny.en, aliases: [whisper-1], slots: 2, decode: {beamSize: 1}}
"""


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """`everwarm up` with one warm pod of tiny.en, which is whisper-1 too."""
    with running_platform(RESOURCES, folder=tmp_path_factory.mktemp("pipecat")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing outside says where pods are, or shows a key."""
    for name in ("BASE_URL", "REDIS_URL", "FALLBACK_URLS", "API_KEY", "TOKEN_FILE"):
        monkeypatch.delenv(f"EVERWARM_{name}", raising=False)
