"""Every knob of the operator, read from `EVERWARM_*` once, where it starts; no I/O in here.

What pods are told of their surroundings (Redis, token, image) stands here too: it belongs to the installation, not to a
WhisperModel.
"""

from importlib.metadata import version
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from everwarm_operator.desired.platform import Platform, SecretRef

VERSION: Final = version("everwarm-operator")


def _split(value: object) -> object:
    """`a, b` as the environment writes a list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class OperatorSettings(BaseSettings):
    """Where the operator works, and what it tells the pods it makes."""

    model_config = SettingsConfigDict(
        env_prefix="EVERWARM_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    redis_url: str
    """Redis or Valkey with the registry, as `redis://host:6379/0`; the operator reads it."""
    operator_namespaces: Names = ()
    """Namespaces to serve, comma-separated; none means the whole cluster, for which it needs a ClusterRole."""
    operator_pod_image: str = f"everwarm/stt:{VERSION}"
    """Image of pods whose resource names none."""
    operator_pod_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull that image."""
    operator_pod_redis_url: str | None = None
    """The registry's URL as pods reach it; default: the operator's own. With a password in it, use the Secret instead."""
    operator_pod_redis_secret: str | None = None
    """Secret, in each namespace served, whose key `url` is the registry's URL for pods; wins over a plain URL."""
    operator_pod_token_secret: str | None = None
    """Secret, in each namespace served, whose key `token` holds the internal token that pods ask callers for."""
    operator_pod_otlp_endpoint: str | None = None
    """Where pods export traces and metrics to, as `http://collector:4318`."""
    operator_pod_ipv6: bool = False
    """Whether pods have IPv6 addresses only, as in a single-stack IPv6 cluster."""
    operator_host: str = "0.0.0.0"  # noqa: S104 - a container's port
    """Address of `/livez`, `/readyz` and `/metrics`."""
    operator_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    """Port of these; 0 takes a free one."""
    operator_workers: PositiveInt = 8
    """Resources reconciled at a time."""
    operator_resync_seconds: PositiveFloat = 300.0
    """How often every resource is reconciled although nothing was heard of it."""

    def platform(self) -> Platform:
        """What pods are told of this installation."""
        secret, token = self.operator_pod_redis_secret, self.operator_pod_token_secret
        return Platform(
            image=self.operator_pod_image,
            redis_url=SecretRef(secret, "url") if secret else self.operator_pod_redis_url or self.redis_url,
            token_secret=SecretRef(token, "token") if token else None,
            otlp_endpoint=self.operator_pod_otlp_endpoint,
            image_pull_policy=self.operator_pod_image_pull_policy,
            is_ipv6=self.operator_pod_ipv6,
        )
