"""The objects a WhisperModel becomes, one builder per kind; pure, so a REPL shows every manifest without a cluster.

Server-side apply owns exactly the fields that are sent, so builders send what we mean and nothing that the API
server would fill in by itself. The owner reference does the deleting: with the resource go its objects.
"""

from everwarm_core.spec import WhisperModel
from everwarm_operator.desired.deployment import deployment
from everwarm_operator.desired.disruption_budget import disruption_budget
from everwarm_operator.desired.metadata import Owner
from everwarm_operator.desired.platform import Platform, SecretRef
from everwarm_operator.desired.service import service
from everwarm_operator.manifest import Manifest
from everwarm_operator.naming import object_name

__all__ = ["Owner", "Platform", "SecretRef", "desired_objects", "object_keys"]


def desired_objects(model: WhisperModel, *, owner: Owner, platform: Platform) -> tuple[Manifest, ...]:
    """Everything *model* becomes, in the order in which it is applied."""
    return (
        service(model, owner=owner),
        disruption_budget(model, owner=owner),
        deployment(model, owner=owner, platform=platform),
    )


def object_keys(resource_name: str) -> tuple[tuple[str, str], ...]:
    """(kind, name) of everything that a resource of this name becomes: what to observe for it."""
    name = object_name(resource_name)
    return ("Service", name), ("PodDisruptionBudget", name), ("Deployment", name)
