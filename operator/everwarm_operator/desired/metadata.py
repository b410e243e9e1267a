"""The metadata that all objects of a resource share."""

from dataclasses import dataclass
from typing import Any

from everwarm_core.spec import API_VERSION, KIND, WhisperModel
from everwarm_operator.naming import object_labels, object_name


@dataclass(frozen=True, slots=True)
class Owner:
    """The resource on the API server: what objects it owns refer to."""

    namespace: str
    uid: str


def object_metadata(model: WhisperModel, *, owner: Owner) -> dict[str, Any]:
    """Metadata of an object of *model*.

    The owner reference does not block the owner's deletion: that would need the right to change its finalizers.
    """
    return {
        "name": object_name(model.name),
        "namespace": owner.namespace,
        "labels": object_labels(model.name),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": model.name,
                "uid": owner.uid,
                "controller": True,
            }
        ],
    }
