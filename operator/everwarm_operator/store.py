"""What the watches have seen, kept so that a reconcile finds all of a resource's surroundings without asking anybody.

kopf's watches and the answers to our own writes fill it; of two versions of an object the newer one stays, so an
answer is never undone by a watch that lags behind it. Objects are found by the resource they belong to: pods and
the rest carry its instance label (`naming`). Lives on one event loop.

Names are indexed too: which resources could claim a name of another, so that finding a resource's rivals costs nothing
however many resources pool one model.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from everwarm_core.errors import SpecError
from everwarm_core.spec import WhisperModel
from everwarm_operator.desired import object_keys
from everwarm_operator.naming import INSTANCE_LABEL, object_name
from everwarm_operator.observed import Json, ObservedPod, ObservedResource


class Key(NamedTuple):
    """A WhisperModel's namespace and name."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Declared:
    """A WhisperModel as declared: the API object, and what it means, or why it means nothing.

    model: None when `error` says what is wrong; version: its resourceVersion.
    """

    body: Json
    observed: ObservedResource
    version: int
    model: WhisperModel | None = None
    error: SpecError | None = None

    @classmethod
    def of(cls, body: Json) -> "Declared":
        """Read *body*; never raises, for what passes the schema may still be wrong."""
        observed, version = ObservedResource.from_object(body), version_of(body)
        try:
            model = WhisperModel.from_document(body, source=f"WhisperModel {body['metadata']['name']!r}")
        except SpecError as error:
            return cls(body, observed, version, error=error)
        return cls(body, observed, version, model=model)

    @property
    def is_deleting(self) -> bool:
        """Whether it is being deleted; its objects go with it, by their owner references."""
        return "deletionTimestamp" in self.body["metadata"]

    @property
    def claims(self) -> frozenset[str]:
        """The names that are its own."""
        return frozenset((self.model.name, *self.model.spec.aliases)) if self.model else frozenset()


@dataclass(frozen=True, slots=True)
class _Versioned:
    version: int
    body: Json


@dataclass(frozen=True, slots=True)
class _SeenPod:
    version: int
    pod: ObservedPod


@dataclass(slots=True)
class Store:
    """All of it; see the module."""

    _models: dict[Key, Declared] = field(default_factory=dict)
    _instances: dict[tuple[str, str], Key] = field(default_factory=dict)
    _objects: dict[tuple[str, str, str], _Versioned] = field(default_factory=dict)
    _pods: defaultdict[tuple[str, str], dict[str, _SeenPod]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _pod_instance: dict[str, tuple[str, str]] = field(default_factory=dict)
    _claimants: defaultdict[tuple[str, str], set[Key]] = field(default_factory=lambda: defaultdict(set))
    _holders: defaultdict[tuple[str, str], set[Key]] = field(default_factory=lambda: defaultdict(set))

    # --- resources ---

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._models))

    def model(self, key: Key) -> Declared | None:
        """The resource *key*; None when there is none."""
        return self._models.get(key)

    def put_model(self, body: Json) -> None:
        """A WhisperModel was seen."""
        declared = Declared.of(body)
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        before = self._models.get(key)
        is_same = before is not None and before.observed.uid == declared.observed.uid
        if before is not None and is_same and before.version > declared.version:
            return
        self._forget_names(key, before)
        self._models[key] = declared
        self._instances[key.namespace, object_name(key.name)] = key
        for name in declared.claims:
            self._claimants[key.namespace, name].add(key)
        if declared.model:
            self._holders[key.namespace, declared.model.spec.model].add(key)

    def drop_model(self, key: Key) -> None:
        """A WhisperModel is gone."""
        self._forget_names(key, self._models.pop(key, None))
        self._instances.pop((key.namespace, object_name(key.name)), None)

    def uids(self, namespace: str) -> dict[str, str]:
        """The resources of *namespace* that are to stay: name by UID."""
        return {
            declared.observed.uid: key.name
            for key, declared in self._models.items()
            if key.namespace == namespace and not declared.is_deleting
        }

    def rival_keys(self, key: Key) -> tuple[Key, ...]:
        """The valid resources of the namespace that could dispute a name of *key*'s, itself left out."""
        declared = self._models.get(key)
        if declared is None or declared.model is None:
            return ()
        model = declared.model.spec.model
        found: set[Key] = set()
        for name in (*declared.claims, model):
            found |= self._claimants.get((key.namespace, name), set())
        for name in declared.claims - {model}:
            found |= self._holders.get((key.namespace, name), set())
        return tuple(sorted(found - {key}))

    def rivals(self, key: Key) -> Iterator[Declared]:
        """The resources of `rival_keys`."""
        return (self._models[rival] for rival in self.rival_keys(key))

    def _forget_names(self, key: Key, declared: Declared | None) -> None:
        if declared is None:
            return
        for name in declared.claims:
            self._discard(self._claimants, (key.namespace, name), key)
        if declared.model:
            self._discard(self._holders, (key.namespace, declared.model.spec.model), key)

    @staticmethod
    def _discard(index: "defaultdict[tuple[str, str], set[Key]]", at: tuple[str, str], key: Key) -> None:
        index[at].discard(key)
        if not index[at]:
            del index[at]

    # --- what belongs to them ---

    def put_object(self, body: Json) -> Key | None:
        """A Deployment, Service or PodDisruptionBudget was seen; the resource it belongs to, if that is known."""
        metadata = body["metadata"]
        at = (metadata["namespace"], body["kind"], metadata["name"])
        before, version = self._objects.get(at), version_of(body)
        if before is None or version >= before.version or before.body["metadata"]["uid"] != metadata["uid"]:
            self._objects[at] = _Versioned(version, body)
        return self.owner(body)

    def drop_object(self, body: Json) -> Key | None:
        """Such an object is gone; the resource it belonged to, if that is known."""
        metadata = body["metadata"]
        at = (metadata["namespace"], body["kind"], metadata["name"])
        standing = self._objects.get(at)
        if standing is not None and standing.body["metadata"]["uid"] == metadata["uid"]:
            del self._objects[at]
        return self.owner(body)

    def objects(self, key: Key) -> dict[tuple[str, str], Json]:
        """The live objects of *key*, by (kind, name)."""
        found = {
            (kind, name): self._objects.get((key.namespace, kind, name))
            for kind, name in object_keys(key.name)
        }
        return {at: standing.body for at, standing in found.items() if standing}

    def put_pod(self, body: Json) -> Key | None:
        """A pod was seen; the resource it belongs to, if that is known."""
        instance, version = _instance(body), version_of(body)
        uid = body["metadata"]["uid"]
        before = self._pods[instance].get(uid)
        if before is None or version >= before.version:
            self._pods[instance][uid] = _SeenPod(version, ObservedPod.from_object(body))
            self._pod_instance[uid] = instance
        return self._instances.get(instance)

    def drop_pod(self, body: Json) -> Key | None:
        """A pod is gone; the resource it belonged to, if that is known."""
        instance, uid = _instance(body), body["metadata"]["uid"]
        pods = self._pods[instance]
        pods.pop(uid, None)
        self._pod_instance.pop(uid, None)
        if not pods:
            del self._pods[instance]
        return self._instances.get(instance)

    def pods(self, key: Key) -> tuple[ObservedPod, ...]:
        """The pods of *key*, by name."""
        seen = self._pods.get((key.namespace, object_name(key.name)), {})
        return tuple(sorted((each.pod for each in seen.values()), key=lambda pod: pod.name))

    def pod(self, uid: str) -> ObservedPod | None:
        """The pod with *uid*; None when it is not known."""
        seen = self._pods.get(self._pod_instance.get(uid, ("", "")), {}).get(uid)
        return seen.pod if seen else None

    def owner_of_pod(self, uid: str) -> Key | None:
        """The resource that the pod with *uid* belongs to; None when either is not known."""
        instance = self._pod_instance.get(uid)
        return self._instances.get(instance) if instance else None

    def owner(self, body: Json) -> Key | None:
        """The resource that the object *body* belongs to, by its label."""
        return self._instances.get(_instance(body))


def version_of(body: Mapping[str, Any]) -> int:
    """The object's resourceVersion, which grows with every write to the cluster; 0 when it has none."""
    text = str(body["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0


def _instance(body: Json) -> tuple[str, str]:
    metadata = body["metadata"]
    return metadata["namespace"], (metadata.get("labels") or {}).get(INSTANCE_LABEL, "")
