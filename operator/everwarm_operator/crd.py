"""The CustomResourceDefinition of WhisperModel, made from the pydantic model in core.

`docs/generate.py` writes it into the chart and the reference page; a test fails when either differs from what this
module returns. Pure: no cluster, no file, no clock.

The API server takes a *structural* schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definitions/#specifying-a-structural-schema), which is narrower than the JSON Schema that pydantic
writes. `_structural` translates one into the other: references are put in place, "or null" goes (the API server drops
null where a field is not nullable), free-form mappings keep their unknown fields, and what cannot be said raises
rather than vanish. What pydantic holds in Python functions, rules over several fields, is said again in RULES, in CEL;
tests/operator/test_crd_on_api_server.py asks both the same questions.

No field is immutable. Of every field that a pod is made from, a change is a rolling update: the old pods stay until
as many new ones are warm. metadata.name, from which the names and selectors of all objects come, is immutable anyway.
"""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final, TypeAlias

from everwarm_core.spec import (
    API_VERSION,
    KIND,
    MAX_ALIASES,
    MAX_LANGUAGES,
    MAX_NAME,
    MAX_RESOURCE_NAME,
    NEEDS_CUDA,
    RESERVED_ENV,
    RESERVED_PREFIXES,
    Source,
    WhisperModelSpec,
)

Schema: TypeAlias = dict[str, Any]

GROUP: Final = API_VERSION.split("/")[0]
VERSION: Final = API_VERSION.split("/")[1]
PLURAL: Final = "whispermodels"
NAME: Final = f"{PLURAL}.{GROUP}"

KEPT: Final = frozenset(
    (
        "type", "description", "required", "enum", "format", "pattern",
        "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties",
    )
)  # fmt: skip
"""Words of JSON Schema that mean the same in both and are copied."""
MAX_MESSAGE: Final = 32_768  # of a condition, as Kubernetes bounds its own
INT32: Final = 2_147_483_647


def custom_resource_definition() -> Schema:
    """The whole object, ready to be applied; made anew for each caller."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["wm"],
                "categories": ["everwarm"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": deepcopy(list(PRINTER_COLUMNS)),
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": resource_schema()},
                }
            ],
        },
    }


def resource_schema() -> Schema:
    """The structural schema of a WhisperModel, with every rule in its place."""
    schema: Schema = {
        "type": "object",
        "description": f"{KIND}: one Whisper model that is kept warm, and the pods that hold it.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {API_VERSION}.", "maxLength": MAX_NAME},
            "kind": {"type": "string", "description": f"Always {KIND}.", "maxLength": MAX_NAME},
            "metadata": {
                "type": "object"
            },  # Kubernetes' own; no other word is allowed here, not even a description
            "spec": spec_schema(),
            "status": deepcopy(STATUS),
        },
    }
    for path, words in LIST_TYPES.items():
        part_of(schema, path).update(words)
    for path, rules in RULES.items():
        part_of(schema, path)["x-kubernetes-validations"] = deepcopy(list(rules))
    return schema


def spec_schema() -> Schema:
    """The schema of `spec`, as far as the types in core tell it."""
    written = WhisperModelSpec.model_json_schema(by_alias=True)
    return _structural(written, written.get("$defs", {}))


def part_of(schema: Schema, path: str) -> Schema:
    """The part of *schema* at *path*, written as in `spec.template.env[].name`; the root has the empty path.

    Raises KeyError when there is none: a field that is renamed takes its rules along, or nothing is built.
    """
    for step in path.split(".") if path else ():
        name = step.removesuffix("[]")
        schema = schema["properties"][name]
        if step.endswith("[]"):
            schema = schema["items"]
    return schema


# --- Rules ---------------------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """*text*, which has neither quotes nor backslashes, as a string of CEL."""
    return f"'{text}'"


def _rule(rule: str, message: str, **more: str) -> Mapping[str, str]:
    return {"rule": rule, "message": message, **more}


_SOURCES: Final = [field.alias or name for name, field in Source.model_fields.items()]
_GIVEN: Final = "[" + ", ".join(f"has(self.{source})" for source in _SOURCES) + "]"
_IS_PATH: Final = "self.model.startsWith('/')"
_STAYS_INSIDE: Final = _rule(
    "!self.startsWith('/') && !('/' + self + '/').contains('/../')",
    "stay inside the volume: no leading '/' and no '..'",
)
_KEYS_ARE_FREE: Final = _rule(
    "self.all(key, "
    + " && ".join(f"!key.startsWith({_quoted(prefix)})" for prefix in RESERVED_PREFIXES)
    + ")",
    f"keys that begin with {' or '.join(RESERVED_PREFIXES)} are the operator's",
)

RULES: Final[Mapping[str, tuple[Mapping[str, str], ...]]] = {
    "": (
        # metadata itself may hold no rule: https://kubernetes.io/docs/reference/using-api/cel/ shows its name at the root.
        _rule(
            f"size(self.metadata.name) <= {MAX_RESOURCE_NAME}",
            f"metadata.name: use at most {MAX_RESOURCE_NAME} characters: names of Services and labels are made from it",
        ),
    ),
    "spec": (
        # keys.is_english_only, in CEL.
        _rule(
            "!self.model.matches('[.]en/*$') || !has(self.languages)"
            " || self.languages.all(language, language in ['en', 'auto'])",
            "a model whose name ends in .en knows English only; write [en]",
            fieldPath=".languages",
        ),
        _rule(
            f"!{_IS_PATH} || !has(self.source) || !"
            + _GIVEN.replace("self.", "self.source.")
            + ".exists(given, given)",
            "model is the path of its weights; leave out source, or give the model a name",
            fieldPath=".source",
        ),
        _rule(
            "self.device != 'cpu' || !has(self.computeType)"
            f" || !(self.computeType in [{', '.join(map(_quoted, NEEDS_CUDA))}])",
            f"{' and '.join(NEEDS_CUDA)} need device cuda; leave computeType out, or write int8",
            fieldPath=".computeType",
        ),
    ),
    "spec.source": (
        _rule(f"{_GIVEN}.filter(given, given).size() <= 1", f"give at most one of {', '.join(_SOURCES)}"),
    ),
    "spec.rollout": (
        _rule(
            # Guarded: the default of the whole is judged before the fields of it have theirs.
            "!has(self.maxSurge) || self.maxSurge > 0 || has(self.maxUnavailable) && self.maxUnavailable > 0",
            "a rollout needs maxSurge or maxUnavailable above 0",
            fieldPath=".maxUnavailable",
        ),
    ),
    "spec.source.persistentVolumeClaim.path": (_STAYS_INSIDE,),
    "spec.source.image.path": (_STAYS_INSIDE,),
    "spec.template.annotations": (_KEYS_ARE_FREE,),
    "spec.template.labels": (_KEYS_ARE_FREE,),
    "spec.template.env[]": (
        _rule(
            f"!self.name.startsWith({_quoted(RESERVED_ENV)})",
            f"{RESERVED_ENV}* variables are made from the spec; set the field instead",
            fieldPath=".name",
        ),
        _rule("!(has(self.value) && has(self.valueFrom))", "give value or valueFrom, not both"),
    ),
}
"""By path in the schema. Each has its counterpart in core, a validator of the same field."""

_BY_NAME: Final = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

LIST_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "spec.languages": {"x-kubernetes-list-type": "set"},
    "spec.template.env": _BY_NAME,
    "spec.template.imagePullSecrets": _BY_NAME,
}
"""Lists whose entries may have several owners under server-side apply, and are refused when one is there twice.
All others are owned whole. Aliases are: one that repeats another name says the same once more, which harms nobody."""


# --- Status --------------------------------------------------------------------------------------------------------


def _text(description: str, *, limit: int = MAX_NAME) -> Schema:
    return {"type": "string", "description": description, "maxLength": limit}


def _count(description: str) -> Schema:
    return {"type": "integer", "format": "int32", "description": description, "minimum": 0, "maximum": INT32}


def _generation(description: str) -> Schema:
    return {"type": "integer", "format": "int64", "description": description, "minimum": 0}


def _seconds(description: str) -> Schema:
    return {"type": "number", "description": description, "minimum": 0}


def _texts(description: str, *, limit: int) -> Schema:
    return {
        "type": "array",
        "description": description,
        "maxItems": limit,
        "items": {"type": "string", "maxLength": MAX_NAME},
        "x-kubernetes-list-type": "set",
    }


STATUS: Final[Schema] = {
    "type": "object",
    "description": "What the operator saw last; it alone writes it.",
    "properties": {
        "observedGeneration": _generation("metadata.generation that this status is about."),
        "replicas": _count("Pods there are."),
        "readyReplicas": _count("Pods that Kubernetes counts as Ready."),
        "warmReplicas": _count("Pods that the registry holds as warm for every name and language."),
        "selector": _text("Label selector of the pods, as text; autoscalers read it.", limit=1024),
        "model": _text("Model that is served."),
        "names": _texts(
            "Every name clients may ask for: the model, metadata.name and the aliases.", limit=MAX_ALIASES + 2
        ),
        "languages": _texts("Languages proven warm, with the default filled in.", limit=MAX_LANGUAGES),
        "loadSeconds": _seconds("Longest load of the weights among the pods, in seconds."),
        "warmSeconds": _seconds(
            "Longest way from process start to warm among the pods, in seconds; loadSeconds is part of it."
        ),
        "conditions": {
            "type": "array",
            "description": "Ready, Reconciling and Stalled, as `kubectl wait` and Helm understand them.",
            "maxItems": 16,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "description": "One aspect of the state.",
                "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                "properties": {
                    "type": {
                        **_text("Ready, Reconciling or Stalled.", limit=316),
                        "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
                        r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                    },
                    "status": {
                        "type": "string",
                        "description": "Whether it holds.",
                        "enum": ["True", "False", "Unknown"],
                    },
                    "observedGeneration": _generation("metadata.generation that this condition is about."),
                    "lastTransitionTime": {
                        "type": "string",
                        "format": "date-time",
                        "description": "When status changed last.",
                        "maxLength": 64,
                    },
                    "reason": {
                        **_text("Why, in one CamelCase word for programs.", limit=1024),
                        "minLength": 1,
                        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    },
                    "message": _text("Why, in a sentence for people.", limit=MAX_MESSAGE),
                },
            },
        },
    },
}
"""Conditions have the fields and bounds of Kubernetes' own `metav1.Condition`."""


# --- `kubectl get` -------------------------------------------------------------------------------------------------


def _column(name: str, kind: str, path: str, description: str, **more: Any) -> Mapping[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, "description": description, **more}


_READY: Final = '.status.conditions[?(@.type=="Ready")]'

PRINTER_COLUMNS: Final = (
    _column("MODEL", "string", ".spec.model", "Whisper model."),
    # The status has the default filled in; a list prints as ["en","de"], since JSONPath in a definition cannot join.
    _column("LANGUAGES", "string", ".status.languages", "Languages proven warm."),
    _column("DESIRED", "integer", ".spec.replicas", "Pods wanted."),
    _column("WARM", "integer", ".status.warmReplicas", "Pods warm for every name and language."),
    _column("READY", "string", f"{_READY}.status", "Whether all that is wanted is warm."),
    _column("LOAD", "number", ".status.loadSeconds", "Seconds that loading the weights took."),
    _column("AGE", "date", ".metadata.creationTimestamp", "Time since the resource was made."),
    _column("REASON", "string", f"{_READY}.reason", "Why it is Ready or not.", priority=1),  # with -o wide
)


# --- From JSON Schema to a structural schema -----------------------------------------------------------------------


def _structural(written: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """*written*, a schema of pydantic's, in the words that the API server takes."""
    written = _in_place(written, definitions)
    if not written.keys() - {"title", "description"}:  # JsonValue: anything
        return {"x-kubernetes-preserve-unknown-fields": True, **_pick(written, {"description"})}
    made = _pick(written, KEPT)
    unknown = written.keys() - KEPT - {
        "$defs", "title", "default", "properties", "items", "additionalProperties", "exclusiveMinimum", "x-kubernetes-int-or-string"
    }  # fmt: skip
    if unknown:
        raise ValueError(f"a structural schema has no words for {sorted(unknown)} of {written}")
    if "x-kubernetes-int-or-string" in written:
        made["x-kubernetes-int-or-string"] = True
    if "exclusiveMinimum" in written:  # a number here, a flag beside the minimum there
        made |= {"minimum": written["exclusiveMinimum"], "exclusiveMinimum": True}
    if made.get("type") == "integer":
        made["format"] = "int32" if made.get("maximum", INT32) <= INT32 else "int64"
    if "properties" in written:
        made["properties"] = {
            name: _with_default(_structural(field, definitions), field)
            for name, field in written["properties"].items()
        }
    elif "additionalProperties" in written:
        values = written["additionalProperties"]
        inner = {} if values is True else _structural(values, definitions)
        if inner.keys() <= {"x-kubernetes-preserve-unknown-fields"}:
            made["x-kubernetes-preserve-unknown-fields"] = True
        else:
            made["additionalProperties"] = inner
    if "items" in written:
        made["items"] = _structural(written["items"], definitions)
    if "description" in made:
        made["description"] = inspect.cleandoc(made["description"]).replace("\n", " ")
    return made


def _in_place(written: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """*written* without a reference and without alternatives; what stands beside them, such as a description, wins."""
    while "$ref" in written or "anyOf" in written:
        beside = {key: value for key, value in written.items() if key not in ("$ref", "anyOf")}
        if "$ref" in written:
            written = {**definitions[written["$ref"].removeprefix("#/$defs/")], **beside}
            continue
        choices = [choice for choice in written["anyOf"] if choice != {"type": "null"}]
        if [choice.get("type") for choice in choices] == ["integer", "string"]:
            return {"x-kubernetes-int-or-string": True, **beside}
        if len(choices) != 1:
            raise ValueError(f"a structural schema has no words for the alternatives {choices}")
        written = {**choices[0], **beside}
    return written


def _with_default(made: Schema, written: Schema) -> Schema:
    """*made* with the default of the field, where it is a fixed value.

    None and the empty list mean "not given": what holds then depends on other fields, or on the operator. An object
    is defaulted to {} when fields inside have defaults, or the API server would not fill those in.
    """
    default = written.get("default")
    if isinstance(default, dict):
        has_defaults = any("default" in field for field in made.get("properties", {}).values())
        return {**made, "default": {}} if has_defaults else made
    return made if default is None or default == [] else {**made, "default": default}


def _pick(written: Schema, keys: frozenset[str] | set[str]) -> Schema:
    return {key: value for key, value in written.items() if key in keys}
