"""The WhisperModel resource (`everwarm.dev/v1alpha1`): the one definition that everything else is made from.

The local platform reads it from YAML, the operator from the API server; field descriptions double as the
documentation of the custom resource. Values are frozen, so a spec can be compared, hashed by content and handed
to pure functions. Unknown fields are errors: a misspelt `slot:` must not pass as a default.

The schema of the CustomResourceDefinition is made from these types (`everwarm_operator.crd`), so every text, list and
mapping has an upper bound here: the API server adds up what a rule may cost at worst, and refuses a definition that
might be expensive. Rules over several fields are written twice, below and there in CEL; a test asks a real API server
and this module the same questions and compares the answers.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue

from everwarm_core.environment import PREFIX
from everwarm_core.errors import SpecError, UnsupportedLanguage
from everwarm_core.keys import ModelKey, default_languages, is_english_only
from everwarm_core.languages import AUTO, LANGUAGE_NAMES, parse_language

API_VERSION: Final = "everwarm.dev/v1alpha1"
KIND: Final = "WhisperModel"

MAX_LANGUAGES: Final = 101  # what Whisper knows, and auto; each is decoded twice before Ready
MAX_ALIASES: Final = 32
MAX_NAME: Final = 253  # of an object, as Kubernetes has it; and of a name clients may ask for
MAX_QUANTITY: Final = 32  # characters; more digits than any machine has bytes
MAX_RESOURCE_NAME: Final = 52
"""Of a WhisperModel: the longest name derived from one, `m-<name>-<hash of eight>`, then fits a Service and a label
(63) uncut, so that every object can be told by its resource's name."""

NEEDS_CUDA: Final = ("float16", "int8_float16")
"""CTranslate2 refuses these on every CPU, so that a pod would fail at each start; bfloat16 depends on the CPU."""
RESERVED_ENV: Final = PREFIX
"""Variables whose names begin so are made from the resource; one in template.env would contradict its own spec."""
RESERVED_PREFIXES: Final = ("everwarm.dev/", "app.kubernetes.io/")
"""Labels and annotations by which the operator and Services find pods; a template that sets one would hide them."""

_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MODEL: Final = re.compile(r"[A-Za-z0-9/][-A-Za-z0-9._/]*")

# What Kubernetes takes as an amount, without its sign: no resource may be negative.
_QUANTITY: Final = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?")
_LABEL_VALUE: Final = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"


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
    if len(value) > MAX_NAME or not _MODEL.fullmatch(value):
        raise ValueError("use letters, digits, '-', '_', '.', '/' only, at most 253 of them")
    return value


def _checked_object_name(value: str) -> str:
    if len(value) > MAX_NAME or not _DNS_SUBDOMAIN.fullmatch(value):
        raise ValueError(
            "use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
        )
    return value


def _checked_resource_name(value: str) -> str:
    if len(value) > MAX_RESOURCE_NAME:
        raise ValueError(
            f"use at most {MAX_RESOURCE_NAME} characters: names of Services and labels are made from it"
        )
    return value


def _checked_relative_path(value: str) -> str:
    if value.startswith("/") or "/../" in f"/{value}/":
        raise ValueError("stay inside the volume: no leading '/' and no '..'")
    return value


def _checked_keys(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if key.startswith(RESERVED_PREFIXES):
            raise ValueError(
                f"{key!r}: keys that begin with {' or '.join(RESERVED_PREFIXES)} are the operator's"
            )
    return value


def _checked_uniqueness(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [entry["name"] for entry in value]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"each name at most once; {name!r} is there twice")
    return value


def _whole(value: object) -> object:
    """1.0 as 1: JSON has one kind of number, and the API server takes both."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _checked_quantity(value: object) -> object:
    value = _whole(value)
    is_amount = (
        len(value) <= MAX_QUANTITY and _QUANTITY.fullmatch(value) is not None
        if isinstance(value, str)
        else isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    )
    if not is_amount:
        raise ValueError("must be an amount such as 2, 500m or 2Gi; put fractions in quotes")
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


# Checked by functions for the sake of what they say; the schema beside each says the same to the API server.
ServedName = Annotated[
    str,
    AfterValidator(_checked_name),
    WithJsonSchema({"type": "string", "maxLength": MAX_NAME, "pattern": f"^{_MODEL.pattern}$"}),
]
ObjectName = Annotated[
    str,
    AfterValidator(_checked_object_name),
    WithJsonSchema({"type": "string", "maxLength": MAX_NAME, "pattern": f"^{_DNS_SUBDOMAIN.pattern}$"}),
]
ResourceName = Annotated[ObjectName, AfterValidator(_checked_resource_name)]
Language = Annotated[
    str,
    BeforeValidator(_unboolean),
    AfterValidator(_checked_language),
    WithJsonSchema({"type": "string", "enum": [*LANGUAGE_NAMES, AUTO]}),
]
RelativePath = Annotated[str, AfterValidator(_checked_relative_path), Field(min_length=1, max_length=1024)]
ImageReference = Annotated[str, Field(pattern=r"^[!-~]+$", max_length=1024)]
WHOLE: Final = BeforeValidator(_whole)
LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE, max_length=63)]
Quantity = Annotated[
    int | str,
    BeforeValidator(_checked_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maxLength": MAX_QUANTITY,
            "pattern": f"^{_QUANTITY.pattern}$",
        }
    ),
]
PassedThrough = Annotated[dict[str, JsonValue], Field(max_length=32)]
"""A part of a pod's spec that is passed through as written; Kubernetes checks what is inside."""


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


class Shape:
    """Annotates a mapping that has the fields of *part* and yet stays a mapping.

    For what is copied into a pod as written: it is checked when the resource is read, and what is sent to Kubernetes
    has no field that nobody wrote.
    """

    def __init__(self, part: type[SpecPart]) -> None:
        self.part = part

    def __get_pydantic_core_schema__(self, source: type[object], handler: GetCoreSchemaHandler) -> Any:
        """A mapping, and then an instance of the part, which is thrown away."""
        return AfterValidator(self._checked).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, _: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The part's."""
        return handler(self.part.__pydantic_core_schema__)

    def _checked(self, value: dict[str, Any]) -> dict[str, Any]:
        self.part.model_validate(value, by_alias=True, by_name=False)
        return value


class SecretKey(SpecPart):
    """A key of a Secret in the resource's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=MAX_NAME)] = "token"
    """Key inside the Secret."""


class HubSource(SpecPart):
    """Weights fetched from a Hugging Face hub, or a mirror of it, when a pod starts."""

    revision: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Git revision (branch, tag or commit) to pin; default: the repository's main branch."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=2048)] | None = None
    """Base URL of a mirror; default: the public hub."""
    token_secret: SecretKey | None = None
    """Secret with the access token of a private repository."""


class ClaimSource(SpecPart):
    """Weights on a PersistentVolumeClaim, mounted read-only."""

    claim_name: ObjectName
    """Name of the claim, in the resource's namespace."""
    path: RelativePath = "."
    """Folder inside the volume that holds model.bin."""


class ImageSource(SpecPart):
    """Weights in an OCI image, mounted as a volume (Kubernetes 1.33 or newer)."""

    reference: ImageReference
    """Image reference, as a container's `image`."""
    path: RelativePath = "."
    """Folder inside the image that holds model.bin."""


class Source(SpecPart):
    """Where weights come from; at most one of the fields. Default: the hub."""

    hub: HubSource | None = None
    """A Hugging Face hub."""
    persistent_volume_claim: ClaimSource | None = None
    """A PersistentVolumeClaim."""
    image: ImageSource | None = None
    """An OCI image."""
    path: Annotated[str, Field(pattern=r"^/", max_length=1024)] | None = None
    """Absolute path of a folder that is already in the pod."""

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if len(self.given) > 1:
            raise ValueError(
                f"give at most one of hub, persistentVolumeClaim, image, path; got {', '.join(self.given)}"
            )
        return self

    @property
    def given(self) -> tuple[str, ...]:
        """The fields that are there, as the resource spells them: none or one."""
        return tuple(to_camel(name) for name in type(self).model_fields if getattr(self, name) is not None)


class Decode(SpecPart):
    """How speech is decoded; a request may override temperature only."""

    beam_size: Annotated[int, Field(ge=1, le=10), WHOLE] = 5
    """Beams of the search; 1 is greedy."""
    vad: Literal["recordings", "always", "never"] = "recordings"
    """When silence is cut out before decoding: only of audio over 30 s, of everything, or never."""
    window: Literal["auto", "full"] = "auto"
    """What of Whisper's 30 s an utterance is encoded in: as much as it needs, with a second try at all of it where the
    result is in doubt, or always all of it."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sampling temperature; 0 starts without sampling and falls back to higher ones when a decode looks wrong."""


class Limits(SpecPart):
    """What one request may ask for; more is answered 413."""

    audio_seconds: Annotated[float, Field(gt=0, le=86_400)] = 1800.0
    """Longest audio, in decoded seconds."""
    upload_bytes: Annotated[int, Field(gt=0, le=1 << 31), WHOLE] = 26_214_400
    """Largest body, in bytes."""


class Warmup(SpecPart):
    """How long a pod may take to prove itself warm."""

    timeout_seconds: Annotated[int, Field(ge=1, le=86_400), WHOLE] = 600
    """Budget from process start to warm; a pod that needs longer fails and is started again."""


class Rollout(SpecPart):
    """How one generation of pods follows the other. The default adds a warm pod before it takes one away, and so needs
    room for one more; where the last GPU is taken, maxUnavailable 1 and maxSurge 0 replace pods in their place, with
    one pod less meanwhile.
    """

    max_surge: Annotated[int, Field(ge=0, le=1000), WHOLE] = 1
    """Pods there may be beyond replicas during a rollout."""
    max_unavailable: Annotated[int, Field(ge=0, le=1000), WHOLE] = 0
    """Pods that may be missing from replicas during a rollout; above 0, requests meet fewer warm pods meanwhile."""

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise ValueError("maxUnavailable: a rollout needs maxSurge or maxUnavailable above 0")
        return self


class EnvVar(SpecPart):
    """An environment variable of the container: a value, or where it comes from."""

    name: Annotated[str, Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=MAX_NAME)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Its text; put numbers in quotes."""
    value_from: PassedThrough | None = None
    """Where the value comes from, such as secretKeyRef, as in a container's `env`."""

    @model_validator(mode="after")
    def _is_not_ours(self) -> Self:
        if self.name.startswith(RESERVED_ENV):
            raise ValueError(f"name: {RESERVED_ENV}* variables are made from the spec; set the field instead")
        return self

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.value is not None and self.value_from is not None:
            raise ValueError("give value or valueFrom, not both")
        return self


class Resources(SpecPart):
    """What a container asks of its node."""

    requests: Annotated[dict[str, Quantity], Field(max_length=32)] | None = None
    """What the node sets aside, by resource: `cpu: 500m`, `memory: 2Gi`."""
    limits: Annotated[dict[str, Quantity], Field(max_length=32)] | None = None
    """What the container may not exceed, by resource; devices such as `nvidia.com/gpu: 1` belong here."""
    claims: Annotated[list[PassedThrough], Field(max_length=16)] | None = None
    """Entries of resourceClaims that the container uses, each by its name."""


class PullSecret(SpecPart):
    """A Secret that opens a private image registry."""

    name: ObjectName
    """Name of the Secret, in the resource's namespace."""


Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=65_536)]], Field(max_length=64), AfterValidator(_checked_keys)
]
Labels = Annotated[dict[str, LabelValue], Field(max_length=64), AfterValidator(_checked_keys)]
EnvVars = Annotated[
    list[Annotated[dict[str, JsonValue], Shape(EnvVar)]],
    Field(max_length=128),
    AfterValidator(_checked_uniqueness),
]
PullSecrets = Annotated[
    list[Annotated[dict[str, str], Shape(PullSecret)]],
    Field(max_length=16),
    AfterValidator(_checked_uniqueness),
]


class Template(SpecPart):
    """Merged into the pods on Kubernetes; the local platform has no use for it."""

    resources: Annotated[dict[str, JsonValue], Shape(Resources)] | None = None
    """Requests and limits of the container; default by model."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=64)] | None = None
    """Node labels the pods need."""
    tolerations: Annotated[list[PassedThrough], Field(max_length=64)] | None = None
    """Taints the pods tolerate."""
    affinity: PassedThrough | None = None
    """Scheduling preferences."""
    topology_spread_constraints: Annotated[list[PassedThrough], Field(max_length=16)] | None = None
    """How pods spread over zones and nodes."""
    annotations: Annotations | None = None
    """Annotations of the pods."""
    labels: Labels | None = None
    """Labels of the pods."""
    env: EnvVars | None = None
    """Further environment variables of the container."""
    image_pull_secrets: PullSecrets | None = None
    """Secrets for private image registries."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods."""
    resource_claims: Annotated[list[PassedThrough], Field(max_length=16)] | None = None
    """Dynamic resource claims, passed through."""


class WhisperModelSpec(SpecPart):
    """What is to be served: one Whisper model, the languages it is proven warm for, and how many pods hold it."""

    image: ImageReference | None = None
    """Image of the speech-to-text pods; default: the operator's own release."""
    model: ServedName
    """Whisper size (`base.en`), hub repository (`owner/name`), or absolute path inside the pod."""
    languages: Annotated[tuple[Language, ...], Field(max_length=MAX_LANGUAGES, strict=False)] = ()
    """Languages proven warm before Ready, as Whisper's codes; `auto` is language detection. Default: [en] for *.en,
    else [auto]. Quote "no" (Norwegian): unquoted, YAML reads it as false."""
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
    slots: Annotated[int, Field(ge=1, le=64), WHOLE] = 1
    """Decodes a pod runs at a time, on one copy of the weights."""
    queue: Annotated[int, Field(ge=0, le=1024), WHOLE] = 4
    """Requests a pod lets wait beyond its slots; more is answered 503 with Retry-After."""
    batch: Annotated[int, Field(ge=1, le=64), WHOLE] | None = None
    """Utterances that share a slot where they wait for one; default: 1 on cpu, 16 on cuda, which nobody has measured."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = (
        1  # not WHOLE: /scale reads only what is written without a point
    )
    """Pods wanted."""
    decode: Decode = Decode()
    """How speech is decoded."""
    limits: Limits = Limits()
    """What one request may ask for."""
    warmup: Warmup = Warmup()
    """How long becoming warm may take."""
    rollout: Rollout = Rollout()
    """How pods are replaced when what they are made of changes."""
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

    @model_validator(mode="after")
    def _compute_type_fits_the_device(self) -> Self:
        if self.device == "cpu" and self.compute_type in NEEDS_CUDA:
            raise ValueError(
                f"computeType: {self.compute_type} needs device cuda; leave it out, or write int8"
            )
        return self

    @model_validator(mode="after")
    def _weights_come_from_one_place(self) -> Self:
        if self.model.startswith("/") and self.source.given:
            raise ValueError(
                f"source: model {self.model!r} is the path of its weights; leave out source, or give the model a name"
            )
        return self

    @property
    def effective_compute_type(self) -> str:
        """The CTranslate2 type in use: the one given, else the usual one of the device."""
        return self.compute_type or ("float16" if self.device == "cuda" else "int8")

    @property
    def effective_batch(self) -> int:
        """Utterances that share a slot at most: as given, else what suits the device (docs/adr/0012)."""
        if self.decode.window == "full":  # faster-whisper's own path, which searches one by one
            return 1
        return self.batch or (16 if self.device == "cuda" else 1)


class Metadata(BaseModel):
    """The part of Kubernetes' metadata that matters here; the rest is left to Kubernetes."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    name: ResourceName
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
