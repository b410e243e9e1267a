"""WhisperModel: what is accepted, what it means, and what is said of the rest, with the path of the field."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from everwarm_core.errors import SpecError
from everwarm_core.keys import ModelKey
from everwarm_core.languages import AUTO, LANGUAGE_NAMES
from everwarm_core.spec import (
    MAX_ALIASES,
    MAX_RESOURCE_NAME,
    WhisperModel,
    WhisperModelSpec,
    ensure_names_are_unique,
    load_resources,
)
from tests.fixtures.records import model_names


def document(name: str = "speech", **spec: Any) -> dict[str, Any]:
    """A parsed YAML document; *spec* is in its spelling."""
    return {
        "apiVersion": "everwarm.dev/v1alpha1",
        "kind": "WhisperModel",
        "metadata": {"name": name},
        "spec": {"model": "base", **spec},
    }


def resource(name: str = "speech", **spec: Any) -> WhisperModel:
    return WhisperModel.from_document(document(name, **spec), source="test.yaml")


def problems(bad: object) -> dict[str, str]:
    """Path to reason of everything wrong with *bad*, which must be wrong."""
    with pytest.raises(SpecError) as caught:
        WhisperModel.from_document(bad, source="test.yaml")
    assert str(caught.value).startswith("test.yaml is not a valid WhisperModel")
    return dict(caught.value.problems)


# --- What is accepted ----------------------------------------------------------------------------------------------


def test_spec_needs_a_model_and_nothing_else() -> None:
    spec = resource().spec
    assert (spec.slots, spec.queue, spec.replicas, spec.device) == (1, 4, 1, "cpu")
    decode = spec.decode
    assert (decode.beam_size, decode.vad, decode.window, decode.temperature) == (5, "recordings", "auto", 0.0)
    assert (spec.limits.audio_seconds, spec.limits.upload_bytes) == (1800, 26_214_400)
    assert spec.warmup.timeout_seconds == 600


def test_every_field_is_accepted_in_the_spelling_of_the_resource() -> None:
    spec = resource(
        image="registry.example/stt:1",
        languages=["en", "de", "auto"],
        aliases=["whisper-1", "owner/name"],
        source={
            "hub": {"revision": "main", "endpoint": "https://hub.example", "tokenSecret": {"name": "hub"}}
        },
        device="cuda",
        computeType="float16",
        slots=2,
        queue=0,
        replicas=0,
        decode={"beamSize": 1, "vad": "never", "window": "full", "temperature": 0.5},
        limits={"audioSeconds": 60, "uploadBytes": 1},
        warmup={"timeoutSeconds": 30},
        template={
            "resources": {"limits": {"memory": "2Gi"}},
            "nodeSelector": {"gpu": "yes"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "env": [{"name": "A", "value": "b"}],
        },
    ).spec
    assert spec.languages == ("en", "de", "auto")
    assert spec.source.hub is not None
    assert spec.source.hub.token_secret is not None
    assert spec.source.hub.token_secret.key == "token"
    assert spec.limits.audio_seconds == 60.0
    assert spec.template.node_selector == {"gpu": "yes"}


def test_status_and_foreign_metadata_are_ignored() -> None:
    """A resource read back from the API server carries both."""
    body = document() | {"status": {"readyReplicas": 1}}
    body["metadata"] |= {"uid": "1", "labels": {"a": "b"}, "namespace": "speech"}
    read = WhisperModel.from_document(body, source="cluster")
    assert read.metadata.namespace == "speech"


@pytest.mark.parametrize(
    ("model", "languages"), [("base.en", ("en",)), ("base", ("auto",)), ("large-v3", ("auto",))]
)
def test_languages_default_by_the_model(model: str, languages: tuple[str, ...]) -> None:
    assert resource(model=model).spec.languages == languages


def test_every_language_and_detection_can_be_proven_together() -> None:
    everything = [*LANGUAGE_NAMES, AUTO]
    assert resource(languages=everything).spec.languages == tuple(everything)


def test_unquoted_norwegian_of_yaml_is_meant() -> None:
    spec = yaml.safe_load("model: base\nlanguages: [no, en]")
    assert spec["languages"][0] is False
    assert resource(**spec).spec.languages == ("no", "en")


def test_whole_number_may_be_written_with_a_fraction_of_zero() -> None:
    """JSON has one kind of number: the API server takes 2.0 for 2 and keeps it as it came, except in replicas."""
    assert resource(slots=2.0).spec == resource(slots=2).spec


@pytest.mark.parametrize("model", ["base.en", "/models/base.en/", "owner/small.en"])
@pytest.mark.parametrize("languages", [[], ["en"], ["auto"], ["en", "auto"]])
def test_english_only_model_takes_english_and_detection(model: str, languages: list[str]) -> None:
    assert resource(model=model, languages=languages).spec.languages == (tuple(languages) or ("en",))


@pytest.mark.parametrize("path", [".", "a", "a/b", "./a", "a/", "..a", "a..b/.c", "...", "a/.../b"])
def test_folder_in_a_volume_may_have_any_name_that_stays_inside(path: str) -> None:
    claim = resource(source={"persistentVolumeClaim": {"claimName": "weights", "path": path}}).spec.source
    assert claim.persistent_volume_claim is not None
    assert claim.persistent_volume_claim.path == path


def test_what_is_passed_through_stays_as_it_was_written() -> None:
    """Kubernetes gets what the author wrote: no field that was left out, no number made text."""
    template = {
        "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "2Gi"}},
        "env": [{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
        "imagePullSecrets": [{"name": "registry"}],
        "affinity": {"podAntiAffinity": {"a": [None, 1.5, {}]}},
    }
    read = resource(template=template).spec.template
    assert read.resources == template["resources"]
    assert read.env == template["env"]
    assert read.image_pull_secrets == template["imagePullSecrets"]
    assert read.affinity == template["affinity"]


@pytest.mark.parametrize("amount", [0, 2, "2", "0.5", ".5", "500m", "2Gi", "1e3", "1E-3", "100k"])
def test_amount_is_whatever_kubernetes_takes(amount: object) -> None:
    written = {"requests": {"cpu": amount}}
    assert resource(template={"resources": written}).spec.template.resources == written


@pytest.mark.parametrize(
    ("device", "given_type", "effective"),
    [
        ("cpu", None, "int8"),
        ("cuda", None, "float16"),
        ("cpu", "float32", "float32"),
        ("cuda", "auto", "auto"),
    ],
)
def test_compute_type_defaults_by_the_device(device: str, given_type: str | None, effective: str) -> None:
    spec = resource(device=device, **({"computeType": given_type} if given_type else {})).spec
    assert spec.effective_compute_type == effective


@pytest.mark.parametrize(
    ("spec", "effective"),
    [
        ({}, 1),
        ({"device": "cuda"}, 16),
        ({"batch": 4}, 4),
        ({"device": "cuda", "batch": 4, "decode": {"window": "full"}}, 1),
    ],
    ids=["on a cpu", "on a GPU", "as given", "one by one at full windows"],
)
def test_batch_defaults_by_what_is_decoded_where(spec: dict[str, Any], effective: int) -> None:
    assert resource(**spec).spec.effective_batch == effective


@given(model_names())
def test_any_served_name_can_be_a_model(model: str) -> None:
    assert resource(model=model).spec.model == model


# --- What it means -------------------------------------------------------------------------------------------------


def test_names_are_the_model_the_resource_and_the_aliases_each_once() -> None:
    read = resource("base", model="base", aliases=["whisper-1", "base", "whisper-1"])
    assert read.names == ("base", "whisper-1")


def test_keys_are_every_name_in_every_language() -> None:
    assert set(resource("speech", languages=["en", "de"]).keys) == {
        ModelKey("base", "en"),
        ModelKey("base", "de"),
        ModelKey("speech", "en"),
        ModelKey("speech", "de"),
    }


def test_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        resource().spec.slots = 2  # type: ignore[misc]  # that is what is tested


def test_spec_is_the_same_after_a_trip_through_json() -> None:
    spec = resource(languages=["en"], source={"path": "/models/x"}, decode={"beamSize": 1}).spec
    written = json.loads(spec.model_dump_json(by_alias=True, exclude_none=True))
    assert resource(**written).spec == spec


def test_specs_are_equal_when_they_say_the_same() -> None:
    assert resource().spec == resource(slots=1).spec
    assert resource().spec != resource(slots=2).spec


# --- What is refused -----------------------------------------------------------------------------------------------

BAD_SPECS: list[tuple[dict[str, Any], str, str]] = [
    ({"slot": 2}, "spec.slot", "unknown field"),
    ({"decode": {"beamsize": 2}}, "spec.decode.beamsize", "unknown field"),
    ({"decode": {"beam_size": 2}}, "spec.decode.beam_size", "unknown field"),
    ({"model": ""}, "spec.model", "use letters"),
    ({"model": "a b"}, "spec.model", "use letters"),
    ({"model": "a,b"}, "spec.model", "use letters"),
    ({"model": "a:b"}, "spec.model", "use letters"),
    ({"model": "a\n"}, "spec.model", "use letters"),
    ({"model": "x" * 254}, "spec.model", "at most 253"),
    ({"model": 3}, "spec.model", "must be text"),
    ({"model": None}, "spec.model", "must be text"),
    ({"languages": "en"}, "spec.languages", "must be a list"),
    ({"languages": ["klingon"]}, "spec.languages[0]", "not a language"),
    ({"languages": ["en", "EN"]}, "spec.languages[1]", "write the code 'en'"),
    ({"languages": ["english"]}, "spec.languages[0]", "write the code 'en'"),
    ({"languages": ["en", "en"]}, "spec", "each at most once"),
    ({"model": "base.en", "languages": ["de"]}, "spec", "English only"),
    ({"aliases": ["a b"]}, "spec.aliases[0]", "use letters"),
    ({"aliases": [f"a{n}" for n in range(MAX_ALIASES + 1)]}, "spec.aliases", "at most 32"),
    ({"slots": 0}, "spec.slots", "greater than or equal to 1 (got 0)"),
    ({"slots": 65}, "spec.slots", "less than or equal to 64"),
    ({"batch": 0}, "spec.batch", "greater than or equal to 1"),
    ({"slots": "2"}, "spec.slots", "must be a whole number (got '2')"),
    ({"slots": True}, "spec.slots", "must be a whole number"),
    ({"slots": 1.5}, "spec.slots", "must be a whole number"),
    ({"replicas": 2.0}, "spec.replicas", "must be a whole number"),
    ({"queue": -1}, "spec.queue", "greater than or equal to 0"),
    ({"replicas": 1001}, "spec.replicas", "less than or equal to 1000"),
    ({"device": "tpu"}, "spec.device", "'cpu' or 'cuda' (got 'tpu')"),
    ({"computeType": "int4"}, "spec.computeType", "'int8'"),
    ({"decode": {"vad": True}}, "spec.decode.vad", "'recordings'"),
    ({"decode": {"temperature": 1.1}}, "spec.decode.temperature", "less than or equal to 1"),
    ({"decode": {"temperature": float("nan")}}, "spec.decode.temperature", "(got nan)"),
    ({"decode": None}, "spec.decode", "must be a mapping"),
    ({"limits": {"audioSeconds": 0}}, "spec.limits.audioSeconds", "greater than 0"),
    ({"limits": {"audioSeconds": float("inf")}}, "spec.limits.audioSeconds", "less than or equal to 86400"),
    ({"limits": {"uploadBytes": 1 << 40}}, "spec.limits.uploadBytes", "less than or equal to"),
    ({"source": {"path": "models/x"}}, "spec.source.path", "^/"),
    ({"source": {"persistentVolumeClaim": {}}}, "spec.source.persistentVolumeClaim.claimName", "is required"),
    (
        {"source": {"path": "/x", "persistentVolumeClaim": {"claimName": "a"}}},
        "spec.source",
        "got persistentVolumeClaim, path",
    ),
    ({"template": {"tolerations": {}}}, "spec.template.tolerations", "must be a list"),
    ({"template": {"labels": {"a": 1}}}, "spec.template.labels.a", "must be text"),
    ({"model": "/models/x", "source": {"path": "/y"}}, "spec", "leave out source"),
    ({"model": "/models/x", "source": {"hub": {}}}, "spec", "leave out source"),
    ({"computeType": "float16"}, "spec", "float16 needs device cuda"),
    ({"image": ""}, "spec.image", "pattern"),
    ({"image": "a b"}, "spec.image", "pattern"),
    ({"source": {"hub": {"revision": ""}}}, "spec.source.hub.revision", "at least 1 character"),
    ({"source": {"hub": {"endpoint": "hub.example"}}}, "spec.source.hub.endpoint", "^https?://"),
    (
        {"source": {"hub": {"tokenSecret": {"name": "a..b"}}}},
        "spec.source.hub.tokenSecret.name",
        "lower-case",
    ),
    ({"source": {"image": {"reference": "x", "path": "../y"}}}, "spec.source.image.path", "stay inside"),
    ({"source": {"image": {"reference": "x", "path": "/y"}}}, "spec.source.image.path", "stay inside"),
    ({"source": {"image": {"reference": "x", "path": "a/.."}}}, "spec.source.image.path", "stay inside"),
    (
        {"template": {"labels": {"everwarm.dev/x": "a"}}},
        "spec.template.labels",
        "'everwarm.dev/x': keys that begin",
    ),
    ({"template": {"labels": {"app.kubernetes.io/name": "a"}}}, "spec.template.labels", "are the operator's"),
    (
        {"template": {"annotations": {"everwarm.dev/x": "a"}}},
        "spec.template.annotations",
        "are the operator's",
    ),
    ({"template": {"labels": {"a": "x" * 64}}}, "spec.template.labels.a", "at most 63"),
    ({"template": {"labels": {"a": "b c"}}}, "spec.template.labels.a", "pattern"),
    (
        {"template": {"nodeSelector": {str(n): "" for n in range(65)}}},
        "spec.template.nodeSelector",
        "at most 64",
    ),
    (
        {"template": {"env": [{"name": "EVERWARM_SLOTS", "value": "9"}]}},
        "spec.template.env[0]",
        "set the field",
    ),
    ({"template": {"env": [{"value": "9"}]}}, "spec.template.env[0].name", "is required"),
    ({"template": {"env": [{"name": "A", "value": 9}]}}, "spec.template.env[0].value", "put it in quotes"),
    ({"template": {"env": [{"name": "A", "val": ""}]}}, "spec.template.env[0].val", "unknown field"),
    ({"template": {"env": [{"name": "A"}, {"name": "A"}]}}, "spec.template.env", "'A' is there twice"),
    (
        {"template": {"env": [{"name": "A", "value": "", "valueFrom": {}}]}},
        "spec.template.env[0]",
        "value or valueFrom, not both",
    ),
    ({"template": {"resources": {"limit": {}}}}, "spec.template.resources.limit", "unknown field"),
    (
        {"template": {"resources": {"limits": {"cpu": 0.5}}}},
        "spec.template.resources.limits.cpu",
        "in quotes",
    ),
    (
        {"template": {"resources": {"limits": {"cpu": "-1"}}}},
        "spec.template.resources.limits.cpu",
        "an amount",
    ),
    (
        {"template": {"resources": {"limits": {"cpu": True}}}},
        "spec.template.resources.limits.cpu",
        "an amount",
    ),
    (
        {"template": {"resources": {"limits": {"memory": "2GB"}}}},
        "spec.template.resources.limits.memory",
        "2Gi",
    ),
    ({"template": {"imagePullSecrets": ["a"]}}, "spec.template.imagePullSecrets[0]", "must be a mapping"),
    ({"template": {"imagePullSecrets": [{}]}}, "spec.template.imagePullSecrets[0].name", "is required"),
    ({"template": {"runtimeClassName": "A"}}, "spec.template.runtimeClassName", "lower-case"),
]


@pytest.mark.parametrize(("spec", "path", "reason"), BAD_SPECS, ids=lambda value: str(value)[:40])
def test_bad_field_is_named_by_its_path_with_the_reason(spec: dict[str, Any], path: str, reason: str) -> None:
    found = problems(document(**spec))
    assert list(found) == [path]
    assert reason in found[path]


@pytest.mark.parametrize("bad", [None, [], "text", 3, True])
def test_document_is_refused_when_it_is_no_mapping(bad: object) -> None:
    assert problems(bad).keys() == {"(document)"}


def test_every_missing_part_is_named_at_once() -> None:
    assert problems({}) == {"metadata": "is required", "spec": "is required"}


@pytest.mark.parametrize("name", ["", "Speech", "-a", "a-", "a_b", "a/b", "a..b", "a.-b", "a" * 254])
def test_object_name_is_refused_when_kubernetes_would(name: str) -> None:
    assert "lower-case" in problems(document(name))["metadata.name"]


def test_resource_name_is_refused_when_names_made_from_it_would_not_fit() -> None:
    assert resource("a" * MAX_RESOURCE_NAME).names == ("base", "a" * MAX_RESOURCE_NAME)
    found = problems(document("a" * (MAX_RESOURCE_NAME + 1)))["metadata.name"]
    assert f"at most {MAX_RESOURCE_NAME}" in found


@pytest.mark.parametrize(("field", "value"), [("apiVersion", "v1"), ("kind", "Pod"), ("kind", None)])
def test_document_of_another_kind_is_refused(field: str, value: object) -> None:
    assert list(problems(document() | {field: value})) == [field]


def test_long_bad_value_is_cut_in_the_message() -> None:
    assert len(problems(document(device="x" * 100_000))["spec.device"]) < 300


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
    st.sampled_from(
        ["metadata", "spec", *(f"spec.{name}" for name in WhisperModelSpec.model_json_schema()["properties"])]
    ),
)
def test_anything_in_place_of_a_field_gives_a_spec_or_a_spec_error(value: object, path: str) -> None:
    """Never another exception, whatever somebody writes into the file."""
    body = document()
    *parents, last = path.split(".")
    target = body
    for parent in parents:
        target = target[parent]
    target[last] = value
    try:
        read = WhisperModel.from_document(body, source="test.yaml")
    except SpecError as error:
        found = error.problems
    else:
        found = ()
        assert read.keys
    assert all(where.startswith(path.split(".", maxsplit=1)[0]) for where, _ in found)


# --- Files ---------------------------------------------------------------------------------------------------------


def test_file_may_hold_several_documents_and_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("---\n" + yaml.safe_dump_all([document("one"), document("two")]) + "---\n")
    assert [read.name for read in load_resources(path)] == ["one", "two"]


def test_bad_document_is_named_by_its_number_when_a_file_holds_several(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump_all([document("one"), document("two", slots=0)]))
    with pytest.raises(SpecError, match=r"models\.yaml \(document 2\)"):
        load_resources(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no resource"),
        (b"---\n---\n", "holds no resource"),
        (b"a: [", "is no YAML"),
        (b"a: \x01", "is no YAML"),
        (b"a: 2024-99-99", "is no YAML"),
        (b"[" * 1500, "is no YAML"),
        (b"!!python/object:os.system {}", "is no YAML"),
        (b"\xff\xfe\xfa", "cannot be read"),
        (b"just text", "mapping"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_file_is_refused_with_its_name_when_it_is_damaged(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "models.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=reason) as caught:
        load_resources(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml"):
        load_resources(tmp_path / "nowhere.yaml")


# --- Names among resources -----------------------------------------------------------------------------------------


def conflict(*resources: WhisperModel) -> tuple[str, str]:
    """Who is at fault, and the path of the name."""
    with pytest.raises(SpecError) as caught:
        ensure_names_are_unique(resources)
    return caught.value.source, caught.value.problems[0][0]


def test_resources_of_one_model_pool_their_pods() -> None:
    ensure_names_are_unique([resource("base"), resource("two"), resource("three", aliases=["whisper-1"])])


def test_second_resource_of_a_name_is_at_fault() -> None:
    assert conflict(resource("one"), resource("one", model="tiny")) == ("one", "metadata.name")


def test_second_resource_of_an_alias_is_at_fault() -> None:
    one, two = resource("one", aliases=["a", "whisper-1"]), resource("two", aliases=["whisper-1"])
    assert conflict(one, two) == ("two", "spec.aliases[0]")


def test_alias_that_is_another_resources_name_is_at_fault() -> None:
    assert conflict(resource("one"), resource("two", aliases=["x", "one"])) == ("two", "spec.aliases[1]")


@pytest.mark.parametrize("is_first", [True, False])
def test_alias_that_is_another_model_is_at_fault_in_either_order(is_first: bool) -> None:  # noqa: FBT001 - parametrized
    """Else pods of two different models would answer to one name."""
    owner, liar = resource("one", model="base.en"), resource("two", model="tiny.en", aliases=["base.en"])
    pair = (liar, owner) if is_first else (owner, liar)
    assert conflict(*pair) == ("two", "spec.aliases[0]")


def test_resource_named_like_another_model_is_at_fault() -> None:
    assert conflict(resource("one", model="tiny"), resource("tiny", model="base")) == (
        "tiny",
        "metadata.name",
    )


def test_resource_may_be_named_like_the_model_it_shares() -> None:
    ensure_names_are_unique([resource("one", model="tiny"), resource("tiny", model="tiny")])
