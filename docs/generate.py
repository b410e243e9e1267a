"""Writes what is made from the code, the reference pages and the chart's CRD: `python docs/generate.py`, or `make docs`.

Settings, the fields of a WhisperModel, errors, spans and metrics are defined once, in the code, with a docstring
each; these pages show them. A test fails when a page differs from what this script would write.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from everwarm.settings import AgentSettings, GatewaySettings
from everwarm_core import telemetry
from everwarm_core.errors import HTTP_ERRORS
from everwarm_core.spec import API_VERSION, KIND, WhisperModelSpec
from everwarm_operator.access import CLUSTER_RULES, Rule, home_rules, read_secret_rule, secret_rules
from everwarm_operator.access import RULES as ACCESS_RULES
from everwarm_operator.crd import RULES, custom_resource_definition, part_of, resource_schema
from everwarm_operator.gate import GateReason
from everwarm_operator.problems import ProblemReason
from everwarm_operator.settings import OperatorSettings
from everwarm_operator.status import ReadyReason, ReconcilingReason, StalledReason
from everwarm_stt.settings import PodSettings

FOLDER: Final = Path(__file__).parent / "reference"
CHART: Final = Path(__file__).parents[1] / "charts" / "everwarm"
SECRET_NAME: Final = '{{ include "everwarm.platformSecret" . }}'
OPERATOR_NAME: Final = '{{ include "everwarm.componentName" (list $ "operator") }}'
NOTE: Final = "<!-- Made by docs/generate.py from the code; change the docstrings there. -->\n"
INT32_MAX: Final = 2_147_483_647  # the end of a counter, not a limit to be shown
OBJECT_NAME: Final = part_of(resource_schema(), "spec.template.runtimeClassName")["pattern"]
MAX_SHOWN: Final = 12  # values of a field that are listed one by one


def pages() -> Mapping[Path, str]:
    """Every generated file: its path and its text."""
    return {
        CHART / "templates" / "crd.yaml": _crd_template(),
        CHART / "templates" / "operator" / "role.yaml": _role_template(),
        CHART / "README.md": _chart_readme(),
        FOLDER / "settings.md": _settings(),
        FOLDER / "whispermodel.md": _whispermodel(),
        FOLDER / "operator.md": _operator(),
        FOLDER / "errors.md": _errors(),
        FOLDER / "telemetry.md": _telemetry(),
    }


def _settings() -> str:
    parts = [
        NOTE,
        "# Settings\n",
        (
            "Everything is set by environment variables; the local platform and the operator set the pod's for you. "
            "Secrets come from files.\n"
        ),
    ]
    for title, settings in (
        ("Pod (`everwarm-pod`)", PodSettings),
        ("Agent (`everwarm.Client`, the LiveKit plugin, the CLI)", AgentSettings),
        ("Gateway (`everwarm gateway`)", GatewaySettings),
        ("Operator (`everwarm-operator`)", OperatorSettings),
    ):
        parts += [f"## {title}\n", _table(("variable", "default", "meaning"), _setting_rows(settings))]
    return "\n".join(parts)


def _setting_rows(settings: type[BaseSettings]) -> Iterable[tuple[str, str, str]]:
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        yield f"`{(prefix + name).upper()}`", _default(field), field.description or ""


def _whispermodel() -> str:
    schema = resource_schema()
    rules = ((f"`{path or 'metadata'}`", rule["message"]) for path, found in RULES.items() for rule in found)
    return "\n".join(
        (
            NOTE,
            "# WhisperModel\n",
            f"`apiVersion: {API_VERSION}`, `kind: {KIND}`. {inspect.getdoc(WhisperModelSpec) or ''}\n",
            (
                "The API server and the local platform check the same; both refuse a field they do not know. "
                "`kubectl explain wm.spec` says what this page says.\n"
            ),
            "## Spec\n",
            _table(("field", "value", "default", "meaning"), _schema_rows(schema, "spec")),
            "## Rules\n",
            _table(("of", "rule"), rules),
            (
                "Every field can be changed while pods serve: a change is rolled out, and no pod goes before a warm "
                "one has taken its place.\n"
            ),
            "## Status\n",
            _table(
                ("field", "value", "meaning"),
                ((field, value, meaning) for field, value, _, meaning in _schema_rows(schema, "status")),
            ),
        )
    )


def _schema_rows(schema: Mapping[str, Any], path: str) -> Iterable[tuple[str, str, str, str]]:
    """Of each field below *path* in a structural schema: path, what may be there, default, meaning."""
    part = part_of(dict(schema), path)
    for name, field in part.get("properties", {}).items():
        here = f"{path}.{name}"
        default = "required" if name in part.get("required", ()) else _schema_default(field)
        yield f"`{here}`", _value(field), default, field.get("description", "")
        yield from _schema_rows(schema, here)
        if field.get("items", {}).get("properties"):
            yield from _schema_rows(schema, f"{here}[]")


def _schema_default(field: Mapping[str, Any]) -> str:
    return "" if field.get("default", {}) == {} else f"`{json.dumps(field['default']).strip(chr(34))}`"


def _value(field: Mapping[str, Any]) -> str:
    """What may be in a field, in a few words."""
    if "enum" in field:
        choices = [f"`{value}`" for value in field["enum"]]
        if len(choices) <= MAX_SHOWN:
            return ", ".join(choices)
        return f"one of {len(choices)}: {', '.join(choices[:3])}, ... {choices[-1]}"
    if field.get("x-kubernetes-int-or-string"):
        return "amount, such as `2`, `500m`, `2Gi`"
    match field["type"]:
        case "object" if "properties" in field:
            return "mapping"
        case "object":
            values = (
                _value(field["additionalProperties"]) if "additionalProperties" in field else "passed through"
            )
            return f"mapping, at most {field['maxProperties']}: {values}"
        case "array":
            each = ", each once" if field.get("x-kubernetes-list-type", "atomic") != "atomic" else ""
            return f"list, at most {field['maxItems']}{each}: {_value(field['items'])}"
        case "string" if field.get("pattern") == OBJECT_NAME:
            return "name of an object"
        case "string":
            words = [field.get("format", "text"), f"at most {field['maxLength']} characters"]
            return ", ".join([*words, f"`{field['pattern']}`"] if "pattern" in field else words)
        case kind:
            return f"{'whole number' if kind == 'integer' else 'number'}{_range(field)}"


def _range(field: Mapping[str, Any]) -> str:
    least, most = field["minimum"], field.get("maximum", INT32_MAX)
    if field.get("exclusiveMinimum"):
        return f" above {least}, at most {most}"
    return f", {least} or more" if most == INT32_MAX else f", {least} to {most}"


def _crd_template() -> str:
    """The CRD as a template of the chart, for Helm never upgrades what is in a chart's `crds` folder.

    Braces in a text would be read as an action of the template, so they are written by one.
    """
    manifest = custom_resource_definition()
    keep = "{{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}"
    written = re.sub(r"\{\{|\}\}", lambda found: f'{{{{ "{found[0]}" }}}}', _yaml(manifest))
    name = f"  name: {manifest['metadata']['name']}\n"
    return "\n".join(
        (
            "{{- if .Values.crds.enabled }}",
            "# Made by docs/generate.py from everwarm_core.spec and everwarm_operator.crd; change it there.",
            written.replace(name, f"{name}  {keep}\n", 1) + "{{- end }}\n",
        )
    )


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice: anchors are hard to read, and Helm's users compare texts."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - yaml's
        """Always."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Indent lists, as people write them."""
        super().increase_indent(flow, indentless=False)


def _yaml(manifest: object) -> str:
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _role_template() -> str:
    """ClusterRoles to be bound in the namespaces to be served, or in all of them, and in all in any case; and a Role in
    the release's own namespace, where the platform's Secret is.
    """
    copies = "or .Values.operator.clusterWide .Values.operator.namespaces"
    return "\n".join(
        [
            "# Made by docs/generate.py from everwarm_operator.access; change it there.",
            *_role_head("ClusterRole", '"everwarm.clusterName" (list $ "operator")'),
            *map(_rule, ACCESS_RULES),
            f"  {{{{- if {copies} }}}}",
            *map(_rule, secret_rules(SECRET_NAME)),
            "  {{- end }}",
            "---",
            *_role_head("ClusterRole", '"everwarm.clusterName" (list $ "operator-discovery")'),
            *map(_rule, CLUSTER_RULES),
            "---",
            *_role_head("Role", '"everwarm.componentName" (list $ "operator")'),
            "  {{- if .Values.platformSecret.existingSecret }}",
            _rule(read_secret_rule(SECRET_NAME)),
            "  {{- else }}",
            *map(_rule, home_rules(SECRET_NAME, OPERATOR_NAME)),
            "  {{- end }}",
            "",
        ]
    )


def _role_head(kind: str, name: str) -> list[str]:
    namespace = ["  namespace: {{ .Release.Namespace }}"] if kind == "Role" else []
    return [
        "apiVersion: rbac.authorization.k8s.io/v1",
        f"kind: {kind}",
        "metadata:",
        f"  name: {{{{ include {name} }}}}",
        *namespace,
        "  labels:",
        '    {{- include "everwarm.labels" (list $ "operator") | nindent 4 }}',
        "rules:",
    ]


def _rule(rule: Rule) -> str:
    named = [f"    resourceNames: [{', '.join(rule.names)}]"] if rule.names else []
    return "\n".join(
        [
            f"  # {rule.reason}",
            f'  - apiGroups: ["{rule.group}"]',
            f'    resources: ["{rule.resource}"]',
            *named,
            f"    verbs: [{', '.join(rule.verbs)}]",
        ]
    )


def _chart_readme() -> str:
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    return "\n".join(
        (
            "<!-- Made by docs/generate.py from values.yaml; change the comments there. -->\n",
            "# everwarm, the chart\n",
            (
                "Whisper models that are warm before anybody hears of them: the operator, the gateway, a small Valkey for the "
                "registry, and the definition of WhisperModel. [How to install it](../../docs/how-to/install.md), "
                "[how to operate it](../../docs/how-to/operate.md), [how it is secured](../../docs/explanation/security.md).\n"
            ),
            "```sh\nhelm install everwarm charts/everwarm --namespace speech --create-namespace\n```\n",
            "## Values\n",
            "A value that is not here, or of the wrong kind, is refused with its path.\n",
            _table(
                ("value", "default", "meaning"),
                (
                    (f"`{path}`", f"`{json.dumps(default)}`", meaning)
                    for path, default, meaning in chart_values(values)
                ),
            ),
        )
    )


def chart_values(text: str) -> Iterable[tuple[str, object, str]]:
    """Of each value in the text of a values.yaml that has a comment `# --`: path, default, meaning.

    What is below such a value is part of its default.
    """
    values = yaml.safe_load(text)
    above: list[tuple[int, str]] = []  # indentation and name of the keys around
    words: list[str] = []
    for line in text.splitlines():
        body = line.strip()
        if body.startswith("# -- "):
            words = [body.removeprefix("# -- ")]
        elif body.startswith("#") and words:
            words.append(body.removeprefix("#").strip())
        elif found := re.match(r"( *)([A-Za-z0-9]+):", line):
            depth = len(found[1])
            above = [(indent, name) for indent, name in above if indent < depth]
            above.append((depth, found[2]))
            if words:
                path = [name for _, name in above]
                yield ".".join(path), reduce(lambda part, name: part[name], path, values), " ".join(words)
            words = []
        else:
            words = []


def _operator() -> str:
    return "\n".join(
        (
            NOTE,
            "# Operator\n",
            "What `everwarm-operator` says of a WhisperModel and its pods, and what it may do.\n",
            "## Conditions of a WhisperModel\n",
            (
                "`Ready` is True when as many pods as wanted are warm, by the registry, and Ready, by the kubelet. "
                "`Reconciling` is True while pods are on their way, `Stalled` when somebody must act; both follow kstatus, so "
                "`kubectl wait --for=condition=Ready wm/NAME` and `helm --wait` tell the truth.\n"
            ),
            _table(
                ("condition", "reason", "meaning"),
                (
                    (condition, f"`{reason}`", meaning)
                    for condition, reasons in (
                        ("Ready", ReadyReason),
                        ("Reconciling", ReconcilingReason),
                        ("Stalled", StalledReason),
                        ("Stalled or Ready", ProblemReason),
                    )
                    for reason, meaning in _meanings(reasons)
                ),
            ),
            "## The gate of a pod\n",
            (
                "Every pod has the readiness gate `everwarm.dev/warm`: it is Ready only while that condition is True. Its message "
                "names the process (boot) and the container that were warm.\n"
            ),
            _table(("reason", "meaning"), ((f"`{reason}`", text) for reason, text in _meanings(GateReason))),
            "## Permissions\n",
            _table(
                ("in", "resource", "verbs", "for"),
                (
                    (
                        where,
                        " ".join([f"`{rule.group}/{rule.resource}`".replace("`/", "`"), *rule.names]),
                        ", ".join(rule.verbs),
                        rule.reason,
                    )
                    for where, rules in (
                        ("its namespaces", ACCESS_RULES),
                        ("its namespaces, if others than its own", secret_rules("everwarm-platform")),
                        ("the cluster", CLUSTER_RULES),
                        ("its own namespace", home_rules("everwarm-platform", "everwarm-operator")),
                        ("its own, with a Secret of yours", (read_secret_rule("everwarm-platform"),)),
                    )
                    for rule in rules
                ),
            ),
        )
    )


def _meanings(names: type[StrEnum]) -> Iterable[tuple[str, str]]:
    """Each member's value and the docstring below it."""
    (definition,) = ast.parse(inspect.getsource(names)).body
    assert isinstance(definition, ast.ClassDef)
    for member, text in pairwise(definition.body):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr):
            assert isinstance(member.value, ast.Constant)
            assert isinstance(text.value, ast.Constant)
            yield str(member.value.value), " ".join(str(text.value.value).split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default is None:
        return ""
    value = field.default
    if isinstance(value, tuple):
        return f"`{list(value)}`" if value else ""
    return f"`{value}`" if value != "" else ""


def _errors() -> str:
    rows = [
        (f"`{wire.code}`", str(wire.status), f"`{cls.__name__}`", _first_sentence(cls))
        for cls, wire in sorted(HTTP_ERRORS.items(), key=lambda item: (item[1].status, item[1].code))
    ]
    return "\n".join(
        (
            NOTE,
            "# Errors\n",
            (
                'Pods and gateway answer errors as `{"error": {"message", "type", "param", "code"}}`, all four fields always there; '
                "Python raises the class of the same row, from `everwarm.errors`. 429, and 500 and above, are worth another try, "
                "after `Retry-After` seconds where the answer names them.\n"
            ),
            _table(("code", "status", "class", "when"), rows),
        )
    )


def _first_sentence(cls: type[BaseException]) -> str:
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def _telemetry() -> str:
    metrics = [value for value in vars(telemetry).values() if isinstance(value, telemetry.Metric)]
    return "\n".join(
        (
            NOTE,
            "# Traces and metrics\n",
            (
                "Exported by OTLP/HTTP once `OTEL_EXPORTER_OTLP_ENDPOINT` is set; metrics are also at `/metrics`. Neither "
                "transcript text nor audio is ever in them.\n"
            ),
            "## Spans\n",
            _table(("span",), ((f"`{name}`",) for name in telemetry.SpanName)),
            "## Attributes\n",
            _table(("attribute",), ((f"`{name}`",) for name in _members(telemetry.Attribute))),
            "## Metrics\n",
            _table(("metric", "unit", "meaning"), ((f"`{m.name}`", m.unit, m.description) for m in metrics)),
        )
    )


def _members(names: type[StrEnum]) -> Iterable[str]:
    return (member.value for member in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def main() -> int:
    """Write the pages that differ."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"written: {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
