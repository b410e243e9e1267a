"""The Service of a resource: what agents fall back to when they start without Redis, and a name to try by hand.

It holds Ready pods only, which the gate makes the warm ones. Agents pick pods by the registry; whoever comes through
here gets any of them.
"""

from everwarm_core.spec import WhisperModel
from everwarm_operator.desired.metadata import Owner, object_metadata
from everwarm_operator.desired.pod import PORT, PORT_NAME
from everwarm_operator.manifest import Manifest
from everwarm_operator.naming import LANGUAGES_ANNOTATION, NAMES_ANNOTATION, selector_labels


def service(model: WhisperModel, *, owner: Owner) -> Manifest:
    """The Service of *model*; its annotations say what its pods serve, for those who find pods through it."""
    metadata = object_metadata(model, owner=owner)
    annotations = {
        NAMES_ANNOTATION: ",".join(model.names),
        LANGUAGES_ANNOTATION: ",".join(model.spec.languages),
    }
    return Manifest.of(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "annotations": annotations},
            "spec": {
                "selector": selector_labels(model.name),
                "ports": [{"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME, "appProtocol": "http"}],
            },
        }
    )
