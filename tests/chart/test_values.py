"""Values: a wrong one is refused with its path, none is without a meaning, and none is dead."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from docs.generate import chart_values
from tests.chart.rendering import (
    CHART,
    EVERYTHING,
    EXTERNAL,
    ChartRefused,
    Json,
    Values,
    merged,
    nested,
    rendered_text,
)

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES: Json = yaml.safe_load(TEXT)
SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
LEAVES = {path: default for path, default, _ in chart_values(TEXT)}


def refusal(*values: Values) -> str:
    with pytest.raises(ChartRefused) as refused:
        rendered_text(*values)
    return str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("gateway.replicas", "two", "/gateway/replicas"),
        ("gateway.replica", 2, "/gateway': additional properties 'replica'"),
        ("gatway", {}, "additional properties 'gatway'"),
        ("gateway.image.tag", 1.0, "/gateway/image/tag"),
        ("gateway.service.type", "clusterip", "/gateway/service/type"),
        ("gateway.service.port", 70000, "/gateway/service/port"),
        ("gateway.resources.limits.memory", "1 GB", "/gateway/resources/limits/memory"),
        ("gateway.resources.limit", {}, "/gateway/resources"),
        ("gateway.ingress.hosts", ["https://x"], "/gateway/ingress/hosts/0"),
        ("gateway.httpRoute.parentRefs", [{"namespace": "a"}], "/gateway/httpRoute/parentRefs/0"),
        ("gateway.corsOrigins", ["https://app.example.com/"], "/gateway/corsOrigins/0"),
        ("gateway.apiKeys.keys", ["k"], "/gateway/apiKeys"),
        ("test.apiKey", "k", "/test/apiKey"),
        ("gateway.drainSeconds", 0, "/gateway/drainSeconds"),
        ("gateway.runAsUser", 0, "/gateway/runAsUser"),
        ("operator.namespaces", ["Speech"], "/operator/namespaces/0"),
        ("operator.namespaces", "speech", "/operator/namespaces"),
        ("operator.tolerations", [{"effect": "noschedule"}], "/operator/tolerations/0/effect"),
        ("valkey.image.digest", "md5:00", "/valkey/image/digest"),
        ("externalRedis.keys.agents", "url", "/externalRedis/keys"),
        ("networkPolicy.agents", [{}], "/networkPolicy/agents/0"),
        ("networkPolicy.agents", [{"podSelektor": {}}], "/networkPolicy/agents/0"),
        ("telemetry.otlpEndpoint", "collector:4318", "/telemetry/otlpEndpoint"),
        ("metrics.podMonitor.interval", 30, "/metrics/podMonitor/interval"),
        ("imagePullSecrets", ["name"], "/imagePullSecrets/0"),
        ("fullnameOverride", "Stt", "/fullnameOverride"),
        ("crds.keep", "yes", "/crds/keep"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(path: str, value: object, said: str) -> None:
    assert said in refusal(nested(path, value))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"externalRedis": {"existingSecret": "x"}},
            "externalRedis.existingSecret: the release runs a Valkey of its own",
        ),
        ({"valkey": {"enabled": False}}, "valkey.enabled: without it there is no registry"),
        (
            {"operator": {"clusterWide": True, "namespaces": ["a"]}},
            "operator.namespaces: operator.clusterWide",
        ),
        ({"operator": {"namespaces": ["a", "b"]}}, 'gateway.namespace: nobody makes pods in "speech"'),
        ({"gateway": {"namespace": "voice"}}, 'gateway.namespace: nobody makes pods in "voice"'),
        (nested("gateway.ingress.enabled", True), "gateway.ingress.hosts: name at least one host"),
        (
            nested("gateway.httpRoute.enabled", True),
            "gateway.httpRoute.parentRefs: name at least one Gateway",
        ),
        (
            nested("gateway.autoscaling", {"minReplicas": 9}),
            "gateway.autoscaling.minReplicas: must not be above",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_what_to_set(values: Values, said: str) -> None:
    assert said in refusal(values)


def test_schema_is_closed_at_every_level() -> None:
    """A misspelt name must not pass anywhere; what is Kubernetes' own below it is left to Kubernetes."""
    open_parts = [
        path
        for path, part in _parts(SCHEMA)
        if part.get("type") == "object"
        and "properties" in part
        and part.get("additionalProperties") is not False
    ]
    assert open_parts == []


def _parts(schema: Any, path: str = "") -> Iterator[tuple[str, Json]]:
    if isinstance(schema, dict):
        yield path, schema
        for name, part in schema.items():
            yield from _parts(part, f"{path}/{name}")
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from _parts(part, f"{path}/{index}")


def test_values_and_schema_name_the_same_keys() -> None:
    assert dict(_keys_of_schema(SCHEMA)).keys() - {"global"} == {
        path for path, _ in _keys_of_values(VALUES, "")
    }


def _resolved(part: Json) -> Json:
    while "$ref" in part:
        part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]
    return part


PASSED_THROUGH = {"resources", "affinity", "nodeSelector", "podAnnotations", "annotations", "labels"}
"""Kubernetes' own words: one value each."""


def _keys_of_schema(schema: Json, above: str = "") -> Iterator[tuple[str, Json]]:
    for name, part in _resolved(schema).get("properties", {}).items():
        path = f"{above}.{name}".lstrip(".")
        if name in PASSED_THROUGH or not _resolved(part).get("properties"):
            yield path, part
        else:
            yield from _keys_of_schema(part, path)


def _keys_of_values(values: Json, above: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        path = f"{above}.{name}".lstrip(".")
        if isinstance(value, dict) and value and name not in PASSED_THROUGH:
            yield from _keys_of_values(value, path)
        else:
            yield path, value


def test_every_value_has_its_meaning_beside_it() -> None:
    assert LEAVES.keys() == {path for path, _ in _keys_of_values(VALUES, "")}


OTHER: dict[str, Any] = {
    "fullnameOverride": "other",
    "imagePullSecrets": [{"name": "other"}],
    "operator.clusterWide": True,
    "operator.namespaces": ["speech", "voice"],
    "gateway.namespace": "voice",
    "gateway.service.type": "NodePort",
    "gateway.fallbackUrls": ["http://other:8000"],
    "gateway.corsOrigins": ["https://other.example.com", "*"],
    "gateway.ingress.path": "/other",
    "gateway.httpRoute.path": "/other",
    "gateway.ingress.hosts": ["other.example.com"],
    "gateway.httpRoute.hostnames": ["other.example.com"],
    "gateway.ingress.tls": [{"secretName": "other"}],
    "gateway.httpRoute.parentRefs": [{"name": "other"}],
    "gateway.topologySpreadConstraints": [
        {"maxSkew": 2, "topologyKey": "other", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "networkPolicy.agents": [{"namespaceSelector": {}}],
    "networkPolicy.metricsScrapers": [{"namespaceSelector": {}}],
    "networkPolicy.gatewayClients": [{"namespaceSelector": {}}],
    "telemetry.otlpEndpoint": "http://other:4318",
    "metrics.podMonitor.interval": "7s",
    "metrics.prometheusRule.runbookUrl": "other",
}
BY_NAME: dict[str, Any] = {
    "digest": f"sha256:{'b' * 64}",
    "pullPolicy": "Always",
    "resources": {"limits": {"memory": "3Gi"}},
    "tolerations": [{"key": "other", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"other": []}},
    "runAsUser": 4321,
    "extraEnv": [{"name": "OTHER", "value": "1"}],
}


def another(path: str, default: object) -> object:
    """A value for *path* that is allowed and not the default."""
    name = path.rpartition(".")[2]
    if path in OTHER:
        return OTHER[path]
    if name in BY_NAME:
        return BY_NAME[name]
    match default:
        case bool():
            return not default
        case int() | float():
            return default + 1
        case str():
            return "other"
        case _:
            return {"other": "other"}


WIDE: Values = {"operator": {"clusterWide": True}}  # so that the gateway may serve any namespace


def base_for(path: str) -> Values:
    """Values under which *path* means something: with all that can be switched on, and what it needs beside that."""
    if path.startswith("externalRedis."):
        return merged(EVERYTHING, EXTERNAL)
    if path == "gateway.namespace":
        return merged(EVERYTHING, WIDE)
    if path == "test.apiKey.key":
        return merged(EVERYTHING, nested("test.apiKey.existingSecret", "mine"))
    if path == "gateway.replicas":
        return merged(EVERYTHING, nested("gateway.autoscaling.enabled", False))
    if path == "valkey.enabled":
        return merged(EVERYTHING, nested("externalRedis.existingSecret", ""))
    return EVERYTHING


def change_for(path: str, default: object) -> Values:
    """The change of one value, and what must go with it."""
    if path == "valkey.enabled":
        return EXTERNAL
    return nested(path, another(path, default))


def test_no_value_is_dead() -> None:
    """Each of them, changed alone, changes what is rendered."""

    def is_dead(path: str) -> bool:
        base = base_for(path)
        there: Any = base
        for name in path.split("."):
            there = there.get(name) if isinstance(there, dict) else None
        default = LEAVES[path] if there is None else there
        return rendered_text(base) == rendered_text(base, change_for(path, default))

    with ThreadPoolExecutor(2) as pool:
        dead = [path for path, found in zip(LEAVES, pool.map(is_dead, LEAVES), strict=True) if found]
    assert dead == []
