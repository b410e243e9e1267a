"""What /openapi.json promises, held against what the pod does."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.stt.test_http_refusals import REFUSALS, send
from tests.support.described import operations, statuses_of
from tests.support.pods import PodProcess
from tests.support.speech import clips
from tests.support.wire import ask, ask_form, ask_pcm

DESCRIBED = {  # requests of the table of refusals, by the route they go to
    "/v1/audio/transcriptions": ("a file that is no audio", "an unknown model", "hours in few bytes"),
    "/v1/transcribe": ("half a sample", "samples for an unknown model", "a deadline that is over"),
}


@pytest.fixture(scope="module")
def description(pod: PodProcess) -> dict[str, Any]:
    document = ask(pod.url, "/openapi.json").json()
    assert isinstance(document, dict)
    return document


def schema(description: dict[str, Any], path: str, method: str, status: int) -> dict[str, Any]:
    """The JSON schema of an answer, with the components it refers to."""
    content = description["paths"][path][method]["responses"][str(status)]["content"]
    return {**content["application/json"]["schema"], "components": description["components"]}


def test_every_route_is_described(description: dict[str, Any]) -> None:
    assert set(description["paths"]) == {
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/transcribe",
        "/v1/realtime",
        "/v1/models",
        "/v1/models/{model}",
        "/livez",
        "/readyz",
        "/metrics",
    }


def test_form_is_described_with_the_fields_of_the_api(description: dict[str, Any]) -> None:
    operation = description["paths"]["/v1/audio/transcriptions"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file", "model"]
    assert {
        "language",
        "prompt",
        "response_format",
        "temperature",
        "timestamp_granularities[]",
        "stream",
    } <= set(form["properties"])


def test_no_route_promises_an_error_it_never_gives(description: dict[str, Any]) -> None:
    """FastAPI's own 422 has another shape than every error here."""
    for path, methods in description["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"], path


@pytest.mark.parametrize(
    ("path", "what"), [(path, what) for path, whats in DESCRIBED.items() for what in whats]
)
def test_refusal_is_described(pod: PodProcess, description: dict[str, Any], path: str, what: str) -> None:
    status = REFUSALS[what][0]
    Draft202012Validator(schema(description, path, "post", status)).validate(send(pod.url, what).json())


def test_verbose_answer_of_the_fast_path_is_described(pod: PodProcess, description: dict[str, Any]) -> None:
    answer = ask_pcm(pod.url, "model=tiny.en", clips()[0].pcm())
    Draft202012Validator(schema(description, "/v1/transcribe", "post", 200)).validate(answer.json())


def test_every_format_has_a_described_content_type(pod: PodProcess, description: dict[str, Any]) -> None:
    content = description["paths"]["/v1/audio/transcriptions"]["post"]["responses"]["200"]["content"]
    for form in ("json", "text", "srt", "vtt"):
        answer = ask_form(
            pod.url, [("model", "tiny.en"), ("response_format", form)], clips()[0].path.read_bytes()
        )
        assert answer.headers["content-type"].split(";")[0] in content


@pytest.mark.parametrize(("path", "described"), [("/v1/models", "/v1/models"), ("/readyz", "/readyz")])
def test_plain_answer_is_described(
    pod: PodProcess, description: dict[str, Any], path: str, described: str
) -> None:
    Draft202012Validator(schema(description, described, "get", 200)).validate(ask(pod.url, path).json())


def test_metrics_are_a_prometheus_page_with_the_names_dashboards_use(pod: PodProcess) -> None:
    ask_pcm(pod.url, "model=tiny.en", clips()[0].pcm())
    answer = ask(pod.url, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    page = answer.body.decode()
    for name in (
        "everwarm_request_duration_seconds_bucket",
        "everwarm_queue_duration_seconds_bucket",
        "everwarm_decode_duration_seconds_bucket",
        "everwarm_decode_real_time_factor_bucket",
        "everwarm_slot_usage",
        "everwarm_slot_limit",
        "everwarm_queue_usage",
        "everwarm_load_duration_seconds",
        "everwarm_warm_duration_seconds",
        "everwarm_model_loads_total",
    ):
        assert f"\n{name}{{" in page, name
    assert "\nhttp_server" not in page  # the framework's own would count everything a second time


def test_process_has_loaded_its_weights_once(pod: PodProcess) -> None:
    page = ask(pod.url, "/metrics").body.decode()
    assert '\neverwarm_model_loads_total{everwarm_model="tiny.en"} 1.0\n' in page


def test_no_request_is_answered_by_anything_that_is_not_described(pod: PodProcess) -> None:
    for operation in operations(pod.url):
        seen = statuses_of(operation, model="tiny.en", headers={}, examples=25)
        assert seen, operation.label
