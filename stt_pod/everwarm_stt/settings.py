"""What a pod is told, read once from `EVERWARM_*` when it starts; the only knobs it has.

`everwarm_core.pod_environment` writes what the WhisperModel resource says, whoever starts the process adds what the
place knows (Redis, port, pod id, token file). Built by `main` through `load_settings` and handed down as a frozen
value: nothing else in the pod reads the environment, and building it does no I/O. A misspelt variable cannot be an
error, since other programs share the prefix; `unknown_variables` names it so that `main` can warn.
"""

import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from uuid import uuid4

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from everwarm_core.environment import PREFIX, environment_error, split_list
from everwarm_core.errors import UnsupportedLanguage
from everwarm_core.keys import ModelKey, default_languages, is_english_only
from everwarm_core.languages import AUTO, parse_language

FOREIGN_VARIABLES: Final = frozenset(
    {"EVERWARM_API_KEY", "EVERWARM_BASE_URL", "EVERWARM_FALLBACK_URLS"}
)  # the agent's; a shared env file may hold both programs'

# What Kubernetes injects for a Service called everwarm-...; the chart switches it off, older manifests may not.
_SERVICE_LINK: Final = re.compile(
    r"EVERWARM_.*(SERVICE_(HOST|PORT)(_\w+)?|(?<=_)PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)


def _language(value: str) -> str:
    try:
        return parse_language(value)
    except UnsupportedLanguage as error:
        raise ValueError(str(error)) from error


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)]
Languages = Annotated[
    tuple[Annotated[str, AfterValidator(_language)], ...], NoDecode, BeforeValidator(split_list)
]


class PodSettings(BaseSettings):
    """All settings of a pod; each field is the variable `EVERWARM_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    # What the resource says.
    model: Annotated[str, Field(min_length=1)]
    """Whisper size (`base.en`), hub repository (`owner/name`), or absolute path of a folder with the weights."""
    name: str = ""
    """Name of the resource, one of the names served; default: the model."""
    languages: Languages = ()
    """Languages proven warm before Ready; `auto` is detection. Default: en for `*.en`, else auto."""
    aliases: Names = ()
    """Further names clients may ask for."""
    weights_path: Path | None = None
    """Folder that holds the weights; default: looked for by the model's name."""
    hub_revision: str | None = None
    """Git revision of the hub repository; default: main."""
    hub_endpoint: str | None = None
    """Base URL of a mirror of the hub; default: the public hub, or what HF_ENDPOINT says."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where decodes run."""
    compute_type: str = "default"
    """CTranslate2 compute type; `default` keeps the one the weights were saved in."""
    slots: Annotated[int, Field(ge=1, le=64)] = 1
    """Decodes at a time, on one copy of the weights."""
    queue: Annotated[int, Field(ge=0, le=1024)] = 4
    """Requests that may wait beyond the slots; more is answered 503."""
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    """Utterances that share a slot where they wait for one."""
    beam_size: Annotated[int, Field(ge=1, le=10)] = 5
    """Beams of the search; 1 is greedy."""
    vad: Literal["recordings", "always", "never"] = "recordings"
    """When silence is cut out before decoding: of audio over 30 s, of everything, or never."""
    window: Literal["auto", "full"] = "auto"
    """What of Whisper's 30 s an utterance is encoded in: as much as it needs, or always all of it."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sampling temperature of requests that name none; 0 falls back to higher ones by itself."""
    limit_audio_seconds: Annotated[float, Field(gt=0, le=86_400)] = 1800.0
    """Longest audio, in decoded seconds; more is answered 413."""
    limit_upload_bytes: Annotated[int, Field(gt=0, le=1 << 31)] = 26_214_400
    """Largest body, in bytes; more is answered 413."""
    warmup_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """Budget from process start to warm; the pod fails when it needs longer."""

    # What the place adds.
    namespace: Annotated[str, Field(min_length=1)] = "local"
    """Namespace of the registry's keys."""
    redis_url: Annotated[str | None, Field(repr=False)] = None
    """Redis or Valkey that holds the registry; without it the pod serves unregistered."""
    pod_id: Annotated[str, Field(min_length=1)] = Field(default_factory=lambda: str(uuid4()))
    """Id in the registry: the pod's UID; default: a fresh uuid4."""
    pod_url: str | None = None
    """Base URL under which agents reach this pod; default: http://<host>:<port>."""
    node: str = Field(default_factory=socket.gethostname)
    """Machine the pod runs on; default: the host name."""
    host: str = "127.0.0.1"
    """Address to listen on; loopback needs no token."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """Port to listen on; 0 takes any free one."""
    cpus: Annotated[float | None, Field(gt=0)] = None
    """CPUs to plan with; default: what the cgroup or the affinity mask grants."""
    token_file: Path | None = None
    """File with the internal token that agents must present; without it no token is asked for."""
    cache_dir: Path | None = None
    """Folder for weights this pod assembles itself; default: the user's cache folder."""
    probe_seconds: Annotated[float, Field(ge=0, le=60)] = 0.0
    """How often somebody asks `/readyz`, as the kubelet does: that it is warm, or drains, the pod says shortly before the next
    question, so that registry and kubelet hear of it together. 0: nobody asks, and it says so at once."""
    drain_timeout_seconds: Annotated[float, Field(gt=0)] = 35.0
    """Longest wait for held work after SIGTERM; keep it below terminationGracePeriodSeconds."""
    realtime_sessions: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Realtime sessions at a time; more is answered 503."""
    realtime_idle_seconds: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    """Longest time in which a realtime client sends nothing; it is told and disconnected then."""
    realtime_session_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    """Longest realtime session; the client is told and disconnected then."""
    realtime_utterance_seconds: Annotated[float, Field(gt=0, le=1800)] = 120.0
    """Longest audio between two commits of a realtime client that turned server VAD off; more is refused."""
    realtime_partial_seconds: Annotated[float, Field(ge=0, le=60)] = 0.5
    """New speech after which a realtime utterance is looked at again for partial transcripts, on an idle slot only; 0: none."""
    realtime_deadline_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest wait for a realtime utterance's final transcript."""
    body_timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Longest wait for a request's body; slower is answered 408."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.name:
            object.__setattr__(self, "name", self.model)
        if not self.languages:
            object.__setattr__(self, "languages", default_languages(self.model))
        if is_english_only(self.model) and set(self.languages) - {"en", AUTO}:
            raise ValueError(f"languages: model {self.model!r} knows English only; write en")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every name served: the model, the resource's name and the aliases, each once."""
        return tuple(dict.fromkeys((self.model, self.name, *self.aliases)))

    @property
    def keys(self) -> tuple[ModelKey, ...]:
        """Every (name, language) that must be warm before the pod is ready."""
        return tuple(ModelKey(name, language) for name in self.names for language in self.languages)

    def url(self, port: int) -> str:
        """The base URL to announce once *port* is bound."""
        if self.pod_url:
            return self.pod_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}"


def load_settings() -> PodSettings:
    """The settings in this process's environment; raises SettingsError that names each bad variable."""
    try:
        return PodSettings()
    except ValidationError as error:
        raise environment_error("this pod", error) from error


def unknown_variables(environ: Iterable[str]) -> tuple[str, ...]:
    """The names in *environ* that carry our prefix and that neither a pod nor another of our programs reads."""
    known = {PREFIX + name.upper() for name in PodSettings.model_fields} | FOREIGN_VARIABLES
    return tuple(
        sorted(
            name
            for name in environ
            if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name)
        )
    )
