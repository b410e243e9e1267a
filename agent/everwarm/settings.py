"""Every knob of an agent and of the gateway, read from `EVERWARM_*` once, where a program or a client starts.

No I/O in here: a token file is named, not read. Arguments given in code win over the environment; an agent inside
somebody else's program may have none of these set. Times carry their unit in the name, as the pods' settings do.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from everwarm_core.environment import PREFIX, split_list

FORM_OVERHEAD_BYTES: Final = 1 << 20  # boundaries, part headers and the text fields beside the file

_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^\s/*,]+")


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    """*given* as it is; a path, if only a slash at the end, would never match what a browser sends."""
    for origin in given:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin; write it as https://app.example.com, or * for all")
    return given


Urls = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list), AfterValidator(_origins)]


class AgentSettings(BaseSettings):
    """Where an agent finds pods, and how long it waits."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    redis_url: str | None = None
    """Redis or Valkey with the registry, as `redis://host:6379/0`. Agents then route to pods themselves."""
    base_url: str | None = None
    """A gateway or a single pod, as `http://gateway:8080`; used when no Redis URL is given."""
    namespace: str = "local"
    """Registry namespace; in a cluster the Kubernetes namespace."""
    token_file: Path | None = None
    """File with the internal token that agents show to pods; read again for every request, so it may be rotated."""
    api_key: SecretStr | None = None
    """Key shown to a gateway, as `Authorization: Bearer`."""
    fallback_urls: Urls = ()
    """Base URLs of pods (or of their Service), comma-separated; used while Redis has not been reached since start."""
    deadline_seconds: PositiveFloat = 30.0
    """Longest wait for an utterance's transcript, hold and retries included; audio over 30 s adds its own length."""
    local_pod_idle_seconds: PositiveFloat = 60.0
    """How long a machine's shared local pod (LiveKit, `fallback="local"`) outlives its last user."""


def agent_settings(given: Mapping[str, object]) -> AgentSettings:
    """Arguments over the environment; those that are None were not *given*, and a base URL wins over an environment's Redis."""
    told = {name: value for name, value in given.items() if value is not None}
    if "base_url" in told and "redis_url" not in told:
        told["redis_url"] = None
    return AgentSettings(**told)  # type: ignore[arg-type]  # names and types are those of the fields


class GatewaySettings(AgentSettings):
    """The gateway: an agent with a door."""

    gateway_host: str = "127.0.0.1"
    """Address to listen on; containers set 0.0.0.0."""
    gateway_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port to listen on; 0 takes a free one."""
    gateway_api_keys_file: Path | None = None
    """File with the keys callers may show, one a line: the key, or `sha256:` and its hash, then what it may take, if not
    all (docs/how-to/operate.md#keys-and-limits). Read again when it changes. A key's limits are those of each gateway.
    Without the file everybody may call."""
    gateway_cors_origins: Origins = ()
    """Origins whose pages may call from a browser, comma-separated, as `https://app.example.com`; `*` for all. Without
    one, browsers keep answers from pages of other origins."""
    gateway_limit_requests: PositiveInt = 512
    """Requests held at a time; more is answered 503 before its body is read."""
    gateway_limit_upload_bytes: PositiveInt = 26_214_400
    """Largest file of a request, in bytes; more is answered 413."""
    gateway_limit_buffer_bytes: PositiveInt = 536_870_912
    """Upload bytes held over all requests, kept for retries until the answer has begun; more is answered 503."""
    gateway_upload_seconds: PositiveFloat = 60.0
    """Longest time a body may take to arrive; slower is answered 408."""
    realtime_sessions: Annotated[int, Field(ge=0, le=100_000)] = 2048
    """Realtime sessions at a time; more is answered 503."""
    realtime_idle_seconds: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    """Longest time in which a realtime client sends nothing; it is told and disconnected then."""
    realtime_session_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    """Longest realtime session; the client is told and disconnected then."""
    realtime_utterance_seconds: Annotated[float, Field(gt=0, le=1800)] = 120.0
    """Longest audio between two commits of a realtime client that turned server VAD off; more is refused."""
    realtime_partial_seconds: Annotated[float, Field(ge=0, le=60)] = 0.5
    """New speech after which a realtime utterance is looked at again for partial transcripts, on an idle slot only; 0: none."""
    gateway_drain_seconds: PositiveFloat = 35.0
    """Longest wait for requests in flight at shutdown. Keep below the pod's terminationGracePeriodSeconds."""

    @property
    def limit_body_bytes(self) -> int:
        """Largest body: the file, and the form around it."""
        return self.gateway_limit_upload_bytes + FORM_OVERHEAD_BYTES
