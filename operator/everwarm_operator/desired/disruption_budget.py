"""The PodDisruptionBudget of a resource: node drains take one pod at a time.

Also at replicas 0, where it does nothing: so the operator never has to delete an object. One may be taken even of a
single pod, or that node could never be drained; two replicas are what makes an eviction unnoticed. Pods that are
not Ready may always be evicted: a budget that waits for a pod which can never be warm would block the drain for ever.
"""

from everwarm_core.spec import WhisperModel
from everwarm_operator.desired.metadata import Owner, object_metadata
from everwarm_operator.manifest import Manifest
from everwarm_operator.naming import selector_labels


def disruption_budget(model: WhisperModel, *, owner: Owner) -> Manifest:
    """The PodDisruptionBudget of *model*."""
    return Manifest.of(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": object_metadata(model, owner=owner),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector_labels(model.name)},
            },
        }
    )
