"""A Kubernetes object as we want it, and whether the cluster needs to be told.

Server-side apply is idempotent but not free: an apply that changes nothing is still a request, and the operator
looks at every object once per change anywhere near it. So each object carries, as an annotation, the digest of what
was applied last, and `needs_apply` compares first. An apply is due when

- the object is not there, or the digest is another one: the spec, the operator or its settings changed. That also
  covers fields we no longer want, which server-side apply removes because we owned them;
- a field that we want has another value: somebody changed what is ours.

Only fields that we want are looked at, so whatever the API server fills in and whatever others add is left alone:
mappings are compared by key, lists of objects by the key the API server merges them by, other lists as a whole,
quantities by value.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from everwarm_operator.naming import APPLIED_ANNOTATION
from everwarm_operator.quantities import parse_quantity

_MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "resourceClaims": ("name",),
    "claims": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
}
"""Lists that server-side apply merges item by item (`x-kubernetes-list-map-keys`), by field, with what tells their
items apart. Lists not named here are atomic."""

_QUANTITY_MAPS: Final = frozenset({"limits", "requests"})
_QUANTITY_FIELDS: Final = frozenset({"sizeLimit", "divisor"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object to be applied; *body* is JSON-ready, whole, and carries its own digest as an annotation."""

    api_version: str
    kind: str
    namespace: str
    name: str
    body: Mapping[str, Any]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Manifest":
        """The manifest of *body*, which has apiVersion, kind, metadata.name and metadata.namespace."""
        metadata = body["metadata"]
        annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest(body)}
        return cls(
            api_version=body["apiVersion"],
            kind=body["kind"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            body={**body, "metadata": {**metadata, "annotations": annotations}},
        )

    @property
    def key(self) -> tuple[str, str]:
        """(kind, name): unique among the objects of one resource."""
        return self.kind, self.name

    @property
    def digest(self) -> str:
        """Digest of the body, its own annotation left out."""
        return str(self.body["metadata"]["annotations"][APPLIED_ANNOTATION])


def digest(body: object) -> str:
    """A short digest of the JSON-ready *body* that does not depend on the order of keys."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def needs_apply(desired: Manifest, live: Mapping[str, Any] | None) -> bool:
    """Whether *desired* must be applied, given the object as the API server returned it (None: it has none)."""
    if live is None:
        return True
    return _applied(live) != desired.digest or not is_subset(desired.body, live)


def was_applied(live: Mapping[str, Any]) -> bool:
    """Whether the operator has ever applied the object *live*."""
    return _applied(live) is not None


def _applied(live: Mapping[str, Any]) -> object:
    return ((live.get("metadata") or {}).get("annotations") or {}).get(APPLIED_ANNOTATION)


def is_subset(desired: object, live: object, *, field: str = "", parent: str = "") -> bool:
    """Whether everything that *desired* says stands in *live* too.

    field, parent: the names of the field the values are in, and of the mapping around it; they say how lists are
    merged and what is a quantity.
    """
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return not desired and live is None
        return all(
            is_subset(value, live.get(name), field=name, parent=field) for name, value in desired.items()
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            return not desired and live is None
        return _is_list_subset(desired, live, field)
    if desired == live:
        return True
    if live is None:
        return (
            desired == ""
        )  # left out of what the API server returns; false and 0, where we send them, are not
    if parent in _QUANTITY_MAPS or field in _QUANTITY_FIELDS:
        quantity = parse_quantity(desired)
        return quantity is not None and quantity == parse_quantity(live)
    return False


def _is_list_subset(desired: Sequence[object], live: Sequence[object], field: str) -> bool:
    merge_keys = _MERGE_KEYS.get(field)
    if merge_keys is None:
        return len(desired) == len(live) and all(
            is_subset(ours, theirs, field=field) for ours, theirs in zip(desired, live, strict=True)
        )
    found = {_identity(item, merge_keys): item for item in live}
    return all(is_subset(item, found.get(_identity(item, merge_keys)), field=field) for item in desired)


def _identity(item: object, merge_keys: tuple[str, ...]) -> str:
    if isinstance(item, Mapping):
        return repr([item.get(key) for key in merge_keys])
    return repr(item)
