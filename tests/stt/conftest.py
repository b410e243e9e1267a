"""Real pods for the tests of the STT pod; the one they share has a place for one decode and one that waits."""

from collections.abc import Iterator

import pytest

from tests.support.pods import PodProcess, running_pod

UPLOAD_LIMIT_BYTES = 3_000_000
AUDIO_LIMIT_S = 90.0
BODY_TIMEOUT_S = 10.0  # how long a test may take to do what it does while bodies are waited for


@pytest.fixture(scope="session")
def pod(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcess]:
    """A warm pod of tiny.en for the whole session: one slot, one waiting place, small limits."""
    environment = {
        "EVERWARM_NAMESPACE": "contract",
        "EVERWARM_REDIS_URL": valkey,
        "EVERWARM_NAME": "english",
        "EVERWARM_ALIASES": "whisper-1,gpt-4o-transcribe",
        "EVERWARM_SLOTS": "1",
        "EVERWARM_QUEUE": "1",
        "EVERWARM_LIMIT_UPLOAD_BYTES": str(UPLOAD_LIMIT_BYTES),
        "EVERWARM_LIMIT_AUDIO_SECONDS": str(AUDIO_LIMIT_S),
        "EVERWARM_BODY_TIMEOUT_SECONDS": str(BODY_TIMEOUT_S),
    }
    with running_pod(environment, folder=tmp_path_factory.mktemp("pod")) as warm:
        yield warm
