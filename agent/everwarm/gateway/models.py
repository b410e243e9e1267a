"""`GET /v1/models`: the names that can be asked for, in OpenAI's shape, from a snapshot of the registry."""

from typing_extensions import TypedDict

from everwarm_core.errors import ModelNotFound
from everwarm_core.registry.records import PodState, Snapshot


class Model(TypedDict):
    """One served name. OpenAI's four fields; `languages`, proven warm, and `warm_pods` are ours."""

    id: str
    object: str
    created: int
    owned_by: str
    languages: list[str]
    warm_pods: int


def models_in(snapshot: Snapshot) -> list[Model]:
    """Every name that any pod announces, in order; a name that nobody holds warm yet has 0 warm pods."""
    return [_model(name, snapshot) for name in sorted(snapshot.names)]


def model_named(name: str, snapshot: Snapshot) -> Model:
    """The model *name*; raises ModelNotFound."""
    if name not in snapshot.names:
        raise ModelNotFound(name, known=tuple(sorted(snapshot.names))[:20])
    return _model(name, snapshot)


def _model(name: str, snapshot: Snapshot) -> Model:
    pods = [lease.pod for lease in snapshot.leases if name in lease.pod.names]
    warm = [pod for pod in pods if pod.state is PodState.WARM]
    return Model(
        id=name,
        object="model",
        created=int(min(pod.started for pod in pods)),
        owned_by="everwarm",
        languages=sorted({language for pod in warm for language in pod.languages}),
        warm_pods=len(warm),
    )
