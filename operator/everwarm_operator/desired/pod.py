"""The pod template of a resource: one container that serves, everything it is told, and how the kubelet treats it.

**Probes.** All ask the pod itself. Startup and liveness ask `/livez`, which is the event loop and nothing else: a pod
listens before it loads, and ends by its own word when the warm-up takes too long. Readiness asks `/readyz`, which means
warm, each second from the start: behind a startup probe that waits for warmth it would be asked a second later, and
`kubectl` would lag behind the registry by as much. One refusal is enough for the same reason: of a pod that ends, the
kubelet looks at this probe alone, no more at the gate. What forgives a busy node is the time that an answer may take.

**The end.** preStop waits until nobody new is sent here any more (deletion reaches Services and agents meanwhile),
SIGTERM drains, and the grace period holds preStop, drain and flush, so nothing that is held is cut off.

**Security** is what Pod Security calls restricted: an unprivileged user, no privilege to gain, a root file system
that is read-only, no token of the cluster. The image says which user (a number, not root); the folders that are
written to are emptyDirs. Service links are off, since a Service called everwarm-... would inject variables with our
prefix.

**template** is merged in: maps and lists are added to, and where both speak the contract's word counts.
"""

import posixpath
from collections.abc import Mapping
from typing import Any, Final

from everwarm_core import pod_environment as variable
from everwarm_core.spec import RESERVED_ENV, Source, WhisperModel
from everwarm_operator.desired.platform import Platform, SecretRef
from everwarm_operator.desired.resources import container_resources, planned_cpus
from everwarm_operator.manifest import digest
from everwarm_operator.naming import (
    LANGUAGES_ANNOTATION,
    NAMES_ANNOTATION,
    TEMPLATE_ANNOTATION,
    WARM_GATE,
    object_labels,
    object_name,
    selector_labels,
)
from everwarm_operator.observed import CONTAINER

PORT: Final = 8000
PORT_NAME: Final = "http"

STARTUP_MARGIN_S: Final = 30
"""Beyond the warm-up budget, which counts from the process's start: to end by itself, with its reason as last line."""

PRE_STOP_S: Final = 3
"""A guess that is long for a small cluster: kube-proxy and agents hear of a deletion within a second."""

DRAIN_S: Final = 35  # the longest utterance is 30 s, and its final takes a moment
FLUSH_S: Final = 12  # last answers 2 s, hastened decodes, telemetry against a dead collector 2 to 8 s
READINESS_PERIOD_S: Final = 1  # and so the longest that a drain waits to be said
GRACE_S: Final = PRE_STOP_S + READINESS_PERIOD_S + DRAIN_S + FLUSH_S

TMP_PATH: Final = "/tmp"  # noqa: S108 - an emptyDir of this pod alone; multipart bodies are spooled here
CACHE_PATH: Final = "/var/cache/everwarm"
WEIGHTS_PATH: Final = "/var/lib/everwarm/weights"
TOKEN_PATH: Final = "/var/run/everwarm/token"

DRAIN_TIMEOUT: Final = "EVERWARM_DRAIN_TIMEOUT_SECONDS"
CACHE_DIR: Final = "EVERWARM_CACHE_DIR"
POD_NAME: Final = "POD_NAME"
POD_IP: Final = "POD_IP"

PROBE_TIMEOUT_S: Final = 3  # the event loop shares its CPUs with decodes


def pod_template(model: WhisperModel, *, platform: Platform) -> dict[str, Any]:
    """The pod template of *model*: metadata and spec."""
    given = model.spec.template
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "readinessGates": [{"conditionType": WARM_GATE}],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": _spread(model),
        "containers": [_container(model, platform)],
        "volumes": _volumes(model.spec.source, platform),
    }
    passed_through = {
        "nodeSelector": given.node_selector,
        "tolerations": given.tolerations,
        "affinity": given.affinity,
        "imagePullSecrets": given.image_pull_secrets,
        "runtimeClassName": given.runtime_class_name,
        "resourceClaims": given.resource_claims,
    }
    spec.update({name: value for name, value in passed_through.items() if value})
    labels = {**(given.labels or {}), **object_labels(model.name)}
    annotations = {
        **(given.annotations or {}),
        NAMES_ANNOTATION: ",".join(model.names),
        LANGUAGES_ANNOTATION: ",".join(model.spec.languages),
    }
    annotations[TEMPLATE_ANNOTATION] = digest([labels, annotations, spec])
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _container(model: WhisperModel, platform: Platform) -> dict[str, Any]:
    spec, resources = model.spec, container_resources(model)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image or platform.image,
        "ports": [{"name": PORT_NAME, "containerPort": PORT}],
        "env": _env(model, platform, cpus=planned_cpus(resources)),
        "resources": resources,
        "startupProbe": {
            **_probe("/livez", period_s=1),
            "failureThreshold": spec.warmup.timeout_seconds + STARTUP_MARGIN_S,
        },
        "readinessProbe": {**_probe("/readyz", period_s=READINESS_PERIOD_S), "failureThreshold": 1},
        "livenessProbe": {**_probe("/livez", period_s=10), "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",  # the last lines of its log say why it failed
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(spec.source, platform),
    }
    if platform.image_pull_policy and not spec.image:
        container["imagePullPolicy"] = platform.image_pull_policy
    return container


def _probe(path: str, *, period_s: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": PORT_NAME},
        "periodSeconds": period_s,
        "timeoutSeconds": PROBE_TIMEOUT_S,
    }


# --- Environment ---------------------------------------------------------------------------------------------------


def _env(model: WhisperModel, platform: Platform, *, cpus: str | None) -> list[dict[str, Any]]:
    """The container's variables, those first that others refer to; the template's last, where they are not ours."""
    host, address = ("::", f"[$({POD_IP})]") if platform.is_ipv6 else ("0.0.0.0", f"$({POD_IP})")  # noqa: S104
    declared = variable.pod_environment(model, weights_path=_weights_path(model.spec.source))
    plain = {
        **{name: _literal(value) for name, value in declared.items()},
        variable.HOST: host,
        variable.PORT: str(PORT),
        variable.POD_URL: f"http://{address}:{PORT}",
        variable.PROBE_SECONDS: str(READINESS_PERIOD_S),
        DRAIN_TIMEOUT: str(DRAIN_S),
        CACHE_DIR: CACHE_PATH,
        "HF_HOME": f"{CACHE_PATH}/huggingface",
        "HOME": TMP_PATH,
        "OTEL_RESOURCE_ATTRIBUTES": _resource_attributes(model),
    }
    if cpus:
        plain[variable.CPUS] = cpus
    if platform.token_secret:
        plain[variable.TOKEN_FILE] = f"{TOKEN_PATH}/{platform.token_secret.key}"
    if platform.otlp_endpoint:
        plain["OTEL_EXPORTER_OTLP_ENDPOINT"] = _literal(platform.otlp_endpoint)
    entries = [
        _from_field(POD_NAME, "metadata.name"),
        _from_field(POD_IP, "status.podIP"),
        _from_field(variable.POD_ID, "metadata.uid"),
        _from_field(variable.NAMESPACE, "metadata.namespace"),
        _from_field(variable.NODE, "spec.nodeName"),
        *({"name": name, "value": value} for name, value in plain.items() if value),
    ]
    if isinstance(platform.redis_url, SecretRef):
        entries.append(_from_secret(variable.REDIS_URL, platform.redis_url))
    elif platform.redis_url:
        entries.append({"name": variable.REDIS_URL, "value": _literal(platform.redis_url)})
    if (hub := model.spec.source.hub) and hub.token_secret:
        entries.append(_from_secret("HF_TOKEN", SecretRef(hub.token_secret.name, hub.token_secret.key)))
    return _with_template_env(entries, model.spec.template.env or ())


def _with_template_env(
    ours: list[dict[str, Any]], theirs: "list[dict[str, Any]] | tuple[()]"
) -> list[dict[str, Any]]:
    """Both; theirs replaces an entry of ours unless the contract needs it: `EVERWARM_*` and what those refer to."""
    replaced = {
        str(entry.get("name")): entry for entry in theirs if not _is_contract(str(entry.get("name", "")))
    }
    kept = [replaced.pop(entry["name"], entry) for entry in ours]
    return [*kept, *replaced.values()]


def _literal(value: str) -> str:
    """*value* so that Kubernetes finds no `$(VARIABLE)` in it."""
    return value.replace("$(", "$$(")


def _is_contract(name: str) -> bool:
    return name.startswith(RESERVED_ENV) or name in (POD_NAME, POD_IP)


def _resource_attributes(model: WhisperModel) -> str:
    """Kubernetes' attributes of telemetry, by OpenTelemetry's conventions for resources."""
    attributes = {
        "k8s.pod.name": f"$({POD_NAME})",
        "k8s.pod.uid": f"$({variable.POD_ID})",
        "k8s.namespace.name": f"$({variable.NAMESPACE})",
        "k8s.node.name": f"$({variable.NODE})",
        "k8s.deployment.name": object_name(model.name),
        "k8s.container.name": CONTAINER,
    }
    return ",".join(f"{name}={value}" for name, value in attributes.items())


def _from_field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _from_secret(name: str, secret: SecretRef) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}


# --- Volumes -------------------------------------------------------------------------------------------------------


def _weights_path(source: Source) -> str | None:
    """The folder with the weights where a volume holds them."""
    volume = source.persistent_volume_claim or source.image
    return posixpath.normpath(posixpath.join(WEIGHTS_PATH, volume.path)) if volume else None


def _volumes(source: Source, platform: Platform) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
    ]
    if claim := source.persistent_volume_claim:
        volumes.append(
            {
                "name": "weights",
                "persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": True},
            }
        )
    if source.image:
        volumes.append({"name": "weights", "image": {"reference": source.image.reference}})
    if platform.token_secret:
        volumes.append({"name": "token", "secret": {"secretName": platform.token_secret.name}})
    return volumes


def _mounts(source: Source, platform: Platform) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "tmp", "mountPath": TMP_PATH},
        {"name": "cache", "mountPath": CACHE_PATH},
    ]
    if source.persistent_volume_claim or source.image:
        mounts.append({"name": "weights", "mountPath": WEIGHTS_PATH, "readOnly": True})
    if platform.token_secret:
        mounts.append({"name": "token", "mountPath": TOKEN_PATH, "readOnly": True})
    return mounts


# --- Placement -----------------------------------------------------------------------------------------------------


def _spread(model: WhisperModel) -> list[dict[str, Any]]:
    """The template's constraints, selecting our pods where they select none; default: zones and nodes, best effort."""
    ours: Mapping[str, Any] = {
        "labelSelector": {"matchLabels": selector_labels(model.name)},
        "matchLabelKeys": ["pod-template-hash"],  # the pods of one generation, or a rollout would skew it
    }
    if given := model.spec.template.topology_spread_constraints:
        return [
            constraint if "labelSelector" in constraint else {**ours, **constraint} for constraint in given
        ]
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", **ours}
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
