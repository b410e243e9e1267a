"""The environment of a pod says what the resource says: the pod's own settings read all of it back."""

from typing import Any

import pytest

from everwarm_core import pod_environment as variables
from everwarm_core.pod_environment import pod_environment
from everwarm_core.spec import WhisperModel
from everwarm_stt.settings import PodSettings, load_settings, unknown_variables


def resource(**spec: Any) -> WhisperModel:
    body = {"metadata": {"name": "speech"}, "spec": {"model": "base", **spec}}
    return WhisperModel.from_document(body, source="test.yaml")


def settings(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> PodSettings:
    """What a process started with *environment* reads."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


FULL = resource(
    languages=["en", "de", "auto"],
    aliases=["whisper-1", "owner/name"],
    device="cuda",
    computeType="int8_float16",
    slots=3,
    batch=2,
    queue=7,
    decode={"beamSize": 2, "vad": "always", "window": "full", "temperature": 0.25},
    limits={"audioSeconds": 90.5, "uploadBytes": 1234},
    warmup={"timeoutSeconds": 77},
)


@pytest.mark.parametrize("wanted", [resource(), FULL], ids=["defaults", "everything"])
def test_pod_reads_back_what_the_resource_says(monkeypatch: pytest.MonkeyPatch, wanted: WhisperModel) -> None:
    read, spec = settings(monkeypatch, pod_environment(wanted)), wanted.spec
    assert read.names == wanted.names
    assert read.keys == wanted.keys
    assert (read.device, read.compute_type) == (spec.device, spec.effective_compute_type)
    assert (read.slots, read.queue, read.batch) == (spec.slots, spec.queue, spec.effective_batch)
    assert (read.beam_size, read.vad, read.window, read.temperature) == (
        spec.decode.beam_size,
        spec.decode.vad,
        spec.decode.window,
        spec.decode.temperature,
    )
    assert read.limit_audio_seconds == spec.limits.audio_seconds
    assert read.limit_upload_bytes == spec.limits.upload_bytes
    assert read.warmup_timeout_seconds == spec.warmup.timeout_seconds


def test_pod_knows_every_variable_it_is_given() -> None:
    """One that is misspelt on either side would pass as a default."""
    place = {value for name, value in vars(variables).items() if name.isupper() and isinstance(value, str)}
    written = pod_environment(
        resource(source={"hub": {"revision": "v1", "endpoint": "https://hub.example"}}), weights_path="/w"
    )
    assert unknown_variables(written.keys() | place) == ()


def test_hub_revision_and_mirror_are_passed_on() -> None:
    written = pod_environment(resource(source={"hub": {"revision": "v1", "endpoint": "https://hub.example"}}))
    assert written["EVERWARM_HUB_REVISION"] == "v1"
    assert written["EVERWARM_HUB_ENDPOINT"] == "https://hub.example"


def test_weights_come_from_the_sources_path() -> None:
    assert pod_environment(resource(source={"path": "/models/x"}))["EVERWARM_WEIGHTS_PATH"] == "/models/x"


def test_weights_come_from_the_mounted_volume_when_there_is_one() -> None:
    claim = resource(source={"persistentVolumeClaim": {"claimName": "weights"}})
    assert pod_environment(claim, weights_path="/weights")["EVERWARM_WEIGHTS_PATH"] == "/weights"


def test_weights_are_looked_for_by_name_when_the_source_is_the_hub() -> None:
    assert "EVERWARM_WEIGHTS_PATH" not in pod_environment(resource())


def test_secret_of_the_hub_stays_out_of_the_environment_made_from_the_resource() -> None:
    """Only its name is known here; whoever starts the pod mounts it."""
    written = pod_environment(resource(source={"hub": {"tokenSecret": {"name": "hub-token"}}}))
    assert not any("hub-token" in value for value in written.values())
