"""Names, labels and annotations of everything the operator makes, derived from a WhisperModel.

A resource may be called `base.en`, a Service may not: its name is a DNS-1035 label. Where the name fits, the
objects are called like the resource; otherwise it is bent into shape and gets a hash of the original, so that
`base.en` and `base-en` cannot meet. A name that already ends like such a hash gets one too, or a resource called
like the bent name of another would meet that one's objects.

The selector labels are part of a Deployment for ever, since the API server refuses to change them: add labels to
`object_labels`, never to `selector_labels`.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

FIELD_MANAGER: Final = "everwarm-operator"
DOMAIN: Final = "everwarm.dev"

WARM_GATE: Final = f"{DOMAIN}/warm"
"""Condition type of the readiness gate on every pod."""

APPLIED_ANNOTATION: Final = f"{DOMAIN}/applied"
"""On every object: digest of what was applied last."""

NAMES_ANNOTATION: Final = f"{DOMAIN}/names"
"""On pods: the names this pod must be warm for, joined by commas, which names cannot contain."""

LANGUAGES_ANNOTATION: Final = f"{DOMAIN}/languages"
"""On pods: the languages this pod must be warm for, joined by commas."""

TEMPLATE_ANNOTATION: Final = f"{DOMAIN}/template"
"""On pods: digest of the template they were made from; tells those of the newest generation from the others."""

NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
PART_OF_LABEL: Final = "app.kubernetes.io/part-of"

POD_LABELS: Final[Mapping[str, str]] = {NAME_LABEL: "everwarm-stt", COMPONENT_LABEL: "stt"}
"""What all pods of all resources have in common: what to watch."""

MAX_NAME: Final = 63  # DNS-1035 label; also the longest value of a label
_DNS_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_HASH_CHARACTERS: Final = 8
_HASHED: Final = re.compile(rf".*-[0-9a-f]{{{_HASH_CHARACTERS}}}")


def object_name(resource_name: str) -> str:
    """The name of all objects of the resource *resource_name*: a DNS-1035 label that no other resource gets."""
    fits = len(resource_name) <= MAX_NAME and _DNS_1035.fullmatch(resource_name)
    if fits and not _HASHED.fullmatch(resource_name):
        return resource_name
    suffix = hashlib.sha256(resource_name.encode()).hexdigest()[:_HASH_CHARACTERS]
    stem = re.sub(r"[^-a-z0-9]", "-", resource_name.lower())
    if not stem[:1].isalpha():
        stem = f"m-{stem}"
    return f"{stem[: MAX_NAME - _HASH_CHARACTERS - 1].rstrip('-')}-{suffix}"


def selector_labels(resource_name: str) -> dict[str, str]:
    """The labels that select the pods of the resource, for ever."""
    return {
        NAME_LABEL: POD_LABELS[NAME_LABEL],
        INSTANCE_LABEL: object_name(resource_name),
        COMPONENT_LABEL: POD_LABELS[COMPONENT_LABEL],
    }


def object_labels(resource_name: str) -> dict[str, str]:
    """The labels of every object of the resource, pods included."""
    return {
        **selector_labels(resource_name),
        MANAGED_BY_LABEL: FIELD_MANAGER,
        PART_OF_LABEL: "everwarm",
    }


def selector(resource_name: str) -> str:
    """The selector labels as one string, as the scale subresource wants them."""
    return ",".join(f"{label}={value}" for label, value in sorted(selector_labels(resource_name).items()))
