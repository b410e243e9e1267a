"""Every knob of the operator, read from `EVERWARM_*` once, where it starts; no I/O in here.

What pods are told of their surroundings (Redis, token, image) stands here too: it belongs to the installation, not to a
WhisperModel.
"""

from importlib.metadata import version
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from everwarm_core.environment import PREFIX, split_list
from everwarm_core.registry.access import Role
from everwarm_operator.desired.platform import Home, Platform, SecretRef
from everwarm_operator.desired.platform_secret import TOKEN, BundledValkey, ExternalRedis, url_key

VERSION: Final = version("everwarm-operator")


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)]


class OperatorSettings(BaseSettings):
    """Where the operator works, and what it tells the pods it makes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    redis_url: str | None = None
    """Redis or Valkey with the registry, as `redis://host:6379/0`; the operator reads it. With the chart's own Valkey
    it comes from the platform's Secret."""
    operator_namespaces: Names = ()
    """Namespaces to serve, comma-separated; none means the whole cluster, for which it needs a ClusterRole."""
    operator_pod_image: str = f"everwarm/stt:{VERSION}"
    """Image of pods whose resource names none."""
    operator_pod_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull that image."""
    operator_pod_redis_url: str | None = None
    """The registry's URL as pods reach it; default: the operator's own. Without the platform's Secret it stands in the
    pods in plain."""
    operator_platform_secret: str | None = None
    """Name of the platform's Secret: the internal token, and the registry's URL for each role. The operator makes it in
    its own namespace, and copies what pods need of it to others. Without it pods ask callers for no token."""
    operator_platform_secret_managed: bool = True
    """Whether the operator makes and completes that Secret; off where somebody else does."""
    operator_valkey_address: str | None = None
    """`host:port` of the chart's own Valkey, whose users and passwords are made with the platform's Secret."""
    operator_namespace: str | None = None
    """Namespace the operator runs in; needed for the platform's Secret."""
    operator_name: str | None = None
    """Deployment the operator runs in; the platform's Secret goes with it."""
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

    @model_validator(mode="after")
    def _says_where_the_registry_is(self) -> Self:
        if not self.redis_url and not self.operator_valkey_address:
            raise ValueError("redis_url: say where the registry is, as redis://host:6379/0")
        if self.operator_valkey_address and not self.operator_platform_secret:
            raise ValueError(
                "operator_platform_secret: the chart's own Valkey takes its users from that Secret"
            )
        if self.operator_platform_secret and not self.operator_namespace:
            raise ValueError("operator_namespace: say where the platform's Secret is")
        return self

    def platform(self) -> Platform:
        """What pods are told of this installation."""
        secret = self.operator_platform_secret
        return Platform(
            image=self.operator_pod_image,
            redis_url=SecretRef(secret, url_key(Role.POD)) if secret else self._pod_redis_url,
            token_secret=SecretRef(secret, TOKEN) if secret else None,
            otlp_endpoint=self.operator_pod_otlp_endpoint,
            image_pull_policy=self.operator_pod_image_pull_policy,
            is_ipv6=self.operator_pod_ipv6,
        )

    def home(self) -> Home | None:
        """Where the platform's Secret is; None when there is to be none."""
        if not (self.operator_platform_secret and self.operator_namespace):
            return None
        return Home(
            namespace=self.operator_namespace,
            secret_name=self.operator_platform_secret,
            deployment=self.operator_name,
            is_managed=self.operator_platform_secret_managed,
        )

    def registry(self) -> BundledValkey | ExternalRedis:
        """Whose Redis it is."""
        if self.operator_valkey_address:
            return BundledValkey(self.operator_valkey_address)
        assert self._pod_redis_url is not None, "validated"
        return ExternalRedis(self._pod_redis_url)

    @property
    def _pod_redis_url(self) -> str | None:
        return self.operator_pod_redis_url or self.redis_url
