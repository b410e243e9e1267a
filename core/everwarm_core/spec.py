"""The WhisperModel resource (`everwarm.dev/v1alpha1`): the one definition that everything else is made from.

The local platform reads it from YAML, the operator from the API server; field descriptions double as the
documentation of the custom resource. Values are frozen, so a spec can be compared, hashed by content and handed
to pure functions. Unknown fields are errors: a misspelt `slot:` must not pass as a default.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from everwarm_core.errors import SpecError, UnsupportedLanguage
from everwarm_core.keys import ModelKey, default_languages, is_english_only
from everwarm_core.languages import AUTO, parse_language

API_VERSION: Final = "everwarm.dev/v1alpha1"
KIND: Final = "WhisperModel"

MAX_LANGUAGES: Final = 101  # what Whisper knows, and auto; each is decoded twice before Ready
MAX_ALIASES: Final = 32

_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_MODEL: Final = re.compile(r"[A-Za-z0-9/][-A-Za-z0-9._/]*")


# pydantic says these in Python's words; whoever reads them wrote YAML.
_REASONS: Final = {
    "extra_forbidden": "unknown field; check its spelling",
    "missing": "is required",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_type": "must be text; put it in quotes if it looks like a number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
}
MAX_SHOWN: Final = 100  # characters of a bad value


def _checked_name(value: str) -> str:
    """A name clients may put in `model`: it travels in Redis keys, URLs and logs, so no spaces and no commas."""
    if len(value) > 253 or not _MODEL.fullmatch(value):
        raise ValueError("use letters, digits, '-', '_', '.', '/' only, at most 253 of them")
    return value


def _checked_object_name(value: str) -> str:
    if len(value) > 253 or not _DNS_SUBDOMAIN.fullmatch(value):
        raise ValueError(
            "use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
        )
    return value


def _checked_language(value: str) -> str:
    try:
        code = parse_language(value)
    except UnsupportedLanguage as error:
        raise ValueError(str(error)) from error
    if code != value:
        raise ValueError(f"write the code {code!r}")
    return value


def _unboolean(value: object) -> object:
    """YAML 1.1 reads an unquoted `no` (Norwegian) as false; nothing else can be meant in a list of languages."""
    return "no" if value is False else value


ServedName = Annotated[str, AfterValidator(_checked_name)]
ObjectName = Annotated[str, AfterValidator(_checked_object_name)]
Language = Annotated[str, BeforeValidator(_unboolean), AfterValidator(_checked_language)]


class SpecPart(BaseModel):
    """Frozen, closed, camelCase outside and snake_case inside; docstrings of fields are their descriptions.

    Strict, for a document must mean the same here and to the API server, which takes neither `"2"` nor `true` for 2.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class SecretKey(SpecPart):
    """A key of a Secret in the resource's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: str = "token"
    """Key inside the Secret."""


class HubSource(SpecPart):
    """Weights fetched from a Hugging Face hub, or a mirror of it, when a pod starts."""

    revision: str | None = None
    """Git revision (branch, tag or commit) to pin; default: the repository's main branch."""
    endpoint: str | None = None
    """Base URL of a mirror; default: the public hub."""
    token_secret: SecretKey | None = None
    """Secret with the access token of a private repository."""


class ClaimSource(SpecPart):
    """Weights on a PersistentVolumeClaim, mounted read-only."""

    claim_name: ObjectName
    """Name of the claim, in the resource's namespace."""
    path: str = "."
    """Folder inside the volume that holds model.bin."""


class ImageSource(SpecPart):
    """Weights in an OCI image, mounted as a volume (Kubernetes 1.33 or newer)."""

    reference: str
    """Image reference, as a container's `image`."""
    path: str = "."
    """Folder inside the image that holds model.bin."""


class Source(SpecPart):
    """Where weights come from; at most one of the fields. Default: the hub."""

    hub: HubSource | None = None
    """A Hugging Face hub."""
    persistent_volume_claim: ClaimSource | None = None
    """A PersistentVolumeClaim."""
    image: ImageSource | None = None
    """An OCI image."""
    path: Annotated[str, Field(pattern=r"^/")] | None = None
    """Absolute path of a folder that is already in the pod."""

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        given = [to_camel(name) for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"give at most one of hub, persistentVolumeClaim, image, path; got {', '.join(given)}"
            )
        return self


class Decode(SpecPart):
    """How speech is decoded; a request may override temperature only."""

    beam_size: Annotated[int, Field(ge=1, le=10)] = 5
    """Beams of the search; 1 is greedy."""
    vad: Literal["recordings", "always", "never"] = "recordings"
    """When silence is cut out before decoding: only of audio over 30 s, of everything, or never."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sampling temperature; 0 starts without sampling and falls back to higher ones when a decode looks wrong."""


class Limits(SpecPart):
    """What one request may ask for; more is answered 413."""

    audio_seconds: Annotated[float, Field(gt=0, le=86_400)] = 1800.0
    """Longest audio, in decoded seconds."""
    upload_bytes: Annotated[int, Field(gt=0, le=1 << 31)] = 26_214_400
    """Largest body, in bytes."""


class Warmup(SpecPart):
    """How long a pod may take to prove itself warm."""

    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """Budget from process start to warm; a pod that needs longer fails and is started again."""


class Template(SpecPart):
    """Merged into the pods on Kubernetes; the local platform has no use for it."""

    resources: dict[str, JsonValue] | None = None
    """Requests and limits of the container; default by model."""
    node_selector: dict[str, str] | None = None
    """Node labels the pods need."""
    tolerations: list[dict[str, JsonValue]] | None = None
    """Taints the pods tolerate."""
    affinity: dict[str, JsonValue] | None = None
    """Scheduling preferences."""
    topology_spread_constraints: list[dict[str, JsonValue]] | None = None
    """How pods spread over zones and nodes."""
    annotations: dict[str, str] | None = None
    """Annotations of the pods."""
    labels: dict[str, str] | None = None
    """Labels of the pods."""
    env: list[dict[str, JsonValue]] | None = None
    """Further environment variables of the container."""
    image_pull_secrets: list[dict[str, str]] | None = None
    """Secrets for private image registries."""
    runtime_class_name: str | None = None
    """RuntimeClass of the pods."""
    resource_claims: list[dict[str, JsonValue]] | None = None
    """Dynamic resource claims, passed through."""


class WhisperModelSpec(SpecPart):
    """What is to be served: one Whisper model, the languages it is proven warm for, and how many pods hold it."""

    image: str | None = None
    """Image of the speech-to-text pods; default: the operator's own release."""
    model: ServedName
    """Whisper size (`base.en`), hub repository (`owner/name`), or absolute path inside the pod."""
    languages: Annotated[tuple[Language, ...], Field(max_length=MAX_LANGUAGES, strict=False)] = ()
    """Languages proven warm before Ready; `auto` is language detection. Default: [en] for *.en, else [auto]."""
    aliases: Annotated[tuple[ServedName, ...], Field(max_length=MAX_ALIASES, strict=False)] = ()
    """Further names clients may ask for, such as whisper-1."""
    source: Source = Source()
    """Where the weights come from."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where decodes run."""
    compute_type: Literal[
        "default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32"
    ] | None = None  # fmt: skip
    """CTranslate2 compute type; default: int8 on cpu, float16 on cuda."""
    slots: Annotated[int, Field(ge=1, le=64)] = 1
    """Decodes a pod runs at a time, on one copy of the weights."""
    queue: Annotated[int, Field(ge=0, le=1024)] = 4
    """Requests a pod lets wait beyond its slots; more is answered 503 with Retry-After."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Pods wanted."""
    decode: Decode = Decode()
    """How speech is decoded."""
    limits: Limits = Limits()
    """What one request may ask for."""
    warmup: Warmup = Warmup()
    """How long becoming warm may take."""
    template: Template = Template()
    """Merged into the pods on Kubernetes."""

    @model_validator(mode="after")
    def _languages_fit_the_model(self) -> Self:
        if not self.languages:
            object.__setattr__(self, "languages", default_languages(self.model))
        if len(set(self.languages)) != len(self.languages):
            raise ValueError("languages: each at most once")
        if is_english_only(self.model) and set(self.languages) - {"en", AUTO}:
            raise ValueError(f"languages: model {self.model!r} knows English only; write [en]")
        return self

    @property
    def effective_compute_type(self) -> str:
        """The CTranslate2 type in use: the one given, else the usual one of the device."""
        return self.compute_type or ("float16" if self.device == "cuda" else "int8")


class Metadata(BaseModel):
    """The part of Kubernetes' metadata that matters here; the rest is left to Kubernetes."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    name: ObjectName
    """Name of the resource; always one of the names it serves."""
    namespace: str | None = None
    """Namespace of the resource; the local platform has only one."""


class WhisperModel(BaseModel):
    """A resource as declared: `apiVersion`, `kind`, `metadata` and `spec`; a status is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    api_version: Literal["everwarm.dev/v1alpha1"] = "everwarm.dev/v1alpha1"
    kind: Literal["WhisperModel"] = "WhisperModel"
    metadata: Metadata
    spec: WhisperModelSpec

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def names(self) -> tuple[str, ...]:
        """Every name clients may ask for: the model, metadata.name and the aliases, each once."""
        return tuple(dict.fromkeys((self.spec.model, self.metadata.name, *self.spec.aliases)))

    @property
    def keys(self) -> tuple[ModelKey, ...]:
        """Every (name, language) that a pod of this resource must hold warm before it is Ready."""
        return tuple(ModelKey(name, language) for name in self.names for language in self.spec.languages)

    @classmethod
    def from_document(cls, document: object, *, source: str) -> Self:
        """The resource in a parsed YAML or JSON document.

        source: named in errors, such as a file name. Raises SpecError with the path of each bad field.
        """
        try:
            return cls.model_validate(document, by_alias=True, by_name=False)
        except ValidationError as error:
            raise SpecError(source, tuple(_problems(error))) from error


def load_resources(path: Path) -> tuple[WhisperModel, ...]:
    """The WhisperModels in the YAML file at *path*, which may hold several documents.

    Raises SpecError when the file cannot be read, is no YAML, holds none, or one of them is invalid.
    """
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), (("(file)", f"cannot be read: {error}"),)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-99-99
        raise SpecError(str(path), (("(file)", f"is no YAML: {error}"),)) from error
    if not documents:
        raise SpecError(str(path), (("(file)", "holds no resource"),))
    return tuple(
        WhisperModel.from_document(
            document,
            source=f"{path} (document {number})" if len(documents) > 1 else str(path),
        )
        for number, document in enumerate(documents, start=1)
    )


def ensure_names_are_unique(resources: Iterable[WhisperModel]) -> None:
    """Raise SpecError when a name would mean two things: the resource that claims it second is at fault.

    A metadata.name or alias belongs to one resource. An equal `model` is no claim: such resources pool their pods
    under it. But nobody else's name or alias may be that model, or pods of another model would answer to it.
    """
    resources = tuple(resources)
    owners: dict[str, WhisperModel] = {}
    for resource in resources:
        for path, name in _claims(resource):
            owner = owners.setdefault(name, resource)
            if owner is not resource:
                reason = f"{name!r} is claimed by resource {owner.name!r} already; choose another one"
                raise SpecError(resource.name, ((path, reason),))
            for other in resources:
                if name == other.spec.model != resource.spec.model:
                    reason = f"{name!r} is the model of resource {other.name!r}, and this one's is {resource.spec.model!r}"
                    raise SpecError(resource.name, ((path, f"{reason}; choose another one"),))


def _claims(resource: WhisperModel) -> Iterator[tuple[str, str]]:
    """The names that are the resource's own, each with its path."""
    yield "metadata.name", resource.name
    for number, alias in enumerate(resource.spec.aliases):
        yield f"spec.aliases[{number}]", alias


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    for problem in error.errors(include_url=False):
        kind, given = problem["type"], problem["input"]
        reason = _REASONS.get(kind) or problem["msg"].removeprefix("Value error, ")
        if isinstance(given, (str, int, float)) and kind != "extra_forbidden":
            shown = repr(given)
            reason += f" (got {shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + '...'})"
        yield _path(problem["loc"]), reason


def _path(location: tuple[int | str, ...]) -> str:
    """As Kubernetes writes it: `spec.languages[0]`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".") or "(document)"
