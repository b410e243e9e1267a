"""What an installation says of the place pods run in, as opposed to what a resource says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A key of a Secret in the namespace of the resource."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Platform:
    """The installation.

    image: of pods whose resource names none. redis_url: of the registry as pods reach it, in plain or, where it holds
    a password, in a Secret; without one pods serve unregistered and no gate opens while the registry is there.
    token_secret: the internal token that pods ask for; None asks for none. image_pull_policy: of *image*, not of one
    that a resource names. is_ipv6: whether pods have IPv6 addresses only.
    """

    image: str
    redis_url: str | SecretRef | None = None
    token_secret: SecretRef | None = None
    otlp_endpoint: str | None = None
    image_pull_policy: str | None = None
    is_ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Home:
    """Where the Secret *secret_name* is: the operator's own *namespace*; it goes with the Deployment *deployment*.

    is_managed: whether the operator makes it; otherwise somebody else does, and it is only read.
    """

    namespace: str
    secret_name: str
    deployment: str | None
    is_managed: bool
