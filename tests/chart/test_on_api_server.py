"""The rendered chart before a real API server: every object of every combination, and a release that works.

What varies together is rendered together: all combinations of what changes whole parts (gateway, registry, scope,
policies, monitoring, the collector), and all of what changes the gateway. Objects that come out the same are shown to
the server once. It answers `kubectl apply --dry-run=server` as it would in earnest: schemas, CEL, Pod Security,
admission. What needs nodes (that a NetworkPolicy is enforced, that an autoscaler gets figures) is not run here.
"""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import yaml

from everwarm_operator.desired.platform_secret import data_of
from everwarm_operator.naming import POD_LABELS
from tests.chart.rendering import (
    CHART,
    EVERYTHING,
    EXTERNAL,
    NAMESPACE,
    OTHER_NAMESPACE,
    Json,
    Values,
    env_of,
    merged,
    nested,
    rendered,
    the,
)
from tests.cluster.clients import find_helm, find_kubectl
from tests.cluster.control_plane import ControlPlane, Refused
from tests.fixtures.valkey import OwnedValkey
from tests.operator.running import CRDS, World, install_crd, running_operator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RESTRICTED: Final = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}
GATEWAY: Final[Json] = EVERYTHING["gateway"]
ON_GATEWAY: Final = ("apiKeys", "autoscaling", "ingress", "httpRoute")

WHOLE_PARTS: Final[tuple[tuple[Values, ...], ...]] = (
    ({}, {"gateway": {"enabled": False}}),
    ({}, EXTERNAL, {"platformSecret": {"existingSecret": "mine"}}),
    ({}, {"operator": {"namespaces": [NAMESPACE, OTHER_NAMESPACE]}}, {"operator": {"clusterWide": True}}),
    ({}, {"networkPolicy": {"enabled": True}}),
    ({}, {"metrics": EVERYTHING["metrics"]}),
    ({}, {"telemetry": EVERYTHING["telemetry"]}),
)
PARTS_OF_THE_GATEWAY: Final[tuple[tuple[Values, ...], ...]] = (
    *(({}, {"gateway": {name: GATEWAY[name]}}) for name in ON_GATEWAY),
    ({}, nested("gateway.podDisruptionBudget.enabled", False)),
    ({}, nested("gateway.service.type", "LoadBalancer")),
)
PEER: Final = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}
DETAILS: Final[Values] = {
    "ipv6Only": True,
    "imagePullSecrets": [{"name": "pull"}],
    "networkPolicy": {"enabled": True, "agents": [PEER], "metricsScrapers": [PEER], "gatewayClients": [PEER]},
    "gateway": {
        "ingress": {"enabled": True, "hosts": ["*.example.com", "a.example"], "className": "x", "tls": [{"secretName": "t"}]},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "g", "sectionName": "https"}], "hostnames": ["*.example.com"]},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "service": {"annotations": {"a": "b"}},
    },
    **{
        part: {
            "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "runAsUser": 1234,
            "podAnnotations": {"a": "b"},
        }
        for part in ("operator", "valkey")
    },
}  # fmt: skip


def combinations() -> Iterator[Values]:
    """The values of every combination."""
    for parts in itertools.product(*WHOLE_PARTS):
        yield merged(*parts)
    for parts in itertools.product(*PARTS_OF_THE_GATEWAY):
        yield merged(*parts)
    yield merged(EVERYTHING, {"operator": {"namespaces": [NAMESPACE, OTHER_NAMESPACE]}})
    yield DETAILS


@pytest.fixture(scope="module")
def namespaces(control_plane: ControlPlane) -> Iterator[None]:
    """The namespaces of the chart's tests, which admit nothing but what Pod Security calls restricted."""
    for name in (NAMESPACE, OTHER_NAMESPACE):
        control_plane.create_namespace(name, RESTRICTED)
    yield
    for name in (NAMESPACE, OTHER_NAMESPACE):
        control_plane.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def foreign_definitions(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kinds of the Prometheus operator and the Gateway API, and our own."""
    install_crd(control_plane)
    cache = tmp_path_factory.mktemp("kubectl")
    for path in sorted((Path(__file__).parent / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text(encoding="utf-8"))
        control_plane.request("POST", CRDS, crd)
        name, group, kinds = crd["metadata"]["name"], crd["spec"]["group"], crd["spec"]["names"]["plural"]
        (version,) = (each["name"] for each in crd["spec"]["versions"])
        kind = f"{kinds}.{version}.{group}"
        # Asked as by the tests: the list in which kubectl and Helm find kinds is made later than what serves them.
        control_plane.wait_for(name, partial(_is_found, control_plane, cache, kind))


def _is_found(control_plane: ControlPlane, cache: Path, kind: str) -> bool:
    code, _ = kubectl(control_plane, cache, "get", kind)
    return code == 0


def kubectl(control_plane: ControlPlane, cache: Path, *arguments: str, given: str = "") -> tuple[int, str]:
    """Its exit code, and all it says."""
    done = subprocess.run(
        [str(find_kubectl()), f"--kubeconfig={control_plane.kubeconfig}", f"--cache-dir={cache}", *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_every_combination_of_values_is_accepted_without_a_warning(
    control_plane: ControlPlane, namespaces: None, foreign_definitions: None, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        documents = itertools.chain.from_iterable(pool.map(rendered, combinations()))
        distinct = {json.dumps(each, sort_keys=True): each for each in documents}
    code, told = kubectl(
        control_plane, tmp_path, "apply", "--dry-run=server", "--server-side", "--force-conflicts",
        "--validate=strict", "--filename=-", given=yaml.safe_dump_all(distinct.values()),
    )  # fmt: skip
    lines = told.splitlines()
    assert code == 0, told
    assert [line for line in lines if not line.endswith("(server dry run)")] == []
    assert len(lines) == len(distinct)
    assert len(distinct) > 80, "the combinations differ"


def test_a_mistake_in_a_template_would_be_seen(
    control_plane: ControlPlane, namespaces: None, foreign_definitions: None, tmp_path: Path
) -> None:
    """So that the test above means something: an unknown field, a wrong value, a pod that is not restricted."""
    objects = rendered(EVERYTHING)
    gateway, monitor, test = (
        the(objects, "Deployment", "-gateway"),
        the(objects, "PodMonitor", "-gateway"),
        the(objects, "Pod"),
    )
    gateway["spec"]["template"]["spec"]["containers"][0]["lifecycles"] = {}
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = "often"
    test["spec"]["securityContext"]["runAsNonRoot"] = False
    test["spec"]["containers"][0]["securityContext"] = {}
    for broken, word in ((gateway, "lifecycles"), (monitor, "interval"), (test, "PodSecurity")):
        code, told = kubectl(
            control_plane, tmp_path, "apply", "--dry-run=server", "--server-side", "--validate=strict",
            "--filename=-", given=json.dumps(broken),
        )  # fmt: skip
        assert code != 0
        assert word in told


# --- A release -------------------------------------------------------------------------------------------------------


def helm(control_plane: ControlPlane, *arguments: str, values: Values | None = None) -> str:
    """What it prints; raises AssertionError with what it says when it fails."""
    done = subprocess.run(
        [str(find_helm()), f"--kubeconfig={control_plane.kubeconfig}", *arguments]
        + (["--values=-"] if values is not None else []),
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HELM_NO_PLUGINS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def variables_of_operator(*values: Values) -> dict[str, str]:
    """What the chart tells the operator, but for its address, which is the test's."""
    told = env_of(the(rendered(*values), "Deployment", "-operator"))
    literal = {n: v for n, v in told.items() if n.startswith("EVERWARM_") and isinstance(v, str)}
    (from_field,) = (n for n, v in told.items() if n.startswith("EVERWARM_") and n not in literal)
    assert told[from_field] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    of_the_test = {"EVERWARM_OPERATOR_HOST", "EVERWARM_OPERATOR_PORT"}
    assert of_the_test <= literal.keys()
    kept = {name: value for name, value in literal.items() if name not in of_the_test}
    return {**kept, from_field: NAMESPACE}


def stt_pods(world: World) -> list[Json]:
    """The pods that the operator made, not those of the release itself."""
    return [pod for pod in world.pods() if POD_LABELS.items() <= pod["metadata"]["labels"].items()]


def secret_in(control_plane: ControlPlane, namespace: str) -> dict[str, str]:
    """What the platform's Secret, or its copy, holds there."""
    path = f"/api/v1/namespaces/{namespace}/secrets/everwarm-platform"
    return data_of(control_plane.request("GET", path))


@pytest.mark.parametrize(
    ("scope", "served"),
    [
        ({}, NAMESPACE),
        ({"namespaces": [NAMESPACE, OTHER_NAMESPACE]}, OTHER_NAMESPACE),
        ({"clusterWide": True}, OTHER_NAMESPACE),
    ],
    ids=["its own namespace", "another namespace", "cluster-wide"],
)
async def test_the_operator_does_its_work_with_what_a_release_tells_and_grants_it(
    control_plane: ControlPlane, namespaces: None, tmp_path: Path, scope: Json, served: str
) -> None:
    """From nothing: it makes the Secret, Valkey takes its users from that, a pod says that it is warm, and is Ready."""
    install_crd(control_plane)
    values: Json = {"crds": {"enabled": False}, "operator": scope}
    valkey = OwnedValkey(acl="users come later")
    variables = {
        **variables_of_operator(values),
        "EVERWARM_OPERATOR_VALKEY_ADDRESS": f"127.0.0.1:{valkey.port}",
    }
    helm(control_plane, "install", "everwarm", str(CHART), f"--namespace={NAMESPACE}", values=values)
    try:
        kubeconfig = control_plane.kubeconfig_of_service_account(NAMESPACE, "everwarm-operator")
        with running_operator(control_plane, kubeconfig, "", "", tmp_path, **variables) as operator:
            made = secret_in(control_plane, NAMESPACE)
            valkey._acl = made["users.acl"]
            valkey.start()
            world = World(control_plane, served, made["redis-url-pod"])
            world.apply("english")
            world.wait("a pod", partial(stt_pods, world))
            (pod,) = stt_pods(world)
            world.run_container(pod)
            await world.register(pod)
            world.wait("an open gate", lambda: world.gate(pod["metadata"]["name"]) == "True")
            for key in ("token", "redis-url-pod"):
                assert secret_in(control_plane, served)[key] == made[key]
            log = operator.log.read_text(encoding="utf-8")
        assert "orbidden" not in log
        world.delete("english")
    finally:
        valkey.close()
        helm(control_plane, "uninstall", "everwarm", f"--namespace={NAMESPACE}")
        for each in {NAMESPACE, served}:
            control_plane.wait_for("end of the Secret", partial(_is_gone, control_plane, each))
        # The next release would find a pod of this one, which goes after its Deployment and ReplicaSet.
        control_plane.wait_for("end of the pods", lambda: not stt_pods(World(control_plane, served, "")))


def _is_gone(control_plane: ControlPlane, namespace: str) -> bool:
    try:
        secret_in(control_plane, namespace)
    except Refused as refused:
        return refused.status == 404
    return False


def test_a_release_is_upgraded_rolled_back_and_removed_without_a_trace(
    control_plane: ControlPlane, namespaces: None, foreign_definitions: None
) -> None:
    """Resources stay as they are; of the release nothing stays."""
    world = World(control_plane, NAMESPACE, "")
    everything = merged(EVERYTHING, {"crds": {"enabled": False}})
    told = helm(
        control_plane, "install", "everwarm", str(CHART), f"--namespace={NAMESPACE}",
        values={"crds": {"enabled": False}},
    )  # fmt: skip
    assert "kubectl wait" in told
    assert "kubectl apply" in told
    world.apply("kept", replicas=0)
    generation = _generation(control_plane)
    helm(
        control_plane, "upgrade", "everwarm", str(CHART), f"--namespace={NAMESPACE}",
        values={"crds": {"enabled": False}},
    )  # fmt: skip
    assert _generation(control_plane) == generation, "nothing has changed"
    helm(control_plane, "upgrade", "everwarm", str(CHART), f"--namespace={NAMESPACE}", values=everything)
    helm(control_plane, "rollback", "everwarm", "1", f"--namespace={NAMESPACE}")
    helm(control_plane, "uninstall", "everwarm", f"--namespace={NAMESPACE}")
    assert control_plane.request("GET", f"{world.models}/kept")
    for path in (
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
        f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets",
        f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
        f"/api/v1/namespaces/{NAMESPACE}/services",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    ):
        names = [each["metadata"]["name"] for each in control_plane.request("GET", path)["items"]]
        assert not [name for name in names if name.startswith("everwarm-") and NAMESPACE in path + name]
    world.delete("kept")


def _generation(control_plane: ControlPlane) -> list[int]:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    return [each["metadata"]["generation"] for each in control_plane.request("GET", path)["items"]]
