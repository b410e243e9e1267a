"""The definition on a real API server, which alone runs its rules: what is accepted, what is refused and in which words.

Core's model and the API server are asked the same questions. Where they differ, a resource would work on a laptop and
not in a cluster, or the operator would find one that it cannot read; what differs on purpose is listed, with why.
"""

import json
from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.aio.client import ApiClient, Configuration, CustomObjectsApi
from kubernetes.aio.config import load_kube_config

from everwarm_core.errors import SpecError
from everwarm_core.languages import AUTO, LANGUAGE_NAMES
from everwarm_core.spec import (
    MAX_ALIASES,
    MAX_NAME,
    MAX_RESOURCE_NAME,
    RESERVED_ENV,
    WhisperModel,
    load_resources,
)
from everwarm_operator.crd import GROUP, NAME, PLURAL, RULES, VERSION, custom_resource_definition
from tests.cluster.control_plane import ControlPlane, Refused
from tests.operator.running import CRDS, install_crd

EXAMPLES: Final = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
WAIT_S: Final = 30.0  # for what takes less than a second on an idle machine


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with the definition installed."""
    install_crd(control_plane)
    return control_plane


@pytest.fixture
async def client(server: ControlPlane) -> AsyncIterator[ApiClient]:
    """The client that the operator uses."""
    configuration = Configuration()
    await load_kube_config(  # type: ignore[no-untyped-call]  # the client's
        config_file=str(server.kubeconfig), client_configuration=configuration
    )
    async with ApiClient(configuration) as api:
        yield api


def resources(namespace: str) -> str:
    """The path of the WhisperModels in *namespace*."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"


def document(name: str = "speech", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "WhisperModel",
        "metadata": {"name": name},
        "spec": {"model": "base", **spec},
    }


def create(
    server: ControlPlane, resource: dict[str, Any], *, namespace: str = "default", dry_run: bool = True
) -> dict[str, Any]:
    """What is stored of *resource*; fields that would be dropped are refused, as by `kubectl`."""
    path = f"{resources(namespace)}?fieldValidation=Strict{'&dryRun=All' if dry_run else ''}"
    made = server.request("POST", path, resource)
    assert isinstance(made, dict)
    return made


def refusal(server: ControlPlane, resource: dict[str, Any]) -> str | None:
    """The API server's reason for refusing *resource*, None when it takes it."""
    try:
        create(server, resource)
    except Refused as refused:
        if refused.status not in (400, 422):
            raise
        return refused.message
    return None


def core_refusal(resource: dict[str, Any]) -> str | None:
    """The reason of core's model, which the local platform and the operator use."""
    try:
        WhisperModel.from_document(deepcopy(resource), source="test")
    except SpecError as error:
        return str(error)
    return None


# --- What both accept ----------------------------------------------------------------------------------------------

ACCEPTED: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"model": "large-v3-turbo"},
    {"model": "owner/name"},
    {"model": "/models/base"},
    {"model": "x" * MAX_NAME},
    {"model": "base.en"},
    {"model": "base.en", "languages": []},
    {"model": "base.en", "languages": ["auto", "en"]},
    {"model": "/models/base.en/", "languages": ["en"]},
    {"model": "base.en-mine", "languages": ["de"]},
    {"languages": ["no", "yue", "haw"]},
    {"languages": [*LANGUAGE_NAMES, AUTO]},
    {"aliases": ["whisper-1", "a_b", "owner/name"]},
    {"aliases": ["base", "base"]},
    {"aliases": [f"a{n}" for n in range(MAX_ALIASES)]},
    {"image": "registry.example:5000/stt@sha256:" + "0" * 64},
    {"source": {}},
    {"source": {"hub": {}}},
    {"source": {"hub": {"revision": "refs/pr/1", "endpoint": "http://hub:8080", "tokenSecret": {"name": "a.b"}}}},
    {"source": {"hub": {"tokenSecret": {"name": "hub", "key": "HF_TOKEN"}}}},
    {"source": {"persistentVolumeClaim": {"claimName": "weights"}}},
    {"source": {"persistentVolumeClaim": {"claimName": "weights", "path": "a/..b/c"}}},
    {"source": {"image": {"reference": "weights:1", "path": "./base"}}},
    {"source": {"image": {"reference": "weights:1", "path": "..\n"}}},
    {"source": {"hub": None, "path": "/models/x"}},
    {"image": None, "computeType": None, "template": {"env": None}},
    {"source": {"path": "/models/x"}},
    {"model": "/models/x", "source": {}},
    {"device": "cuda", "computeType": "float16"},
    {"device": "cuda", "computeType": "int8_float16"},
    {"computeType": "bfloat16"},
    {"slots": 64, "queue": 1024, "replicas": 1000},
    {"batch": 64},
    {"queue": 0, "replicas": 0},
    {"slots": 2.0, "limits": {"uploadBytes": 1e3}},
    {"decode": {}, "limits": {}, "warmup": {}, "template": {}},
    {"decode": {"beamSize": 10, "vad": "always", "window": "full", "temperature": 1}},
    {"decode": {"temperature": 0.25}},
    {"limits": {"audioSeconds": 0.5, "uploadBytes": 1 << 31}},
    {"limits": {"audioSeconds": 86_400, "uploadBytes": 1}},
    {"warmup": {"timeoutSeconds": 86_400}},
    {"rollout": {"maxSurge": 0, "maxUnavailable": 1}},
    {"rollout": {"maxUnavailable": 1}},
    {"template": {"resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"nvidia.com/gpu": 1}}}},
    {"template": {"resources": {"requests": {"cpu": "1.5", "memory": "1e9"}, "claims": [{"name": "gpu"}]}}},
    {"template": {"nodeSelector": {"gpu": "yes", "empty": ""}}},
    {"template": {"tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 3}]}},
    {"template": {"affinity": {"nodeAffinity": {"anything": [1, None, {"a": "b"}]}}}},
    {"template": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone"}]}},
    {"template": {"annotations": {"example.com/x": "{}"}, "labels": {"team": "voice", "example.com/everwarm.dev": ""}}},
    {"template": {"env": [{"name": "A"}, {"name": "b.C-d", "value": ""}]}},
    {"template": {"env": [{"name": "MY_EVERWARM_X", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}},
    {"template": {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}},
    {"template": {"runtimeClassName": "nvidia"}},
    {"template": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}},
)  # fmt: skip


@pytest.mark.parametrize("spec", ACCEPTED, ids=lambda spec: json.dumps(spec)[:60])
def test_good_spec_is_accepted_by_both(server: ControlPlane, spec: dict[str, Any]) -> None:
    assert core_refusal(document(**spec)) is None
    assert refusal(server, document(**spec)) is None


@pytest.mark.parametrize("spec", ACCEPTED, ids=lambda spec: json.dumps(spec)[:60])
def test_good_spec_means_the_same_with_the_defaults_of_the_api_server(
    server: ControlPlane, spec: dict[str, Any]
) -> None:
    """What the operator reads back is what the local platform would have run."""
    stored = create(server, document(**spec))
    assert WhisperModel.from_document(stored, source="stored").spec == (
        WhisperModel.from_document(document(**spec), source="written").spec
    )
    assert contains(stored["spec"], spec)


@pytest.mark.parametrize("name", ["a", "base.en", "1", "a" * MAX_RESOURCE_NAME, "a-b.c-d"])
def test_good_name_is_accepted_by_both(server: ControlPlane, name: str) -> None:
    assert core_refusal(document(name)) is None
    assert refusal(server, document(name)) is None


def contains(whole: object, part: object) -> bool:
    """Whether *whole* has all that *part* has; lists are compared entry by entry, null in a mapping is nothing."""
    if isinstance(part, dict) and isinstance(whole, dict):
        given = {key: value for key, value in part.items() if value is not None}
        return all(key in whole and contains(whole[key], value) for key, value in given.items())
    if isinstance(part, list) and isinstance(whole, list) and len(part) == len(whole):
        return all(contains(*pair) for pair in zip(whole, part, strict=True))
    return whole == part


# --- What both refuse ----------------------------------------------------------------------------------------------

REFUSED: Final[tuple[tuple[dict[str, Any], str, str], ...]] = (
    # Spelling and types.
    ({"slot": 2}, 'unknown field "spec.slot"', "strict decoding error"),
    ({"decode": {"beamsize": 2}}, 'unknown field "spec.decode.beamsize"', "strict decoding error"),
    ({"decode": {"beam_size": 2}}, 'unknown field "spec.decode.beam_size"', "strict decoding error"),
    ({"source": {"pvc": {}}}, 'unknown field "spec.source.pvc"', "strict decoding error"),
    ({"autoscaling": {"maxReplicas": 3}}, 'unknown field "spec.autoscaling"', "strict decoding error"),
    ({"template": {"volumes": []}}, 'unknown field "spec.template.volumes"', "strict decoding error"),
    ({"model": 3}, "spec.model", "must be of type string"),
    ({"model": None}, "spec.model", "Required value"),
    ({"languages": "en"}, "spec.languages", "must be of type array"),
    ({"languages": [None]}, "spec.languages[0]", "must be of type string"),
    ({"slots": "2"}, "spec.slots", "must be of type integer"),
    ({"slots": True}, "spec.slots", "must be of type int32"),
    ({"slots": 1.5}, "spec.slots", "must be of type integer"),
    ({"decode": "greedy"}, "spec.decode", "must be of type object"),
    ({"template": {"tolerations": {}}}, "spec.template.tolerations", "must be of type array"),
    ({"template": {"tolerations": ["gpu"]}}, "spec.template.tolerations[0]", "must be of type object"),
    ({"template": {"affinity": []}}, "spec.template.affinity", "must be of type object"),
    ({"template": {"labels": {"a": 1}}}, "spec.template.labels.a", "must be of type string"),
    # Model, languages, names.
    ({"model": ""}, "spec.model", "should match"),
    ({"model": "a b"}, "spec.model", "should match"),
    ({"model": "a,b"}, "spec.model", "should match"),
    ({"model": "a:b"}, "spec.model", "should match"),
    ({"model": "a\n"}, "spec.model", "should match"),
    ({"model": "-a"}, "spec.model", "should match"),
    ({"model": "x" * (MAX_NAME + 1)}, "spec.model", "Too long"),
    ({"languages": ["klingon"]}, "spec.languages[0]", 'Unsupported value: "klingon"'),
    ({"languages": ["en", "EN"]}, "spec.languages[1]", 'Unsupported value: "EN"'),
    ({"languages": ["english"]}, "spec.languages[0]", 'Unsupported value: "english"'),
    ({"languages": ["pt-BR"]}, "spec.languages[0]", 'Unsupported value: "pt-BR"'),
    ({"languages": ["en", "de", "en"]}, "spec.languages[2]", 'Duplicate value: "en"'),
    ({"model": "base.en", "languages": ["de"]}, "spec.languages", "knows English only; write [en]"),
    ({"model": "owner/base.en", "languages": ["en", "de"]}, "spec.languages", "knows English only"),
    ({"model": "/models/base.en/", "languages": ["auto", "fr"]}, "spec.languages", "knows English only"),
    ({"aliases": ["a b"]}, "spec.aliases[0]", "should match"),
    ({"aliases": ["x" * (MAX_NAME + 1)]}, "spec.aliases[0]", "Too long"),
    ({"aliases": [f"a{n}" for n in range(MAX_ALIASES + 1)]}, "spec.aliases", "must have at most 32 items"),
    # Numbers and choices.
    ({"slots": 0}, "spec.slots", "greater than or equal to 1"),
    ({"slots": 65}, "spec.slots", "less than or equal to 64"),
    ({"batch": 0}, "spec.batch", "greater than or equal to 1"),
    ({"queue": -1}, "spec.queue", "greater than or equal to 0"),
    ({"queue": 1025}, "spec.queue", "less than or equal to 1024"),
    ({"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
    ({"replicas": 1001}, "spec.replicas", "less than or equal to 1000"),
    ({"replicas": 2.0}, "spec.replicas", "expected int64"),
    ({"device": "tpu"}, "spec.device", 'supported values: "cpu", "cuda"'),
    ({"computeType": "int4"}, "spec.computeType", 'Unsupported value: "int4"'),
    ({"computeType": "float16"}, "spec.computeType", "need device cuda"),
    ({"computeType": "int8_float16", "device": "cpu"}, "spec.computeType", "need device cuda"),
    ({"decode": {"window": "half"}}, "spec.decode.window", 'supported values: "auto", "full"'),
    ({"decode": {"beamSize": 0}}, "spec.decode.beamSize", "greater than or equal to 1"),
    ({"decode": {"beamSize": 11}}, "spec.decode.beamSize", "less than or equal to 10"),
    ({"decode": {"vad": True}}, "spec.decode.vad", "must be of type string"),
    ({"decode": {"vad": "sometimes"}}, "spec.decode.vad", 'supported values: "recordings", "always", "never"'),
    ({"decode": {"temperature": 1.1}}, "spec.decode.temperature", "less than or equal to 1"),
    ({"decode": {"temperature": -0.1}}, "spec.decode.temperature", "greater than or equal to 0"),
    ({"limits": {"audioSeconds": 0}}, "spec.limits.audioSeconds", "should be greater than 0"),
    ({"limits": {"audioSeconds": 86_401}}, "spec.limits.audioSeconds", "less than or equal to 86400"),
    ({"limits": {"uploadBytes": 0}}, "spec.limits.uploadBytes", "should be greater than 0"),
    ({"limits": {"uploadBytes": 1 << 40}}, "spec.limits.uploadBytes", "less than or equal to"),
    ({"rollout": {"maxSurge": 0}}, "spec.rollout.maxUnavailable", "maxSurge or maxUnavailable above 0"),
    ({"rollout": {"maxSurge": -1}}, "spec.rollout.maxSurge", "greater than or equal to 0"),
    ({"rollout": {"maxUnavailable": 1001}}, "spec.rollout.maxUnavailable", "less than or equal to 1000"),
    ({"warmup": {"timeoutSeconds": 0}}, "spec.warmup.timeoutSeconds", "greater than or equal to 1"),
    # Where the weights come from.
    ({"image": ""}, "spec.image", "should match"),
    ({"image": "a b"}, "spec.image", "should match"),
    ({"image": "x" * 1025}, "spec.image", "Too long"),
    ({"source": {"path": "models/x"}}, "spec.source.path", "should match '^/'"),
    ({"source": {"persistentVolumeClaim": {}}}, "spec.source.persistentVolumeClaim.claimName", "Required value"),
    ({"source": {"image": {}}}, "spec.source.image.reference", "Required value"),
    ({"source": {"hub": {"tokenSecret": {}}}}, "spec.source.hub.tokenSecret.name", "Required value"),
    ({"source": {"hub": {"tokenSecret": {"name": "A"}}}}, "spec.source.hub.tokenSecret.name", "should match"),
    ({"source": {"hub": {"tokenSecret": {"name": "a..b"}}}}, "spec.source.hub.tokenSecret.name", "should match"),
    ({"source": {"hub": {"tokenSecret": {"name": "a", "key": "b c"}}}}, "spec.source.hub.tokenSecret.key", "should match"),
    ({"source": {"hub": {"revision": ""}}}, "spec.source.hub.revision", "at least 1 chars long"),
    ({"source": {"hub": {"endpoint": "hub.example"}}}, "spec.source.hub.endpoint", "should match '^https?://"),
    ({"source": {"path": "/x", "hub": {}}}, "spec.source", "at most one of hub, persistentVolumeClaim, image, path"),
    (
        {"source": {"image": {"reference": "a"}, "persistentVolumeClaim": {"claimName": "a"}}},
        "spec.source",
        "at most one of",
    ),
    ({"model": "/models/x", "source": {"path": "/y"}}, "spec.source", "leave out source"),
    ({"model": "/models/x", "source": {"hub": {}}}, "spec.source", "leave out source"),
    (
        {"source": {"persistentVolumeClaim": {"claimName": "a", "path": "/b"}}},
        "spec.source.persistentVolumeClaim.path",
        "stay inside the volume",
    ),
    ({"source": {"image": {"reference": "a", "path": "b/../../c"}}}, "spec.source.image.path", "stay inside the volume"),
    ({"source": {"image": {"reference": "a", "path": ".."}}}, "spec.source.image.path", "stay inside the volume"),
    ({"source": {"image": {"reference": "a", "path": ""}}}, "spec.source.image.path", "at least 1 chars long"),
    # Pods.
    ({"template": {"labels": {"everwarm.dev/x": "a"}}}, "spec.template.labels", "are the operator's"),
    ({"template": {"labels": {"app.kubernetes.io/name": "a"}}}, "spec.template.labels", "are the operator's"),
    ({"template": {"annotations": {"everwarm.dev/x": "a"}}}, "spec.template.annotations", "are the operator's"),
    ({"template": {"labels": {"a": "x" * 64}}}, "spec.template.labels.a", "Too long"),
    ({"template": {"labels": {"a": "b c"}}}, "spec.template.labels.a", "should match"),
    ({"template": {"labels": {f"a{n}": "" for n in range(65)}}}, "spec.template.labels", "Too many"),
    ({"template": {"annotations": {"a": "x" * 65_537}}}, "spec.template.annotations.a", "Too long"),
    ({"template": {"nodeSelector": {f"a{n}": "" for n in range(65)}}}, "spec.template.nodeSelector", "Too many"),
    ({"template": {"tolerations": [{}] * 65}}, "spec.template.tolerations", "must have at most 64 items"),
    (
        {"template": {"env": [{"name": "A"}, {"name": f"{RESERVED_ENV}SLOTS", "value": "9"}]}},
        "spec.template.env[1].name",
        "set the field instead",
    ),
    ({"template": {"env": [{"value": "9"}]}}, "spec.template.env[0].name", "Required value"),
    ({"template": {"env": [{"name": "A=B"}]}}, "spec.template.env[0].name", "should match"),
    ({"template": {"env": [{"name": "A", "value": 9}]}}, "spec.template.env[0].value", "must be of type string"),
    ({"template": {"env": [{"name": "A", "val": ""}]}}, 'unknown field "spec.template.env[0].val"', "strict"),
    ({"template": {"env": [{"name": "A"}, {"name": "A"}]}}, "spec.template.env[1]", "Duplicate value"),
    (
        {"template": {"env": [{"name": "A", "value": "", "valueFrom": {}}]}},
        "spec.template.env[0]",
        "value or valueFrom, not both",
    ),
    ({"template": {"resources": {"limit": {}}}}, 'unknown field "spec.template.resources.limit"', "strict"),
    ({"template": {"resources": {"limits": {"cpu": 0.5}}}}, "spec.template.resources.limits.cpu", "must be of type"),
    ({"template": {"resources": {"limits": {"cpu": True}}}}, "spec.template.resources.limits.cpu", "must be of type"),
    ({"template": {"resources": {"limits": {"cpu": -1}}}}, "spec.template.resources.limits.cpu", "greater than or equal"),
    ({"template": {"resources": {"limits": {"cpu": 10**30}}}}, "spec.template.resources.limits.cpu", "must be of type"),
    ({"template": {"resources": {"limits": {"cpu": "-1"}}}}, "spec.template.resources.limits.cpu", "should match"),
    ({"template": {"resources": {"limits": {"memory": "2GB"}}}}, "spec.template.resources.limits.memory", "should match"),
    ({"template": {"imagePullSecrets": ["a"]}}, "spec.template.imagePullSecrets[0]", "must be of type object"),
    ({"template": {"imagePullSecrets": [{}]}}, "spec.template.imagePullSecrets[0].name", "Required value"),
    ({"template": {"imagePullSecrets": [{"name": "a"}] * 2}}, "spec.template.imagePullSecrets[1]", "Duplicate value"),
    ({"template": {"runtimeClassName": "A"}}, "spec.template.runtimeClassName", "should match"),
)  # fmt: skip


def test_table_of_refusals_knows_every_rule() -> None:
    """A rule without a case here might never have run."""
    messages = {rule["message"] for path, rules in RULES.items() if path for rule in rules}
    unproven = [message for message in messages if not any(said in message for _, _, said in REFUSED)]
    assert unproven == []
    assert len(REFUSED) >= 45


@pytest.mark.parametrize(("spec", "field", "rule"), REFUSED, ids=lambda value: str(value)[:60])
def test_bad_spec_is_refused_by_both_with_the_field_and_the_rule(
    server: ControlPlane, spec: dict[str, Any], field: str, rule: str
) -> None:
    assert core_refusal(document(**spec)) is not None
    message = refusal(server, document(**spec)) or "(accepted)"
    assert f"{field}: " in message or field.startswith("unknown field")
    assert field in message
    assert rule in message


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a" * (MAX_RESOURCE_NAME + 1), f"at most {MAX_RESOURCE_NAME} characters"),
        ("Speech", "RFC 1123"),
        ("a_b", "RFC 1123"),
        ("-a", "RFC 1123"),
        ("a..b", "RFC 1123"),
        ("a" * 254, "at most"),
    ],
)
def test_bad_name_is_refused_by_both(server: ControlPlane, name: str, rule: str) -> None:
    assert core_refusal(document(name)) is not None
    message = refusal(server, document(name)) or "(accepted)"
    assert "metadata.name" in message
    assert rule in message


@pytest.mark.parametrize("spec", [None, "missing", [], "text"])
def test_resource_without_a_spec_is_refused_by_both(server: ControlPlane, spec: object) -> None:
    bad: dict[str, Any] = document() | {"spec": spec}
    if spec == "missing":
        del bad["spec"]
    assert core_refusal(bad) is not None
    assert "spec: " in (refusal(server, bad) or "(accepted)")


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*ACCEPTED, *(spec for spec, _, _ in REFUSED)]), min_size=2, max_size=4))
def test_core_and_the_api_server_agree_on_any_mixture(
    server: ControlPlane, specs: list[dict[str, Any]]
) -> None:
    """Rules over several fields meet values that no table pairs."""
    mixed: dict[str, Any] = {}
    for spec in specs:
        for name, value in spec.items():
            both = isinstance(value, dict) and isinstance(mixed.get(name), dict)
            mixed[name] = mixed[name] | value if both else value
    in_core, in_cluster = core_refusal(document(**mixed)), refusal(server, document(**mixed))
    assert (in_core is None) == (in_cluster is None), f"core: {in_core}\nAPI server: {in_cluster}"


# Differences there are on purpose: (spec, whether the API server takes it, why).
EXCEPTIONS: Final = (
    *(
        (
            spec,
            True,
            "the API server reads null as left out before anybody else sees it; in a file it is a forgotten value",
        )
        for spec in (
            {"decode": None},
            {"slots": None},
            {"aliases": None},
            {"limits": {"audioSeconds": None}},
            {"template": {"labels": {"a": None}}},
        )
    ),
    (
        {"languages": [False]},
        False,
        "an unquoted `no`, which YAML reads as false: a schema has no words for it, so core alone can be kind",
    ),
)


@pytest.mark.parametrize(("spec", "is_accepted", "why"), EXCEPTIONS, ids=lambda value: str(value)[:40])
def test_core_and_the_api_server_differ_only_where_it_is_meant(
    server: ControlPlane, spec: dict[str, Any], is_accepted: bool, why: str  # noqa: FBT001 - parametrized
) -> None:  # fmt: skip
    assert why
    assert (refusal(server, document(**spec)) is None) is is_accepted
    assert (core_refusal(document(**spec)) is None) is not is_accepted


# --- Life in a cluster ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_accepted_unchanged(server: ControlPlane, namespace: str, path: Path) -> None:
    documents = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]
    for written, meant in zip(documents, load_resources(path), strict=True):
        create(server, written, namespace=namespace, dry_run=False)
        stored = server.request("GET", f"{resources(namespace)}/{meant.name}")
        assert contains(stored, written)
        assert WhisperModel.from_document(stored, source="cluster").spec == meant.spec


def test_definition_is_established_without_complaints(server: ControlPlane) -> None:
    """NonStructuralSchema and the like are conditions, not refusals."""
    found = server.request("GET", f"{CRDS}/{NAME}")["status"]["conditions"]
    conditions = {condition["type"]: condition["status"] for condition in found}
    assert conditions.items() >= {"Established": "True", "NamesAccepted": "True"}.items()
    assert "NonStructuralSchema" not in conditions


def test_every_field_can_be_changed(server: ControlPlane, namespace: str) -> None:
    """None is immutable: a change is a rolling update."""
    create(server, document(), namespace=namespace, dry_run=False)
    path = f"{resources(namespace)}/speech?fieldValidation=Strict"
    for spec in ACCEPTED:
        if spec:
            changed = server.request("PATCH", path, {"spec": {"source": None, "languages": None, **spec}})
            assert changed["spec"]["model"]
            server.request("PATCH", path, {"spec": {**dict.fromkeys(spec), "model": "base"}})


STATUS: Final[dict[str, Any]] = {
    "observedGeneration": 1,
    "replicas": 2,
    "readyReplicas": 1,
    "warmReplicas": 1,
    "selector": "app.kubernetes.io/name=everwarm-stt,app.kubernetes.io/instance=speech",
    "model": "base",
    "names": ["base", "speech", "whisper-1"],
    "languages": ["en", "auto"],
    "loadSeconds": 0.75,
    "warmSeconds": 2.5,
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "WaitingForWarmPod",
            "message": "1 of 2 pods is warm",
        }
    ],
}


@pytest.fixture
def whispermodel(server: ControlPlane, namespace: str) -> str:
    """The path of a resource with a status."""
    create(server, document(replicas=2), namespace=namespace, dry_run=False)
    path = f"{resources(namespace)}/speech"
    server.request("PATCH", f"{path}/status?fieldValidation=Strict", {"status": STATUS})
    return path


def test_status_keeps_every_field(server: ControlPlane, whispermodel: str) -> None:
    assert server.request("GET", whispermodel)["status"] == STATUS


def test_status_is_a_thing_of_its_own(server: ControlPlane, whispermodel: str) -> None:
    """A user who applies a whole resource does not overwrite what the operator saw, nor the operator the spec."""
    server.request("PATCH", whispermodel, {"status": {"replicas": 99}})
    server.request("PATCH", f"{whispermodel}/status", {"spec": {"replicas": 99}})
    found = server.request("GET", whispermodel)
    assert (found["status"]["replicas"], found["spec"]["replicas"]) == (2, 2)
    assert found["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"status": "Maybe"}, "status.conditions[0].status"),
        ({"reason": "waiting for a pod"}, "status.conditions[0].reason"),
        ({"reason": ""}, "status.conditions[0].reason"),
        ({"lastTransitionTime": "yesterday"}, "status.conditions[0].lastTransitionTime"),
        ({"observedGeneration": "1"}, "status.conditions[0].observedGeneration"),
    ],
)
def test_condition_is_refused_when_generic_tools_could_not_read_it(
    server: ControlPlane, whispermodel: str, change: dict[str, Any], field: str
) -> None:
    bad = {"status": {"conditions": [STATUS["conditions"][0] | change]}}
    with pytest.raises(Refused) as caught:
        server.request("PATCH", f"{whispermodel}/status", bad)
    assert f"{field}: " in caught.value.message


def test_condition_of_each_type_is_there_once(server: ControlPlane, whispermodel: str) -> None:
    with pytest.raises(Refused, match="Duplicate value"):
        server.request(
            "PATCH", f"{whispermodel}/status", {"status": {"conditions": STATUS["conditions"] * 2}}
        )


async def test_scale_is_read_and_written_by_autoscalers(client: ApiClient, whispermodel: str) -> None:
    namespace = whispermodel.split("/")[5]
    api = CustomObjectsApi(client)
    found: Any = await api.get_namespaced_custom_object_scale(GROUP, VERSION, namespace, PLURAL, "speech")
    assert (found["spec"]["replicas"], found["status"]["replicas"]) == (2, 2)
    assert found["status"]["selector"] == STATUS["selector"]
    await api.patch_namespaced_custom_object_scale(
        GROUP,
        VERSION,
        namespace,
        PLURAL,
        "speech",
        {"spec": {"replicas": 5}},
        _content_type="application/merge-patch+json",
    )
    changed: Any = await api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, "speech")
    assert changed["spec"]["replicas"] == 5


async def test_scale_keeps_to_the_bounds_of_the_spec(server: ControlPlane, whispermodel: str) -> None:
    with pytest.raises(Refused, match="less than or equal to 1000"):
        server.request("PATCH", f"{whispermodel}/scale", {"spec": {"replicas": 1001}})


async def test_table_shows_the_promised_columns(client: ApiClient, whispermodel: str) -> None:
    """What `kubectl get wm` prints."""
    method, url, headers, _, _ = await client.param_serialize(
        "GET",
        whispermodel,
        header_params={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
        auth_settings=["BearerToken"],
    )
    response = await client.call_api(method, url, header_params=headers)
    table = json.loads(await response.read())  # type: ignore[no-untyped-call]  # the client's
    columns = {column["name"]: column for column in table["columnDefinitions"]}
    assert [name.upper() for name, column in columns.items() if column["priority"] == 0] == [
        "NAME", "MODEL", "LANGUAGES", "DESIRED", "WARM", "READY", "LOAD", "AGE"
    ]  # fmt: skip
    cells = dict(zip(columns, table["rows"][0]["cells"], strict=True))
    assert {
        name: cells[name] for name in ("MODEL", "LANGUAGES", "DESIRED", "WARM", "READY", "LOAD", "REASON")
    } == {
        "MODEL": "base",
        "LANGUAGES": '["en","auto"]',
        "DESIRED": 2,
        "WARM": 1,
        "READY": "False",
        "LOAD": 0.75,
        "REASON": "WaitingForWarmPod",
    }


def descriptions(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Path and description of every field inside *schema*."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        yield here, field.get("description", "")
        yield from descriptions(field, here)
        yield from descriptions(field.get("items", {}), f"{here}[]")


def test_descriptions_reach_kubectl_explain(server: ControlPlane) -> None:
    """`kubectl explain` reads the OpenAPI document that the API server publishes."""
    path = f"/openapi/v3/apis/{GROUP}/{VERSION}"

    def published() -> dict[str, Any]:
        schemas = server.request("GET", path)["components"]["schemas"]
        (schema,) = (found for name, found in schemas.items() if name.endswith(".WhisperModel"))
        assert isinstance(schema, dict)
        return schema

    server.wait_for("published schema", lambda: "spec" in published()["properties"], within_s=WAIT_S)
    found = dict(descriptions(published()))
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    ours = {
        path: text
        for path, text in descriptions(schema)
        if path.split(".")[0].split("[")[0] in ("spec", "status")
    }
    assert len(ours) > 60
    assert {path: found.get(path) for path in ours} == ours


def test_short_name_and_category_are_served(server: ControlPlane) -> None:
    served = server.request("GET", f"/apis/{GROUP}/{VERSION}")["resources"]
    (found,) = (resource for resource in served if resource["name"] == PLURAL)
    assert (found["shortNames"], found["categories"], found["namespaced"]) == (["wm"], ["everwarm"], True)
    assert {resource["name"] for resource in served} == {PLURAL, f"{PLURAL}/status", f"{PLURAL}/scale"}
