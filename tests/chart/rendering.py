"""The chart as Helm renders it: values in, objects out. Helm is run each time, as users do; nothing imitates it."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.clients import find_helm

Json = dict[str, Any]
Values = Mapping[str, Any]

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "charts" / "everwarm"
NAMESPACE: Final = "speech"
OTHER_NAMESPACE: Final = "voice"
FOREIGN: Final = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}
"""Groups whose definitions others install."""

EXTERNAL: Final[Values] = {"valkey": {"enabled": False}, "externalRedis": {"existingSecret": "my-redis"}}
EVERYTHING: Final[Values] = {
    "imagePullSecrets": [{"name": "pull"}],
    "networkPolicy": {"enabled": True},
    "telemetry": {"otlpEndpoint": "http://collector:4318"},
    "metrics": {
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "gateway": {
        "apiKeys": {"existingSecret": "keys"},
        "corsOrigins": ["https://app.example.com"],
        "autoscaling": {"enabled": True},
        "ingress": {"enabled": True, "hosts": ["speech.example.com"]},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
    },
}
"""All that can be switched on together."""


class ChartRefused(Exception):
    """Helm refuses the values; the message is what a user reads."""


def merged(*parts: Values) -> Json:
    """The values of all *parts*, later ones over earlier ones, as Helm merges files."""
    whole: Json = {}
    for part in parts:
        for name, value in part.items():
            both_maps = isinstance(value, Mapping) and isinstance(whole.get(name), Mapping)
            whole[name] = merged(whole[name], value) if both_maps else value
    return whole


def nested(path: str, value: object) -> Json:
    """`a.b`, 1 as {"a": {"b": 1}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def rendered_text(*values: Values, release: str = "everwarm", chart: Path = CHART) -> str:
    """What `helm template` prints. Raises ChartRefused."""
    done = subprocess.run(
        [str(find_helm()), "template", release, str(chart), f"--namespace={NAMESPACE}", "--values=-"],
        input=json.dumps(merged(*values)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ChartRefused(done.stderr)
    return done.stdout


def rendered(*values: Values, release: str = "everwarm", chart: Path = CHART) -> list[Json]:
    """The objects, the test's pod included. Raises ChartRefused."""
    documents = yaml.safe_load_all(rendered_text(*values, release=release, chart=chart))
    return [document for document in documents if document]


def the(objects: list[Json], kind: str, name: str = "") -> Json:
    """The object of *kind* whose name ends with *name*; there must be exactly one."""
    (found,) = some(objects, kind, name)
    return found


def some(objects: list[Json], kind: str, name: str = "") -> list[Json]:
    """The objects of *kind* whose names end with *name*."""
    return [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)]


def pod_specs(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """The name and the pod's spec of each object that makes pods."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def env_of(workload: Json) -> Json:
    """The variables of the only container of *workload*: a literal value, or where it comes from."""
    spec = workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
