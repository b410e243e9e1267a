"""What the operator may do in a cluster, and why: the rules of the Role that the chart ships, made from here.

Nothing is read that is not watched, nothing is deleted (owner references do that), and of a pod only its status is
written. Server-side apply needs `create` beside `patch`, since it makes what is not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

WATCH: Final = ("list", "watch")
APPLY: Final = (*WATCH, "create", "patch")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of RBAC; *reason* says what would not work without it."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    reason: str

    @property
    def body(self) -> Mapping[str, Any]:
        """As the API has it."""
        return {"apiGroups": [self.group], "resources": [self.resource], "verbs": list(self.verbs)}


RULES: Final = (
    Rule("everwarm.dev", "whispermodels", WATCH, "what is declared"),
    Rule("everwarm.dev", "whispermodels/status", ("patch",), "what became of it"),
    Rule("apps", "deployments", APPLY, "the pods of a resource"),
    Rule("", "services", APPLY, "their address, for agents without a registry"),
    Rule("policy", "poddisruptionbudgets", APPLY, "drained nodes wait for warm pods"),
    Rule("", "pods", WATCH, "which pods there are, and why one does not come up"),
    Rule("", "pods/status", ("patch",), "the readiness gate"),
    Rule("", "events", ("create",), "the turns in a pod's life, for `kubectl describe`"),
)
"""In each namespace served."""

CLUSTER_RULES: Final = (
    Rule("", "namespaces", WATCH, "a namespace that is to be served may come later"),
    Rule(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        WATCH,
        "the CRD may come after the operator, or go",
    ),
)
"""In the whole cluster, also for an operator of some namespaces: without them it starts after a minute of asking again,
and sees a namespace or a CRD that comes later only after a restart."""
