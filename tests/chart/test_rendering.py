"""What the chart makes of its values: the defaults as a whole, each switch both ways, and what holds for every object."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from everwarm.settings import AgentSettings, GatewaySettings
from everwarm_operator.naming import POD_LABELS
from everwarm_operator.settings import OperatorSettings
from tests.chart.rendering import (
    CHART,
    EVERYTHING,
    EXTERNAL,
    FOREIGN,
    NAMESPACE,
    OTHER_NAMESPACE,
    Json,
    Values,
    env_of,
    merged,
    nested,
    pod_specs,
    rendered,
    some,
    the,
)

CLUSTER_WIDE: Values = {"operator": {"clusterWide": True}}
TWO_NAMESPACES: Values = {"operator": {"namespaces": [NAMESPACE, OTHER_NAMESPACE]}}
WORLDS: dict[str, Values] = {
    "defaults": {},
    "everything": merged(EVERYTHING, TWO_NAMESPACES),
    "cluster-wide, with a Redis of one's own": merged(EXTERNAL, CLUSTER_WIDE),
}


@pytest.fixture(scope="module")
def defaults() -> list[Json]:
    return rendered()


@pytest.fixture(scope="module", params=WORLDS.values(), ids=list(WORLDS))
def objects(request: pytest.FixtureRequest) -> list[Json]:
    return rendered(request.param)


def is_ours(document: Json) -> bool:
    """All but the definition and the dashboard, which have tests of their own and would fill the snapshots."""
    return document["kind"] != "CustomResourceDefinition" and "everwarm.json" not in document.get("data", {})


# --- Whole -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", WORLDS.values(), ids=WORLDS)
def test_objects_are_these(values: Values, snapshot: SnapshotAssertion) -> None:
    """Where a snapshot changes, somebody's running release changes with the next upgrade."""
    shown = [each for each in rendered(values) if is_ours(each)]
    assert yaml.safe_dump_all(shown, sort_keys=False, width=120) == snapshot


# --- Every object ----------------------------------------------------------------------------------------------------


def test_names_are_unique_and_begin_with_the_releases(objects: list[Json]) -> None:
    names = [(e["kind"], e["metadata"].get("namespace"), e["metadata"]["name"]) for e in objects]
    assert len(names) == len(set(names))
    ours = [name for kind, _, name in names if kind != "CustomResourceDefinition"]
    assert all(name.startswith("everwarm-") or name == "everwarm" for name in ours)


@pytest.mark.parametrize(
    ("release", "values", "beginning"),
    [
        ("everwarm", {}, "everwarm-"),
        ("prod", {}, "prod-everwarm-"),
        ("my-everwarm", {}, "my-everwarm-"),
        ("prod", {"fullnameOverride": "stt"}, "stt-"),
        ("a" * 53, {}, f"{'a' * 31}-everwarm-"),
    ],
)
def test_names_follow_the_release(release: str, values: Values, beginning: str) -> None:
    names = [
        e["metadata"]["name"]
        for e in rendered(values, release=release)
        if e["kind"] != "CustomResourceDefinition"
    ]
    assert all(name.startswith(beginning) for name in names)
    assert all(len(e) <= 63 for e in names if "discovery" not in e)


def test_every_object_says_what_it_belongs_to(objects: list[Json]) -> None:
    for each in objects:
        if each["kind"] != "CustomResourceDefinition":
            labels = each["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "everwarm"
            assert labels["app.kubernetes.io/component"], each["metadata"]["name"]


def test_selectors_are_name_instance_and_component_and_match_the_pods(objects: list[Json]) -> None:
    """They can never be changed in an existing release."""
    found = [e for e in objects if e["kind"] in ("Deployment", "StatefulSet")]
    for each in found:
        selector = each["spec"]["selector"]["matchLabels"]
        assert set(selector) == {f"app.kubernetes.io/{x}" for x in ("name", "instance", "component")}
        assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    selectors = [tuple(e["spec"]["selector"]["matchLabels"].values()) for e in found]
    assert len(selectors) == len(set(selectors))


def test_pods_are_restricted_and_hold_no_token_of_the_cluster(objects: list[Json]) -> None:
    for name, spec in pod_specs(objects):
        assert spec["automountServiceAccountToken"] is name.endswith("-operator")
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_secrets_are_never_rendered(objects: list[Json]) -> None:
    """A Secret in a manifest would change with each render, and end up in somebody's repository."""
    assert some(objects, "Secret") == []


def test_every_selector_of_the_chart_finds_pods_of_the_chart_or_of_the_operator(objects: list[Json]) -> None:
    """Services, budgets, policies and monitors: a misspelt label selects nobody, silently."""
    pods = [
        e["spec"]["template"]["metadata"]["labels"]
        for e in objects
        if e["kind"] in ("Deployment", "StatefulSet")
    ]
    pods += [e["metadata"]["labels"] for e in some(objects, "Pod")]
    pods += [{**POD_LABELS, "app.kubernetes.io/part-of": "everwarm"}]
    for each in objects:
        for selector in _pod_selectors(each):
            assert any(selector.items() <= labels.items() for labels in pods), (
                each["metadata"]["name"],
                selector,
            )


def _pod_selectors(document: Json) -> list[dict[str, str]]:
    spec = document.get("spec", {})
    if document["kind"] == "Service":
        return [spec["selector"]]
    if document["kind"] in ("PodDisruptionBudget", "PodMonitor"):
        return [spec["selector"]["matchLabels"]]
    if document["kind"] == "NetworkPolicy":
        peers = [peer for rule in spec.get("ingress", ()) for peer in rule.get("from", ())]
        agents = {"everwarm.dev/agent": "true"}
        selectors = [spec["podSelector"]["matchLabels"]]
        selectors += [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
        return [selector for selector in selectors if selector != agents]
    return []


# --- Upgrades --------------------------------------------------------------------------------------------------------


def test_a_newer_chart_restarts_no_pod_whose_image_stays_the_same(tmp_path: Path) -> None:
    """Nor the speech-to-text pods: what the operator puts into their template comes from its variables."""
    images = {part: {"image": {"tag": "1.2.3"}} for part in ("operator", "stt", "gateway")}
    newer = tmp_path / "everwarm"
    shutil.copytree(CHART, newer)
    text = (newer / "Chart.yaml").read_text(encoding="utf-8")
    (newer / "Chart.yaml").write_text(
        re.sub(r"(?m)^(version|appVersion): .*$", r"\1: 9.9.9", text), encoding="utf-8"
    )
    before, after = rendered(images), rendered(images, chart=newer)
    assert before != after
    assert dict(pod_specs(before)) == dict(pod_specs(after))
    templates = [
        [e["spec"]["template"] for e in found if e["kind"] in ("Deployment", "StatefulSet")]
        for found in (before, after)
    ]
    assert templates[0] == templates[1]


def test_images_are_those_of_the_release_unless_told_otherwise(defaults: list[Json]) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    images = {spec["containers"][0]["image"] for _, spec in pod_specs(defaults)}
    assert images == {
        f"everwarm/operator:{version}",
        f"everwarm/gateway:{version}",
        "valkey/valkey:8.1-alpine",
    }
    assert (
        env_of(the(defaults, "Deployment", "-operator"))["EVERWARM_OPERATOR_POD_IMAGE"]
        == f"everwarm/stt:{version}"
    )


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({"registry": "mirror.example:5000"}, "mirror.example:5000/everwarm/gateway:0.1.0"),
        ({"repository": "mine/gw", "tag": "x"}, "mine/gw:x"),
        ({"tag": "x", "digest": f"sha256:{'a' * 64}"}, f"everwarm/gateway@sha256:{'a' * 64}"),
    ],
)
def test_an_image_is_put_together(image: Json, reference: str) -> None:
    objects = rendered({"gateway": {"image": image}})
    assert (
        the(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]["containers"][0]["image"]
        == reference
    )


# --- Switches, both ways -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("off", "on", "made"),
    [
        ({"crds": {"enabled": False}}, {}, {("CustomResourceDefinition", "")}),
        (
            {"gateway": {"enabled": False}},
            {},
            {("Deployment", "-gateway"), ("Service", "-gateway"), ("PodDisruptionBudget", "-gateway"), ("Pod", "-test")},
        ),
        (EXTERNAL, {}, {("StatefulSet", "-valkey"), ("Service", "-valkey")}),
        ({"gateway": {"podDisruptionBudget": {"enabled": False}}}, {}, {("PodDisruptionBudget", "-gateway")}),
        ({}, nested("gateway.autoscaling.enabled", True), {("HorizontalPodAutoscaler", "-gateway")}),
        ({}, {"gateway": EVERYTHING["gateway"] | {"autoscaling": {}, "httpRoute": {}}}, {("Ingress", "-gateway")}),
        ({}, {"gateway": EVERYTHING["gateway"] | {"autoscaling": {}, "ingress": {}}}, {("HTTPRoute", "-gateway")}),
        (
            {},
            {"networkPolicy": {"enabled": True}},
            {("NetworkPolicy", each) for each in ("-operator", "-gateway", "-valkey", f"-stt-{NAMESPACE}")},
        ),
        (
            {},
            nested("metrics.podMonitor.enabled", True),
            {("PodMonitor", each) for each in ("-operator", "-gateway", "-stt")},
        ),
        ({}, nested("metrics.prometheusRule.enabled", True), {("PrometheusRule", "everwarm")}),
        ({}, nested("metrics.dashboard.enabled", True), {("ConfigMap", "-dashboard")}),
        ({}, CLUSTER_WIDE, {("ClusterRoleBinding", f"-operator-{NAMESPACE}")}),
        (CLUSTER_WIDE, {}, {("RoleBinding", f"-operator-{NAMESPACE}")}),
    ],
)  # fmt: skip
def test_a_switch_makes_exactly_its_objects(off: Values, on: Values, made: set[tuple[str, str]]) -> None:
    without, with_it = _identities(rendered(off)), _identities(rendered(on))
    assert {(kind, name) for kind, name in with_it - without} == {
        (kind, name) for kind, name in with_it if any(kind == k and name.endswith(n) for k, n in made)
    }
    assert len(with_it - without) == len(made)


def _identities(objects: list[Json]) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in objects}


@pytest.mark.parametrize("keep", [True, False])
def test_the_definition_survives_an_uninstall_only_when_kept(keep: bool) -> None:  # noqa: FBT001
    crd = the(rendered({"crds": {"keep": keep}}), "CustomResourceDefinition")
    assert crd["metadata"].get("annotations", {}) == ({"helm.sh/resource-policy": "keep"} if keep else {})


def test_the_operator_gets_its_rights_in_the_namespaces_it_serves_and_no_others() -> None:
    bindings = some(rendered(TWO_NAMESPACES), "RoleBinding")
    assert {each["metadata"]["namespace"] for each in bindings} == {NAMESPACE, OTHER_NAMESPACE}
    operator = the(rendered(TWO_NAMESPACES), "Deployment", "-operator")
    assert env_of(operator)["EVERWARM_OPERATOR_NAMESPACES"] == f"{NAMESPACE},{OTHER_NAMESPACE}"


def test_a_cluster_wide_operator_is_told_of_no_namespace() -> None:
    assert "EVERWARM_OPERATOR_NAMESPACES" not in env_of(
        the(rendered(CLUSTER_WIDE), "Deployment", "-operator")
    )


def test_releases_of_one_name_in_two_namespaces_share_no_object_of_the_cluster() -> None:
    names = [e["metadata"]["name"] for e in rendered(CLUSTER_WIDE) if e["kind"].startswith("ClusterRole")]
    assert names
    assert all(NAMESPACE in name for name in names)


def test_registry_urls_come_from_the_platforms_secret_by_role(defaults: list[Json]) -> None:
    gateway, operator = (env_of(the(defaults, "Deployment", name)) for name in ("-gateway", "-operator"))
    assert gateway["EVERWARM_REDIS_URL"] == _key("everwarm-platform", "redis-url-agent")
    assert "EVERWARM_REDIS_URL" not in operator, "it makes the passwords itself"
    assert operator["EVERWARM_OPERATOR_VALKEY_ADDRESS"] == f"everwarm-valkey.{NAMESPACE}.svc:6379"
    assert operator["EVERWARM_OPERATOR_PLATFORM_SECRET"] == "everwarm-platform"


def test_registry_urls_come_from_ones_own_secret_by_role() -> None:
    objects = rendered(EXTERNAL)
    gateway, operator = (env_of(the(objects, "Deployment", name)) for name in ("-gateway", "-operator"))
    assert gateway["EVERWARM_REDIS_URL"] == _key("my-redis", "redis-url-agent")
    assert operator["EVERWARM_REDIS_URL"] == _key("my-redis", "redis-url-operator")
    assert operator["EVERWARM_OPERATOR_POD_REDIS_URL"] == _key("my-redis", "redis-url-pod")
    assert "EVERWARM_OPERATOR_VALKEY_ADDRESS" not in operator


def test_one_url_may_serve_all_roles() -> None:
    keys = {"operator": "url", "agent": "url", "pod": "url"}
    objects = rendered(EXTERNAL, {"externalRedis": {"keys": keys}})
    assert env_of(the(objects, "Deployment", "-gateway"))["EVERWARM_REDIS_URL"] == _key("my-redis", "url")


def _key(secret: str, key: str) -> Json:
    return {"secretKeyRef": {"name": secret, "key": key}}


def test_ones_own_platform_secret_is_used_everywhere() -> None:
    text = yaml.safe_dump(rendered({"platformSecret": {"existingSecret": "mine"}}))
    assert "everwarm-platform" not in text
    assert text.count("mine") >= 4  # the operator's variable, the gateway's token and URL, Valkey's users


@pytest.mark.parametrize("on", [True, False])
def test_gateway_asks_for_a_key_when_there_are_keys_and_the_test_shows_one(on: bool) -> None:  # noqa: FBT001
    objects = rendered(EVERYTHING if on else {})
    gateway, test = the(objects, "Deployment", "-gateway"), the(objects, "Pod", "-test")
    assert ("EVERWARM_GATEWAY_API_KEYS_FILE" in env_of(gateway)) is on
    for spec in (gateway["spec"]["template"]["spec"], test["spec"]):
        assert ("api-keys" in {volume["name"] for volume in spec["volumes"]}) is on


def test_the_test_shows_a_plain_key_of_its_own_where_there_is_one() -> None:
    objects = rendered(EVERYTHING, {"test": {"apiKey": {"existingSecret": "plain", "key": "k"}}})
    gateway, test = the(objects, "Deployment", "-gateway"), the(objects, "Pod", "-test")
    assert env_of(test)["KEY"] == "k"
    mounted = {
        name: volume["secret"]["secretName"]
        for name, spec in (("gateway", gateway["spec"]["template"]["spec"]), ("test", test["spec"]))
        for volume in spec["volumes"]
        if volume["name"] == "api-keys"
    }
    assert mounted == {"gateway": "keys", "test": "plain"}


@pytest.mark.parametrize("origins", [[], ["*"], ["https://a.example.com", "http://localhost:3000"]])
def test_pages_of_the_origins_named_may_call_and_no_other(origins: list[str]) -> None:
    gateway = the(rendered(nested("gateway.corsOrigins", origins)), "Deployment", "-gateway")
    given = env_of(gateway).get("EVERWARM_GATEWAY_CORS_ORIGINS")
    assert given == (",".join(origins) or None)


@pytest.mark.parametrize("on", [True, False])
def test_every_part_exports_to_the_collector_when_there_is_one(on: bool) -> None:  # noqa: FBT001
    objects = rendered(EVERYTHING if on else {})
    gateway, operator = (env_of(the(objects, "Deployment", name)) for name in ("-gateway", "-operator"))
    expected = "http://collector:4318" if on else None
    assert gateway.get("OTEL_EXPORTER_OTLP_ENDPOINT") == expected
    assert operator.get("OTEL_EXPORTER_OTLP_ENDPOINT") == expected
    assert operator.get("EVERWARM_OPERATOR_POD_OTLP_ENDPOINT") == expected


@pytest.mark.parametrize(("ipv6", "host"), [(True, "::"), (False, "0.0.0.0")])
def test_addresses_are_those_of_the_cluster(ipv6: bool, host: str) -> None:  # noqa: FBT001
    objects = rendered({"ipv6Only": ipv6})
    assert env_of(the(objects, "Deployment", "-gateway"))["EVERWARM_GATEWAY_HOST"] == host
    operator = env_of(the(objects, "Deployment", "-operator"))
    assert (operator["EVERWARM_OPERATOR_HOST"], operator["EVERWARM_OPERATOR_POD_IPV6"]) == (
        host,
        str(ipv6).lower(),
    )


def test_autoscaler_and_chart_never_both_say_how_many() -> None:
    assert the(rendered(), "Deployment", "-gateway")["spec"]["replicas"] == 2
    assert "replicas" not in the(rendered(EVERYTHING), "Deployment", "-gateway")["spec"]


# --- The gateway -----------------------------------------------------------------------------------------------------


def test_gateway_is_replaced_without_a_gap_and_has_time_to_drain() -> None:
    spec = the(rendered(nested("gateway.drainSeconds", 90.5)), "Deployment", "-gateway")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pre_stop + 91 + 5


def test_a_spread_without_a_selector_is_one_of_the_gateways() -> None:
    """Without any it would match no pod, and so spread none."""
    given = {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    own = {**given, "labelSelector": {"matchLabels": {"a": "b"}}}
    gateway = the(
        rendered(nested("gateway.topologySpreadConstraints", [given, own])), "Deployment", "-gateway"
    )
    filled, kept = gateway["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert filled["labelSelector"]["matchLabels"] == gateway["spec"]["selector"]["matchLabels"]
    assert given.items() <= filled.items()
    assert kept == own


def test_every_setting_of_the_gateway_has_a_value() -> None:
    given = env_of(
        the(rendered(EVERYTHING, nested("gateway.fallbackUrls", ["http://a:8000"])), "Deployment", "-gateway")
    )
    settings = {f"EVERWARM_{name.upper()}" for name in GatewaySettings.model_fields}
    agents_only = {"EVERWARM_BASE_URL", "EVERWARM_API_KEY", "EVERWARM_LOCAL_POD_IDLE_SECONDS"}
    assert {name for name in given if name.startswith("EVERWARM_")} == settings - agents_only
    assert agents_only <= {f"EVERWARM_{name.upper()}" for name in AgentSettings.model_fields}


def test_defaults_of_the_gateway_are_those_of_the_program(defaults: list[Json]) -> None:
    given = env_of(the(defaults, "Deployment", "-gateway"))
    variables: dict[str, Any] = {
        name.removeprefix("EVERWARM_").lower(): value
        for name, value in given.items()
        if name.startswith("EVERWARM_") and isinstance(value, str)
    }
    own = GatewaySettings()
    assert {n: getattr(GatewaySettings(**variables), n) for n in variables if n not in NOT_THE_PROGRAMS} == {
        n: getattr(own, n) for n in variables if n not in NOT_THE_PROGRAMS
    }


NOT_THE_PROGRAMS = {"namespace", "token_file", "gateway_host"}


@pytest.mark.parametrize("values", [{}, EXTERNAL, EVERYTHING], ids=["defaults", "external", "everything"])
def test_operator_is_told_only_what_it_reads(values: Values) -> None:
    """A misspelt variable passes silently."""
    given = {
        name
        for name in env_of(the(rendered(values), "Deployment", "-operator"))
        if name.startswith("EVERWARM_")
    }
    known = {f"EVERWARM_{name.upper()}" for name in OperatorSettings.model_fields}
    assert given <= known


# --- Policies --------------------------------------------------------------------------------------------------------


def _peers(policy: Json) -> list[dict[str, str]]:
    return [peer["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for peer in rule["from"]]


def test_pods_are_reached_by_the_gateway_agents_and_scrapers_alone() -> None:
    scraper = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "prometheus"}}}
    objects = rendered({"networkPolicy": {"enabled": True, "metricsScrapers": [scraper]}})
    gateway, agent, prometheus = _peers(the(objects, "NetworkPolicy", f"-stt-{NAMESPACE}"))
    assert gateway["app.kubernetes.io/component"] == "gateway"
    assert agent == {"everwarm.dev/agent": "true"}
    assert prometheus == {"app": "prometheus"}


def test_registry_is_reached_by_operator_gateway_pods_and_agents_alone() -> None:
    objects = rendered({"networkPolicy": {"enabled": True}})
    operator, gateway, pods, agent = _peers(the(objects, "NetworkPolicy", "-valkey"))
    assert [x["app.kubernetes.io/component"] for x in (operator, gateway, pods)] == [
        "operator",
        "gateway",
        "stt",
    ]
    assert agent == {"everwarm.dev/agent": "true"}


def test_agents_are_those_that_were_named() -> None:
    outside = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    objects = rendered({"networkPolicy": {"enabled": True, "agents": [outside]}})
    for name in ("-valkey", f"-stt-{NAMESPACE}"):
        peers = the(objects, "NetworkPolicy", name)["spec"]["ingress"][0]["from"]
        assert outside in peers
        assert not any(
            p.get("podSelector", {}).get("matchLabels") == {"everwarm.dev/agent": "true"} for p in peers
        )


def test_gateway_takes_everybody_until_its_callers_are_named() -> None:
    policy = the(rendered({"networkPolicy": {"enabled": True}}), "NetworkPolicy", "-gateway")
    assert policy["spec"]["ingress"] == [{"ports": [{"port": "http"}]}]
    caller = {"podSelector": {"matchLabels": {"app": "web"}}}
    named = the(
        rendered({"networkPolicy": {"enabled": True, "gatewayClients": [caller]}}),
        "NetworkPolicy",
        "-gateway",
    )
    web, test = _peers(named)
    assert web == {"app": "web"}
    assert test["app.kubernetes.io/component"] == "test"


def test_foreign_kinds_are_only_made_when_asked_for(defaults: list[Json]) -> None:
    """A cluster without their definitions would refuse the whole release."""
    assert not {each["apiVersion"] for each in defaults} & FOREIGN
