"""The CustomResourceDefinition as a text: what an API server would refuse, and what the contract promises."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from pydantic import Field, WithJsonSchema, create_model

from docs.generate import pages
from everwarm_core.languages import AUTO, LANGUAGE_NAMES
from everwarm_core.spec import MAX_RESOURCE_NAME, SpecPart, WhisperModelSpec
from everwarm_operator import crd
from everwarm_operator.crd import LIST_TYPES, RULES, custom_resource_definition, part_of, resource_schema
from everwarm_operator.naming import object_name

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "everwarm"

ALLOWED_WORDS = {
    "type", "description", "properties", "required", "items", "additionalProperties", "enum", "format", "pattern",
    "default", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "minimum", "maximum", "exclusiveMinimum",
    "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys", "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
}  # fmt: skip


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside *schema*, itself included, with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from parts(field, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from parts(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from parts(schema["additionalProperties"], f"{path}{{}}")


PARTS = list(parts(resource_schema()))


def version() -> dict[str, Any]:
    """The only version of the definition."""
    (only,) = custom_resource_definition()["spec"]["versions"]
    assert isinstance(only, dict)
    return only


# --- Structural ----------------------------------------------------------------------------------------------------


def test_schema_uses_only_words_that_a_structural_schema_has() -> None:
    """No $ref, no anyOf with null, no title: the API server refuses or drops what it does not know."""
    used = {word for _, part in PARTS for word in part}
    assert used - ALLOWED_WORDS == set()


def test_every_part_has_a_type_unless_it_takes_two() -> None:
    untyped = [
        path for path, part in PARTS if "type" not in part and not part.get("x-kubernetes-int-or-string")
    ]
    assert untyped == []


def test_every_field_has_a_description() -> None:
    """`kubectl explain` is documentation."""
    silent = [
        f"{path}.{name}"
        for path, part in PARTS
        for name, field in part.get("properties", {}).items()
        if not field.get("description", "").endswith(".")
        and (path, name) != ("", "metadata")  # Kubernetes' own
    ]
    assert silent == []


def test_descriptions_have_no_line_breaks() -> None:
    assert [path for path, part in PARTS if "\n" in part.get("description", "")] == []


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [("string", {"maxLength", "enum"}), ("array", {"maxItems"}), ("object", {"properties", "maxProperties"})],
)
def test_every_text_list_and_mapping_is_bounded(kind: str, bounds: set[str]) -> None:
    """The API server refuses rules whose cost might be unbounded."""
    unbounded = [
        path
        for path, part in PARTS
        if part.get("type") == kind and not bounds & part.keys() and path != "metadata"  # Kubernetes' own
    ]
    assert unbounded == []


def test_every_number_of_the_spec_is_bounded_on_both_sides() -> None:
    unbounded = [
        path
        for path, part in PARTS
        if path.startswith("spec") and part.get("type") in ("integer", "number")
        if not {"minimum", "maximum"} <= part.keys()
    ]
    assert unbounded == []


def test_whole_numbers_say_how_wide_they_are() -> None:
    assert {part.get("format") for _, part in PARTS if part.get("type") == "integer"} == {"int32", "int64"}


def test_fields_and_free_values_never_stand_side_by_side() -> None:
    assert [path for path, part in PARTS if {"properties", "additionalProperties"} <= part.keys()] == []


def test_unknown_fields_are_kept_only_where_a_part_of_a_pod_is_passed_through() -> None:
    free = {path for path, part in PARTS if part.get("x-kubernetes-preserve-unknown-fields")}
    assert free == {
        "spec.template.affinity",
        "spec.template.env[].valueFrom",
        "spec.template.resourceClaims[]",
        "spec.template.resources.claims[]",
        "spec.template.tolerations[]",
        "spec.template.topologySpreadConstraints[]",
    }


def test_patterns_mean_the_same_to_python_and_to_the_api_server() -> None:
    """RE2 has no lookaround and no back-references; Python compiles the rest alike."""
    patterns = [part["pattern"] for _, part in PARTS if "pattern" in part]
    assert len(patterns) > 10
    for pattern in patterns:
        re.compile(pattern)
        assert not re.search(r"\(\?|\\[1-9]", pattern), pattern


def test_schema_is_made_anew_for_each_caller() -> None:
    custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clear()
    assert resource_schema()["properties"]["status"]["properties"]
    assert version()["schema"]["openAPIV3Schema"]["properties"]


@pytest.mark.parametrize(
    "annotation",
    [
        int | bool | None,
        Annotated[str, WithJsonSchema({"type": "string", "contentEncoding": "base64"})],
        Annotated[int, Field(multiple_of=2)],
        Literal["only"],
        tuple[int, str],
    ],
    ids=str,
)
def test_type_that_a_structural_schema_cannot_say_is_an_error(
    monkeypatch: pytest.MonkeyPatch, annotation: Any
) -> None:
    """Silently left out, it would be checked on a laptop and not in a cluster."""
    model = create_model("Strange", __base__=SpecPart, strange=(annotation, ...))
    monkeypatch.setattr(crd, "WhisperModelSpec", model)
    with pytest.raises(ValueError, match="has no words for"):
        crd.spec_schema()


# --- Defaults and rules --------------------------------------------------------------------------------------------


def defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """What the API server fills into an empty object."""
    return {
        name: defaults(field) if field["default"] == {} else field["default"]
        for name, field in schema["properties"].items()
        if "default" in field
    }


def test_defaults_are_those_of_the_model_in_core() -> None:
    """Filled in or left out, a spec means the same."""
    filled = {"model": "base", **defaults(part_of(resource_schema(), "spec"))}
    bare = WhisperModelSpec.model_validate({"model": "base"})
    assert WhisperModelSpec.model_validate(filled, by_alias=True, by_name=False) == bare
    written = json.loads(bare.model_dump_json(by_alias=True, exclude_none=True))
    depends = {"languages", "aliases", "source", "template"}
    assert filled == {name: value for name, value in written.items() if name not in depends}


@pytest.mark.parametrize("path", ["languages", "computeType", "image", "aliases", "source", "template"])
def test_what_depends_on_other_fields_has_no_fixed_default(path: str) -> None:
    assert "default" not in part_of(resource_schema(), f"spec.{path}")


def test_languages_are_whispers_codes_and_detection_each_once() -> None:
    languages = part_of(resource_schema(), "spec.languages")
    assert languages["items"]["enum"] == [*LANGUAGE_NAMES, AUTO]
    assert languages["x-kubernetes-list-type"] == "set"


def test_every_rule_has_a_message_that_fits_a_line() -> None:
    for path, rules in RULES.items():
        for rule in rules:
            assert rule["rule"], path
            assert 10 < len(rule["message"]) < 120
            assert "\n" not in rule["message"]


@pytest.mark.parametrize("path", [*RULES, *LIST_TYPES])
def test_rule_of_a_field_that_is_renamed_stops_the_build(path: str) -> None:
    assert part_of(resource_schema(), path)
    with pytest.raises(KeyError):
        part_of(resource_schema(), f"{path}.renamed")


def test_longest_name_is_never_cut_in_the_names_made_from_it() -> None:
    """Two resources whose names differ only at the end can be told apart in a list of pods."""
    for name in ("a" * MAX_RESOURCE_NAME, "1" * MAX_RESOURCE_NAME, "a." + "b" * (MAX_RESOURCE_NAME - 2)):
        assert name.replace(".", "-") in object_name(name)
        assert len(object_name(name)) <= 63


# --- Contract ------------------------------------------------------------------------------------------------------


def test_definition_is_named_as_promised() -> None:
    made = custom_resource_definition()
    assert made["metadata"]["name"] == "whispermodels.everwarm.dev"
    assert (made["spec"]["group"], made["spec"]["scope"]) == ("everwarm.dev", "Namespaced")
    assert made["spec"]["names"] == {
        "kind": "WhisperModel",
        "listKind": "WhisperModelList",
        "plural": "whispermodels",
        "singular": "whispermodel",
        "shortNames": ["wm"],
        "categories": ["everwarm"],
    }
    assert (version()["name"], version()["served"], version()["storage"]) == ("v1alpha1", True, True)


def test_columns_are_as_promised_and_the_reason_is_one_more_for_wide_output() -> None:
    columns = version()["additionalPrinterColumns"]
    plain = [column["name"] for column in columns if not column.get("priority")]
    assert plain == ["MODEL", "LANGUAGES", "DESIRED", "WARM", "READY", "LOAD", "AGE"]
    assert [column["name"] for column in columns if column.get("priority")] == ["REASON"]


def test_column_shows_a_field_of_the_schema() -> None:
    schema = resource_schema()
    for column in version()["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(.*?\)\]", "[]", column["jsonPath"]).removeprefix(".")
        assert path == "metadata.creationTimestamp" or part_of(schema, path), column


def test_scale_reads_and_writes_fields_of_the_schema() -> None:
    scale = version()["subresources"]["scale"]
    kinds = {name: part_of(resource_schema(), path[1:])["type"] for name, path in scale.items()}
    assert kinds == {
        "specReplicasPath": "integer",
        "statusReplicasPath": "integer",
        "labelSelectorPath": "string",
    }


def test_status_has_the_fields_of_the_contract() -> None:
    assert set(part_of(resource_schema(), "status")["properties"]) == {
        "observedGeneration", "replicas", "readyReplicas", "warmReplicas", "selector", "model", "names", "languages",
        "loadSeconds", "warmSeconds", "conditions",
    }  # fmt: skip


# --- Chart ---------------------------------------------------------------------------------------------------------


def rendered(template: str, values: dict[str, bool]) -> Any:
    """What Helm makes of the template, whose only actions are `if` on a value, `end` and texts in quotes."""
    stack, lines = [True], []
    for line in template.splitlines():
        if found := re.fullmatch(r"\s*\{\{- if \.Values\.crds\.(\w+) \}\}", line):
            stack.append(stack[-1] and values[found[1]])
        elif re.fullmatch(r"\s*\{\{- end \}\}", line):
            stack.pop()
        elif stack[-1]:
            lines.append(re.sub(r'\{\{ "(.*?)" \}\}', r"\1", line))
    assert stack == [True]
    return yaml.safe_load("\n".join(lines))


TEMPLATE = (CHART / "templates" / "crd.yaml").read_text(encoding="utf-8")


def test_chart_holds_the_definition() -> None:
    assert rendered(TEMPLATE, {"enabled": True, "keep": False}) == custom_resource_definition()


def test_chart_keeps_the_definition_when_the_release_goes() -> None:
    """Else `helm uninstall` would delete every WhisperModel of the cluster."""
    made = rendered(TEMPLATE, {"enabled": True, "keep": True})
    assert made["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert made == custom_resource_definition()


def test_chart_leaves_the_definition_out_when_told() -> None:
    assert rendered(TEMPLATE, {"enabled": False, "keep": True}) is None


def test_braces_in_a_description_reach_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helm would take them for an action of its own."""
    original = custom_resource_definition()
    original["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "a {{ .Values.x }} b"
    monkeypatch.setattr("docs.generate.custom_resource_definition", lambda: original)
    template = pages()[CHART / "templates" / "crd.yaml"]
    assert 'a {{ "{{" }} .Values.x {{ "}}" }} b' in template
    assert rendered(template, {"enabled": True, "keep": False}) == original


def test_chart_has_the_version_of_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    pyproject = (ROOT / "operator" / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["version"]}"' in pyproject
    assert chart["appVersion"] == chart["version"]


def test_values_of_the_chart_fit_its_schema_and_a_misspelt_one_does_not() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(values)
    for bad in (
        {**values, "crd": {}},
        {"crds": {**values["crds"], "kept": True}},
        {"crds": {"enabled": "yes"}},
    ):
        assert not validator.is_valid(bad)
