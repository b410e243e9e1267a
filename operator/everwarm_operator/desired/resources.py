"""What a pod asks of its node when the resource does not say: by model, compute type, slots and device.

Memory is one figure, request and limit alike: a pod at rest holds what it needs at work (docs/adr/0007), and a pod
that its node must evict was never warm in earnest. It is worked out, not looked up, so that slots and limits count:

- the process with its libraries: 300 MiB, what a pod of tiny.en has before it loads;
- the weights, and while they are loaded the file they come from, saved with two bytes a parameter;
- for each slot the attention of one 30 s window, 1500 x 1500 floats for each head, twice (before and after its
  softmax), and the decoder's keys and values of it;
- for each recording at a time its samples and features, 0.1 MiB a second; all slots but one may hold one;
- a tenth on top.

For base with two slots that gives 718 MiB before recordings, where 650 were measured; for tiny.en with one 460,
where 470 were.

CPUs are a request without a limit: a limit would throttle the heartbeats along with the decodes, and pods plan their
threads by `EVERWARM_CPUS`, so a neighbour's are not taken. The table below keeps a 10 s utterance well under
its own length; it is a guess that suits small clusters. Whoever wants the fastest finals gives more.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from everwarm_core.spec import WhisperModel, WhisperModelSpec
from everwarm_operator.quantities import parse_quantity

GPU: Final = "nvidia.com/gpu"

PROCESS_MIB: Final = 300
CUDA_PROCESS_MIB: Final = 1536  # with CUDA's context and cuBLAS' and cuDNN's tables in host memory; a guess
WINDOW_FRAMES: Final = 1500  # of the encoder, for 30 s
FLOAT_BYTES: Final = 4
SAVED_BYTES: Final = 2  # a parameter, in the published conversions
RECORDING_MIB_PER_S: Final = 0.1  # 16000 samples and 100 frames of 80 bands, as floats
HEADROOM: Final = 1.1
STEP_MIB: Final = 128
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Size:
    """One of Whisper's sizes: https://arxiv.org/abs/2212.04356, table 1, and the distilled ones' configurations.

    parameters: in millions; heads: of an encoder layer; decoder_layers, width: of the decoder; cpu: for each slot.
    """

    parameters: int
    heads: int
    decoder_layers: int
    width: int
    cpu: Decimal

    def slot_mib(self) -> float:
        """Memory of one decode on the CPU."""
        attention = 2 * self.heads * WINDOW_FRAMES**2 * FLOAT_BYTES
        keys_and_values = 2 * self.decoder_layers * WINDOW_FRAMES * self.width * FLOAT_BYTES
        return (attention + keys_and_values) / MIB

    def weights_mib(self, bytes_each: int) -> float:
        """Memory of all parameters."""
        return self.parameters * 1e6 * bytes_each / MIB


_LARGE: Final = Size(1550, 20, 32, 1280, Decimal(4))
_MEDIUM: Final = Size(769, 16, 24, 1024, Decimal(4))

SIZES: Final[Mapping[str, Size]] = {
    "tiny": Size(39, 6, 4, 384, Decimal("0.5")),
    "base": Size(74, 8, 6, 512, Decimal(1)),
    "small": Size(244, 12, 12, 768, Decimal(2)),
    "medium": _MEDIUM,
    "large": _LARGE,
    "turbo": Size(809, 20, 4, 1280, Decimal(4)),
    "distil-small": Size(166, 12, 4, 768, Decimal(2)),
    "distil-medium": Size(394, 16, 2, 1024, Decimal(2)),
    "distil-large": Size(756, 20, 2, 1280, Decimal(4)),
}
UNKNOWN_SIZE: Final = _MEDIUM
"""For a repository or folder whose name tells no size: the middle one, too much for most and too little for few."""

BYTES: Final[Mapping[str, int]] = {
    "int8": 1, "int8_float32": 1, "int8_float16": 1, "int8_bfloat16": 1, "int16": 2, "float16": 2, "bfloat16": 2,
}  # fmt: skip
"""Bytes a parameter by compute type; those not named here (default, auto, float32) come to four at worst."""


def size_of(model: str) -> Size:
    """The size that the name of *model* tells, wherever in it: `base.en`, `owner/faster-whisper-large-v3`."""
    words = set(re.split(r"[^a-z0-9]+", model.lower()))
    if "turbo" in words:
        return SIZES["turbo"]
    named = next((name for name in ("tiny", "base", "small", "medium", "large") if name in words), None)
    if named is None:
        return UNKNOWN_SIZE
    return SIZES.get(f"distil-{named}", SIZES[named]) if words & {"distil", "distilled"} else SIZES[named]


def default_memory_mib(spec: WhisperModelSpec) -> int:
    """Memory of a pod, in MiB."""
    size = size_of(spec.model)
    recordings = max(1, spec.slots - 1) * spec.limits.audio_seconds * RECORDING_MIB_PER_S
    file = size.weights_mib(SAVED_BYTES)
    if spec.device == "cuda":
        needed = CUDA_PROCESS_MIB + file + recordings
    else:
        weights = size.weights_mib(BYTES.get(spec.effective_compute_type, FLOAT_BYTES))
        working = weights + spec.slots * size.slot_mib() + recordings
        needed = PROCESS_MIB + max(working, weights + file)
    return math.ceil(needed * HEADROOM / STEP_MIB) * STEP_MIB


def container_resources(model: WhisperModel) -> dict[str, Any]:
    """`resources` of the container: what the template says, and the default of each kind that it does not mention.

    A kind mentioned on one side only (a limit of memory, say) gets no default on the other: it might contradict it.
    """
    spec = model.spec
    given: Mapping[str, Any] = spec.template.resources or {}
    requests, limits = _amounts(given, "requests"), _amounts(given, "limits")
    mentioned = {*requests, *limits}
    if "cpu" not in mentioned:
        cpu = Decimal(1) if spec.device == "cuda" else size_of(spec.model).cpu
        requests["cpu"] = _cpu_text(cpu * spec.slots)
    if "memory" not in mentioned:
        requests["memory"] = limits["memory"] = f"{default_memory_mib(spec)}Mi"
    claims = given.get("claims") or [
        {"name": claim["name"]} for claim in spec.template.resource_claims or () if "name" in claim
    ]
    if spec.device == "cuda" and not claims and not any("gpu" in kind for kind in mentioned):
        limits[GPU] = 1
    resources: dict[str, Any] = {"requests": requests, "limits": limits, "claims": claims}
    return {part: value for part, value in resources.items() if value}


def planned_cpus(resources: Mapping[str, Any]) -> str | None:
    """CPUs a pod should plan its threads with: its limit, else its request; None when it has neither."""
    for part in ("limits", "requests"):
        amount = parse_quantity(_amounts(resources, part).get("cpu"))
        if amount:
            return f"{amount.normalize():f}"
    return None


def _amounts(resources: Mapping[str, Any], part: str) -> dict[str, Any]:
    amounts = resources.get(part)
    return dict(amounts) if isinstance(amounts, Mapping) else {}


def _cpu_text(cpus: Decimal) -> str:
    """As Kubernetes writes it: `2`, `500m`."""
    return str(int(cpus)) if cpus == int(cpus) else f"{int(cpus * 1000)}m"
