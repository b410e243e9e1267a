"""The objects a resource becomes: the contract, sentence by sentence, and whole manifests as snapshots."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from everwarm_core.pod_environment import pod_environment
from everwarm_core.spec import WhisperModel
from everwarm_operator.desired import Platform, SecretRef, desired_objects, object_keys
from everwarm_operator.desired.pod import DRAIN_S, GRACE_S, PRE_STOP_S, STARTUP_MARGIN_S
from everwarm_operator.desired.resources import (
    SIZES,
    UNKNOWN_SIZE,
    container_resources,
    default_memory_mib,
    planned_cpus,
    size_of,
)
from everwarm_operator.manifest import needs_apply
from everwarm_operator.naming import selector_labels
from everwarm_operator.quantities import parse_quantity
from tests.operator.worlds import (
    OWNER,
    PLATFORM,
    container,
    desired,
    live,
    pod_spec,
    template_hash,
    whisper_model,
)

LONGEST_UTTERANCE_S = 30
WHOLE = Platform(
    image="everwarm/stt:1.0.0",
    redis_url=SecretRef("registry", "url"),
    token_secret=SecretRef("internal-token", "token"),
    otlp_endpoint="http://collector:4318",
    image_pull_policy="IfNotPresent",
)
RICH: dict[str, Any] = {
    "model": "large-v3",
    "languages": ["en", "de"],
    "aliases": ["whisper-1"],
    "device": "cuda",
    "slots": 2,
    "replicas": 3,
    "source": {
        "hub": {
            "revision": "abc",
            "endpoint": "https://mirror.example",
            "tokenSecret": {"name": "hub", "key": "hf"},
        }
    },
    "warmup": {"timeoutSeconds": 1200},
    "rollout": {"maxSurge": 2, "maxUnavailable": 1},
    "template": {
        "nodeSelector": {"gpu": "l4"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "labels": {"team": "speech"},
        "annotations": {"note": "x"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "imagePullSecrets": [{"name": "pull"}],
        "runtimeClassName": "nvidia",
    },
}


def env(model: WhisperModel, platform: Platform = PLATFORM) -> dict[str, Any]:
    """The container's variables: their values, or where they come from."""
    return {
        each["name"]: each.get("value", each.get("valueFrom")) for each in container(model, platform)["env"]
    }


def templated(**template: Any) -> WhisperModel:
    """A resource with this template."""
    return whisper_model(template=template)


def volumes(model: WhisperModel, platform: Platform = PLATFORM) -> dict[str, Mapping[str, Any]]:
    """The pod's volumes by name."""
    return {each["name"]: each for each in pod_spec(model, platform)["volumes"]}


def mounts(model: WhisperModel, platform: Platform = PLATFORM) -> dict[str, Mapping[str, Any]]:
    """The container's mounts by volume."""
    return {each["name"]: each for each in container(model, platform)["volumeMounts"]}


# --- Whole manifests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "platform"),
    [
        pytest.param({}, PLATFORM, id="defaults"),
        pytest.param(RICH, WHOLE, id="everything"),
        pytest.param(
            {"source": {"persistentVolumeClaim": {"claimName": "weights", "path": "base"}}},
            PLATFORM,
            id="claim",
        ),
        pytest.param({"source": {"image": {"reference": "registry.example/base:1"}}}, PLATFORM, id="image"),
    ],
)
def test_manifests_look_like_this(
    spec: dict[str, Any], platform: Platform, snapshot: SnapshotAssertion
) -> None:
    objects = desired(whisper_model(**spec), platform)
    assert yaml.safe_dump_all(_plain(each) for each in objects.values()) == snapshot


def _plain(value: object) -> object:
    """Without shared parts, which YAML would write as references."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def test_the_same_resource_makes_the_same_objects() -> None:
    one, other = (desired_objects(whisper_model(**RICH), owner=OWNER, platform=WHOLE) for _ in range(2))
    assert one == other


def test_objects_are_found_under_the_keys_that_are_said() -> None:
    made = desired_objects(whisper_model(), owner=OWNER, platform=PLATFORM)
    assert {each.key for each in made} == set(object_keys("base.en"))


@pytest.mark.parametrize("spec", [{}, RICH])
def test_objects_just_applied_need_no_other_apply(spec: dict[str, Any]) -> None:
    for each in desired_objects(whisper_model(**spec), owner=OWNER, platform=WHOLE):
        assert not needs_apply(each, live(each))


# --- All objects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "Deployment"])
def test_every_object_goes_with_its_resource(kind: str) -> None:
    (owner,) = desired(whisper_model())[kind]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("WhisperModel", "base.en", OWNER.uid)
    assert owner["controller"]
    assert "blockOwnerDeletion" not in owner


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "Deployment"])
def test_no_object_has_a_status_or_a_finalizer(kind: str) -> None:
    body = desired(whisper_model())[kind]
    assert "status" not in body
    assert "finalizers" not in body["metadata"]


def test_all_selectors_select_the_pods() -> None:
    objects = desired(whisper_model())
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= selector_labels("base.en").items()
    assert objects["Service"]["spec"]["selector"] == selector_labels("base.en")
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert objects[kind]["spec"]["selector"] == {"matchLabels": selector_labels("base.en")}


# --- Deployment, budget, Service -----------------------------------------------------------------------------------


def test_a_rollout_never_has_fewer_warm_pods_than_before() -> None:
    strategy = desired(whisper_model())["Deployment"]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_a_rollout_may_replace_pods_in_their_place_where_there_is_no_room_for_another() -> None:
    rollout = {"maxSurge": 0, "maxUnavailable": 1}
    strategy = desired(whisper_model(rollout=rollout))["Deployment"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == rollout


@pytest.mark.parametrize("timeout_s", [1, 600, 86_400])
def test_progress_deadline_is_longer_than_the_warm_up_may_take(timeout_s: int) -> None:
    model = whisper_model(warmup={"timeoutSeconds": timeout_s})
    startup = container(model)["startupProbe"]
    budget_s = startup["failureThreshold"] * startup["periodSeconds"]
    assert timeout_s < budget_s < desired(model)["Deployment"]["spec"]["progressDeadlineSeconds"]


@pytest.mark.parametrize("replicas", [0, 1, 7])
def test_replicas_are_those_of_the_resource(replicas: int) -> None:
    assert desired(whisper_model(replicas=replicas))["Deployment"]["spec"]["replicas"] == replicas


def test_scaling_starts_no_pod_anew() -> None:
    assert template_hash(whisper_model(replicas=1)) == template_hash(whisper_model(replicas=5))


def test_another_language_makes_new_pods() -> None:
    assert template_hash(whisper_model(languages=["en"])) != template_hash(whisper_model(languages=["auto"]))


def test_a_node_can_be_drained_even_of_pods_that_cannot_become_warm() -> None:
    spec = desired(whisper_model(replicas=0))["PodDisruptionBudget"]["spec"]
    assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_service_says_what_its_pods_serve() -> None:
    annotations = desired(whisper_model(aliases=["whisper-1"]))["Service"]["metadata"]["annotations"]
    assert annotations["everwarm.dev/names"] == "base.en,whisper-1"
    assert annotations["everwarm.dev/languages"] == "en"


# --- Pods: probes and their end ------------------------------------------------------------------------------------


def test_pods_are_ready_only_when_the_gate_is_open() -> None:
    assert pod_spec(whisper_model())["readinessGates"] == [{"conditionType": "everwarm.dev/warm"}]


def test_startup_waits_until_the_pod_listens_and_lets_it_fail_by_itself_first() -> None:
    probe = container(whisper_model(warmup={"timeoutSeconds": 100}))["startupProbe"]
    assert probe["httpGet"]["path"] == "/livez"
    assert probe["failureThreshold"] * probe["periodSeconds"] == 100 + STARTUP_MARGIN_S


def test_a_pod_is_told_how_often_its_readiness_is_asked_for() -> None:
    told = {entry["name"]: entry.get("value") for entry in container(whisper_model())["env"]}
    assert told["EVERWARM_PROBE_SECONDS"] == str(
        container(whisper_model())["readinessProbe"]["periodSeconds"]
    )


def test_readiness_asks_whether_it_is_warm_and_liveness_only_whether_it_lives() -> None:
    assert container(whisper_model())["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container(whisper_model())["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_a_pod_has_time_to_finish_the_longest_utterance() -> None:
    spec, only = pod_spec(whisper_model()), container(whisper_model())
    assert only["lifecycle"] == {"preStop": {"sleep": {"seconds": PRE_STOP_S}}}
    assert env(whisper_model())["EVERWARM_DRAIN_TIMEOUT_SECONDS"] == str(DRAIN_S)
    assert LONGEST_UTTERANCE_S < DRAIN_S
    assert spec["terminationGracePeriodSeconds"] == GRACE_S > PRE_STOP_S + DRAIN_S


def test_why_a_pod_failed_is_kept_by_the_kubelet() -> None:
    assert container(whisper_model())["terminationMessagePolicy"] == "FallbackToLogsOnError"


# --- Pods: security ------------------------------------------------------------------------------------------------


def test_pods_meet_pod_securitys_restricted_level() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    spec, context = pod_spec(whisper_model()), container(whisper_model())["securityContext"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    allowed = {"emptyDir", "persistentVolumeClaim", "secret", "image"}
    everything = volumes(whisper_model(source={"image": {"reference": "x"}}), WHOLE).values()
    assert all(set(volume) - {"name"} <= allowed for volume in everything)


def test_root_file_system_is_read_only_and_what_is_written_to_is_an_empty_folder() -> None:
    model = whisper_model()
    assert container(model)["securityContext"]["readOnlyRootFilesystem"] is True
    for name, path in (("tmp", "/tmp"), ("cache", env(model)["EVERWARM_CACHE_DIR"])):
        assert volumes(model)[name]["emptyDir"] == {}
        assert mounts(model)[name]["mountPath"] == path


def test_pods_have_no_token_of_the_cluster_and_no_service_links() -> None:
    spec = pod_spec(whisper_model())
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


# --- Pods: what they are told --------------------------------------------------------------------------------------


def test_container_is_told_all_that_the_resource_says() -> None:
    model = whisper_model(**RICH)
    said = {name: value for name, value in pod_environment(model).items() if value}
    assert env(model).items() >= said.items()


def test_pod_registers_by_its_uid_in_the_namespace_of_the_resource() -> None:
    variables = env(whisper_model())
    assert variables["EVERWARM_POD_ID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert variables["EVERWARM_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    assert variables["EVERWARM_NODE"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


@pytest.mark.parametrize(
    ("is_ipv6", "host", "url"),
    [(False, "0.0.0.0", "http://$(POD_IP):8000"), (True, "::", "http://[$(POD_IP)]:8000")],
)
def test_pod_listens_on_all_addresses_and_announces_its_own(*, is_ipv6: bool, host: str, url: str) -> None:
    variables = env(whisper_model(), Platform(image="x", is_ipv6=is_ipv6))
    assert (variables["EVERWARM_HOST"], variables["EVERWARM_POD_URL"]) == (host, url)


def test_variables_stand_before_those_that_refer_to_them() -> None:
    """Kubernetes expands `$(NAME)` only of what came before."""
    known: set[str] = set()
    for each in container(whisper_model(**RICH), WHOLE)["env"]:
        value = str(each.get("value", "")).replace("$$(", "")
        assert all(part.partition(")")[0] in known for part in value.split("$(")[1:]), each
        known.add(each["name"])


def test_nothing_that_a_resource_says_is_expanded() -> None:
    model = whisper_model(source={"hub": {"endpoint": "https://x/$(EVERWARM_REDIS_URL)"}})
    assert env(model)["EVERWARM_HUB_ENDPOINT"] == "https://x/$$(EVERWARM_REDIS_URL)"


def test_telemetry_says_which_pod_it_is_from() -> None:
    attributes = env(whisper_model())["OTEL_RESOURCE_ATTRIBUTES"]
    for attribute in (
        "k8s.pod.name",
        "k8s.pod.uid",
        "k8s.namespace.name",
        "k8s.node.name",
        "k8s.deployment.name",
    ):
        assert f"{attribute}=" in attributes


def test_redis_url_with_a_password_comes_from_a_secret() -> None:
    assert env(whisper_model(), WHOLE)["EVERWARM_REDIS_URL"] == {
        "secretKeyRef": {"name": "registry", "key": "url"}
    }
    assert env(whisper_model())["EVERWARM_REDIS_URL"] == "redis://valkey:6379/0"


def test_internal_token_is_mounted_as_a_file() -> None:
    """So that it can be rotated without a restart."""
    path = env(whisper_model(), WHOLE)["EVERWARM_TOKEN_FILE"]
    assert path == mounts(whisper_model(), WHOLE)["token"]["mountPath"] + "/token"
    assert "EVERWARM_TOKEN_FILE" not in env(whisper_model())


def test_traces_go_where_the_installation_says() -> None:
    assert env(whisper_model(), WHOLE)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in env(whisper_model())


def test_image_of_the_resource_wins_and_keeps_its_own_pull_policy() -> None:
    assert container(whisper_model(), WHOLE)["image"] == "everwarm/stt:1.0.0"
    assert container(whisper_model(), WHOLE)["imagePullPolicy"] == "IfNotPresent"
    own = container(whisper_model(image="mine:2"), WHOLE)
    assert own["image"] == "mine:2"
    assert "imagePullPolicy" not in own


# --- Pods: where weights come from ---------------------------------------------------------------------------------


def test_weights_from_the_hub_can_be_pinned_mirrored_and_private() -> None:
    variables = env(whisper_model(**RICH))
    assert variables["EVERWARM_HUB_REVISION"] == "abc"
    assert variables["EVERWARM_HUB_ENDPOINT"] == "https://mirror.example"
    assert variables["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "hf"}}


def test_weights_from_the_hub_are_kept_in_the_cache_folder() -> None:
    model = whisper_model()
    assert env(model)["HF_HOME"].startswith(mounts(model)["cache"]["mountPath"])


@pytest.mark.parametrize(("path", "folder"), [(".", ""), ("base", "/base"), ("a/b", "/a/b")])
def test_weights_on_a_claim_are_mounted_read_only(path: str, folder: str) -> None:
    model = whisper_model(source={"persistentVolumeClaim": {"claimName": "weights", "path": path}})
    mount = mounts(model)["weights"]
    assert volumes(model)["weights"]["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}
    assert mount["readOnly"] is True
    assert env(model)["EVERWARM_WEIGHTS_PATH"] == mount["mountPath"] + folder


def test_weights_in_an_image_are_mounted_as_a_volume() -> None:
    model = whisper_model(source={"image": {"reference": "registry.example/base:1", "path": "weights"}})
    assert volumes(model)["weights"]["image"] == {"reference": "registry.example/base:1"}
    assert env(model)["EVERWARM_WEIGHTS_PATH"] == mounts(model)["weights"]["mountPath"] + "/weights"


def test_weights_at_a_path_need_no_volume() -> None:
    model = whisper_model(source={"path": "/models/x"})
    assert env(model)["EVERWARM_WEIGHTS_PATH"] == "/models/x"
    assert "weights" not in volumes(model)


# --- Pods: the template --------------------------------------------------------------------------------------------


def test_labels_and_annotations_of_the_template_are_added() -> None:
    metadata = desired(whisper_model(**RICH))["Deployment"]["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "speech"
    assert metadata["annotations"]["note"] == "x"


@pytest.mark.parametrize(
    "field", ["nodeSelector", "tolerations", "affinity", "imagePullSecrets", "runtimeClassName"]
)
def test_placement_is_passed_through(field: str) -> None:
    assert pod_spec(whisper_model(**RICH))[field] == RICH["template"][field]
    assert field not in pod_spec(whisper_model())


def test_variables_of_the_template_are_added_and_may_tune_what_is_no_contract() -> None:
    model = templated(
        env=[{"name": "HTTPS_PROXY", "value": "http://p"}, {"name": "MALLOC_ARENA_MAX", "value": "2"}]
    )
    names = [each["name"] for each in container(model)["env"]]
    assert env(model)["HTTPS_PROXY"] == "http://p"
    assert env(model)["MALLOC_ARENA_MAX"] == "2"
    assert len(names) == len(set(names))


def test_variables_that_the_contract_needs_cannot_be_replaced() -> None:
    model = templated(env=[{"name": "POD_IP", "value": "10.0.0.1"}, {"name": "POD_NAME", "value": "x"}])
    assert env(model)["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env(model)["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_pods_spread_over_zones_and_nodes_at_best_effort() -> None:
    constraints = pod_spec(whisper_model())["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in constraints} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    assert {each["whenUnsatisfiable"] for each in constraints} == {"ScheduleAnyway"}


def test_spread_of_the_template_replaces_the_default_and_selects_our_pods() -> None:
    given = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    (constraint,) = pod_spec(templated(topologySpreadConstraints=[given]))["topologySpreadConstraints"]
    assert constraint.items() >= given.items()
    assert constraint["labelSelector"] == {"matchLabels": selector_labels("base.en")}


# --- Pods: resources -----------------------------------------------------------------------------------------------


def resources(**spec: Any) -> dict[str, Any]:
    """The container's resources."""
    return container_resources(whisper_model(**spec))


def test_memory_is_one_figure_for_request_and_limit() -> None:
    given = resources()
    assert given["requests"]["memory"] == given["limits"]["memory"]


@pytest.mark.parametrize(("model", "slots", "measured_mib"), [("base", 2, 650), ("tiny.en", 1, 470)])
def test_memory_covers_what_was_measured(model: str, slots: int, measured_mib: int) -> None:
    """And not twice as much."""
    asked = default_memory_mib(whisper_model(model=model, slots=slots).spec)
    assert measured_mib * 1.2 < asked < measured_mib * 2


@pytest.mark.parametrize("step", [
    ({"model": "tiny"}, {"model": "base"}), ({"model": "base"}, {"model": "small"}), ({"model": "small"}, {"model": "medium"}),
    ({"model": "medium"}, {"model": "large-v3"}), ({"slots": 1}, {"slots": 4}),
    ({"model": "medium", "computeType": "int8"}, {"model": "medium", "computeType": "float32"}),
    ({"limits": {"audioSeconds": 60}}, {"limits": {"audioSeconds": 7200}}),
])  # fmt: skip
def test_memory_grows_with_model_slots_precision_and_recordings(
    step: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    less, more = (default_memory_mib(whisper_model(**spec).spec) for spec in step)
    assert less < more


def test_cpu_is_a_request_without_a_limit_and_pods_plan_with_it() -> None:
    given = resources(slots=2)
    assert given["requests"]["cpu"] == "2"
    assert "cpu" not in given["limits"]
    assert env(whisper_model(slots=2))["EVERWARM_CPUS"] == "2"


@pytest.mark.parametrize(
    ("given", "cpus"),
    [
        ({"requests": {"cpu": "500m"}}, "0.5"),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}, "4"),
        ({"limits": {"cpu": 8}}, "8"),
        ({"requests": {"memory": "1Gi"}}, None),
        ({}, None),
    ],
)
def test_cpus_to_plan_with_are_the_limit_else_the_request(given: dict[str, Any], cpus: str | None) -> None:
    assert planned_cpus(given) == cpus


def test_resources_of_the_template_win_and_the_rest_stays_default() -> None:
    given = resources(template={"resources": {"limits": {"memory": "3Gi"}}})
    assert given["limits"] == {"memory": "3Gi"}
    assert given["requests"] == {"cpu": "1"}, "a default request of memory might exceed the limit"


def test_cuda_asks_for_one_gpu() -> None:
    assert resources(device="cuda")["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in resources()["limits"]


@pytest.mark.parametrize(
    "template",
    [
        {"resources": {"limits": {"nvidia.com/gpu.shared": 1}}},
        {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]},
    ],
)
def test_cuda_asks_for_no_further_gpu_where_the_template_names_one(template: dict[str, Any]) -> None:
    assert "nvidia.com/gpu" not in resources(device="cuda", template=template).get("limits", {})


def test_resource_claims_of_the_template_are_used_by_the_container() -> None:
    claim = {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}
    model = whisper_model(device="cuda", template={"resourceClaims": [claim]})
    assert pod_spec(model)["resourceClaims"] == [claim]
    assert container(model)["resources"]["claims"] == [{"name": "gpu"}]


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("tiny.en", "tiny"), ("base", "base"), ("Systran/faster-whisper-large-v3", "large"), ("large-v3-turbo", "turbo"),
        ("distil-large-v3", "distil-large"), ("Systran/faster-distil-whisper-small.en", "distil-small"),
        ("/models/whisper_medium", "medium"), ("someone/whisper-tiny-de", "tiny"),
    ],
)  # fmt: skip
def test_size_is_read_from_the_name_of_the_model(model: str, size: str) -> None:
    assert size_of(model) is SIZES[size]


def test_a_model_whose_name_tells_no_size_gets_a_middle_guess() -> None:
    assert size_of("someone/my-finetune") is UNKNOWN_SIZE


@pytest.mark.parametrize("model", ["tiny.en", "base", "small", "medium", "large-v3", "turbo", "someone/else"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_defaults_are_quantities_and_no_request_exceeds_its_limit(model: str, device: str) -> None:
    given = resources(model=model, device=device)
    for kind, amount in given["requests"].items():
        asked, limit = parse_quantity(amount), parse_quantity(given["limits"].get(kind, amount))
        assert asked is not None
        assert limit is not None
        assert 0 < asked <= limit
