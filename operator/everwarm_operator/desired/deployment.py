"""The Deployment of a resource: how many pods, and how one generation of them follows the other.

Unless the resource says otherwise, a rollout adds one warm pod before it takes one away, so it needs room for one more
than there are. Replicas belong to the operator alone; autoscalers change the resource's scale, never this.
"""

from typing import Final

from everwarm_core.spec import WhisperModel
from everwarm_operator.desired.metadata import Owner, object_metadata
from everwarm_operator.desired.platform import Platform
from everwarm_operator.desired.pod import STARTUP_MARGIN_S, pod_template
from everwarm_operator.manifest import Manifest
from everwarm_operator.naming import selector_labels

PLACEMENT_BUDGET_S: Final = 300
"""For what comes before a pod's process: a node that has to be started, a pull of the image. A guess: autoscalers
take one to four minutes for a node, and a CUDA image of 3 GB a minute."""

REVISIONS_KEPT: Final = (
    3  # old ReplicaSets, each an object that is watched; the resource itself is the history
)


def deployment(model: WhisperModel, *, owner: Owner, platform: Platform) -> Manifest:
    """The Deployment of *model*."""
    deadline_s = model.spec.warmup.timeout_seconds + STARTUP_MARGIN_S + PLACEMENT_BUDGET_S
    return Manifest.of(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": object_metadata(model, owner=owner),
            "spec": {
                "replicas": model.spec.replicas,
                "revisionHistoryLimit": REVISIONS_KEPT,
                "progressDeadlineSeconds": deadline_s,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {
                        "maxUnavailable": model.spec.rollout.max_unavailable,
                        "maxSurge": model.spec.rollout.max_surge,
                    },
                },
                "selector": {"matchLabels": selector_labels(model.name)},
                "template": pod_template(model, platform=platform),
            },
        }
    )
