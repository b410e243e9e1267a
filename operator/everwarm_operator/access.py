"""What the operator may do in a cluster, and why: the rules of the Role that the chart ships, made from here.

Nothing is read that is not watched, but for the platform's Secret and the operator's own Deployment, by name; nothing
is deleted (owner references do that), and of a pod only its status is written. Server-side apply needs `create` beside
`patch`, since it makes what is not there; RBAC cannot restrict `create` to a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

WATCH: Final = ("list", "watch")
APPLY: Final = (*WATCH, "create", "patch")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of RBAC, for the objects *names* or for all; *reason* says what would not work without it."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    reason: str
    names: tuple[str, ...] = ()

    @property
    def body(self) -> Mapping[str, Any]:
        """As the API has it."""
        named = {"resourceNames": list(self.names)} if self.names else {}
        return {"apiGroups": [self.group], "resources": [self.resource], "verbs": list(self.verbs), **named}


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
        "the CRD may go",
    ),
)
"""In the whole cluster, also for an operator of some namespaces: without them it starts after a minute of asking again,
and sees a namespace that comes later only after a restart."""


def secret_rules(secret: str) -> tuple[Rule, ...]:
    """What the platform's Secret, called *secret*, takes where it or a copy of it is written."""
    return (
        Rule("", "secrets", ("create",), "the platform's Secret, where there is none"),
        Rule("", "secrets", ("get", "patch"), "the same, completed and kept as it was", (secret,)),
    )


def read_secret_rule(secret: str) -> Rule:
    """What it takes where somebody else makes the Secret."""
    return Rule("", "secrets", ("get",), "the platform's Secret, which somebody else makes", (secret,))


def home_rules(secret: str, deployment: str) -> tuple[Rule, ...]:
    """In the operator's own namespace, where its *deployment* owns the Secret."""
    return (
        *secret_rules(secret),
        Rule("apps", "deployments", ("get",), "who owns the platform's Secret", (deployment,)),
    )
