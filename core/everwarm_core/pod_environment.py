"""The environment of an STT pod, made from a WhisperModel: the one function that the operator and the local
platform share, so a process on a laptop and a container in a cluster are configured by the same words.

Only what the resource says is in here. What a place adds (Redis URL, pod id, port, token file, node) is named by
the constants below and filled in by whoever starts the process. `everwarm_stt.settings` reads all of it back; a
test holds the two together.
"""

from typing import Final

from everwarm_core.spec import WhisperModel

NAMESPACE: Final = "EVERWARM_NAMESPACE"
REDIS_URL: Final = "EVERWARM_REDIS_URL"
POD_ID: Final = "EVERWARM_POD_ID"
POD_URL: Final = "EVERWARM_POD_URL"
NODE: Final = "EVERWARM_NODE"
HOST: Final = "EVERWARM_HOST"
PORT: Final = "EVERWARM_PORT"
CPUS: Final = "EVERWARM_CPUS"
TOKEN_FILE: Final = "EVERWARM_TOKEN_FILE"
PROBE_SECONDS: Final = "EVERWARM_PROBE_SECONDS"

MALLOC: Final = {"MALLOC_ARENA_MAX": "1", "MKL_DISABLE_FAST_MM": "1"}
"""One arena of glibc's allocator for all threads of a pod, and no buffers of MKL's own beside it (docs/adr/0007): what one
decode frees the next one uses, whichever slot it runs on."""


def pod_environment(resource: WhisperModel, *, weights_path: str | None = None) -> dict[str, str]:
    """Variables that make a process serve *resource*.

    weights_path: folder in the pod where the source's volume is mounted; None when the source is the hub or a
    path of its own.
    """
    spec = resource.spec
    environment = {
        **MALLOC,
        "EVERWARM_NAME": resource.name,
        "EVERWARM_MODEL": spec.model,
        "EVERWARM_LANGUAGES": ",".join(spec.languages),
        "EVERWARM_ALIASES": ",".join(spec.aliases),
        "EVERWARM_DEVICE": spec.device,
        "EVERWARM_COMPUTE_TYPE": spec.effective_compute_type,
        "EVERWARM_SLOTS": str(spec.slots),
        "EVERWARM_QUEUE": str(spec.queue),
        "EVERWARM_BATCH": str(spec.effective_batch),
        "EVERWARM_BEAM_SIZE": str(spec.decode.beam_size),
        "EVERWARM_VAD": spec.decode.vad,
        "EVERWARM_WINDOW": spec.decode.window,
        "EVERWARM_TEMPERATURE": str(spec.decode.temperature),
        "EVERWARM_LIMIT_AUDIO_SECONDS": str(spec.limits.audio_seconds),
        "EVERWARM_LIMIT_UPLOAD_BYTES": str(spec.limits.upload_bytes),
        "EVERWARM_WARMUP_TIMEOUT_SECONDS": str(spec.warmup.timeout_seconds),
    }
    if folder := weights_path or spec.source.path:
        environment["EVERWARM_WEIGHTS_PATH"] = folder
    if spec.source.hub and spec.source.hub.revision:
        environment["EVERWARM_HUB_REVISION"] = spec.source.hub.revision
    if spec.source.hub and spec.source.hub.endpoint:
        environment["EVERWARM_HUB_ENDPOINT"] = spec.source.hub.endpoint
    return environment
