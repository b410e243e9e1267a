"""Writes the reference pages that are made from the code: `python docs/generate.py`, or `make docs`.

Settings, the fields of a WhisperModel, errors, spans and metrics are defined once, in the code, with a docstring
each; these pages show them. A test fails when a page differs from what this script would write.
"""

import inspect
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from everwarm.settings import AgentSettings, GatewaySettings
from everwarm_core import telemetry
from everwarm_core.errors import HTTP_ERRORS
from everwarm_core.spec import SpecPart, WhisperModelSpec
from everwarm_stt.settings import PodSettings

FOLDER: Final = Path(__file__).parent / "reference"
NOTE: Final = "<!-- Made by docs/generate.py from the code; change the docstrings there. -->\n"


def pages() -> Mapping[Path, str]:
    """Every generated page: its path and its text."""
    return {
        FOLDER / "settings.md": _settings(),
        FOLDER / "whispermodel.md": _whispermodel(),
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
    ):
        parts += [f"## {title}\n", _table(("variable", "default", "meaning"), _setting_rows(settings))]
    return "\n".join(parts)


def _setting_rows(settings: type[BaseSettings]) -> Iterable[tuple[str, str, str]]:
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        yield f"`{(prefix + name).upper()}`", _default(field), field.description or ""


def _whispermodel() -> str:
    rows = list(_field_rows(WhisperModelSpec, "spec"))
    return "\n".join(
        (
            NOTE,
            "# WhisperModel\n",
            "`apiVersion: everwarm.dev/v1alpha1`, `kind: WhisperModel`. "
            + (inspect.getdoc(WhisperModelSpec) or "")
            + "\n",
            _table(("field", "default", "meaning"), rows),
        )
    )


def _field_rows(part: type[BaseModel], path: str) -> Iterable[tuple[str, str, str]]:
    for name, field in part.model_fields.items():
        here = f"{path}.{field.alias or name}"
        yield f"`{here}`", _default(field), field.description or ""
        for inner in _parts_in(field.annotation):
            yield from _field_rows(inner, here)


def _parts_in(annotation: object) -> Iterable[type[SpecPart]]:
    candidates = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    return [c for c in candidates if inspect.isclass(c) and issubclass(c, SpecPart)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default is None or isinstance(field.default, SpecPart):
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
                "Python raises the class of the same row, from `everwarm.errors`. Statuses of 500 and above are worth another try, "
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
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([*lines, ""])


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
