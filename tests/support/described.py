"""Requests as /openapi.json allows them, and as it does not: whatever comes, the answer is one that it describes."""

from collections.abc import Mapping
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS: Final[list[CheckFunction]] = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("audio/pcm;rate=16000")
def _samples(_: schemathesis.SerializationContext, value: object) -> bytes | None:
    """Bytes as they are, whatever the rate."""
    samples = getattr(value, "data", value)  # schemathesis wraps what it made up for `format: binary`
    return samples if isinstance(samples, bytes) else str(samples).encode()


def operations(url: str) -> list[APIOperation[Any, Any, Any, Any]]:
    """Every route and method that the program at *url* describes."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        found.append(result.ok())
    return found


def statuses_of(
    operation: APIOperation[Any, Any, Any, Any], *, model: str, headers: Mapping[str, str], examples: int
) -> set[int]:
    """The statuses of *examples* answers of *operation*, each held against its description; none of them is 500.

    model: what half of the requests ask for where there is a model to name; headers: sent with each.
    """
    seen = set()
    cases = st.one_of(
        operation.as_strategy(GenerationMode.POSITIVE),
        operation.as_strategy(GenerationMode.POSITIVE),
        operation.as_strategy(GenerationMode.NEGATIVE),
    )

    @settings(
        max_examples=examples,
        deadline=None,
        phases=[
            Phase.explicit,
            Phase.generate,
        ],  # shrinking asks for minutes; the failing request is printed anyway
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=cases, is_known=st.booleans())
    def ask(case: schemathesis.Case[Any], is_known: bool) -> None:  # noqa: FBT001 - hypothesis' way
        for part in (case.query, case.body):
            if is_known and isinstance(part, dict) and "model" in part:
                part["model"] = model
        answer = case.call(headers=dict(headers), timeout=60)
        seen.add(answer.status_code)
        assert answer.status_code != 500, case.as_curl_command()
        case.validate_response(answer, checks=CHECKS)

    ask()
    return seen
