"""The real OpenTelemetry Collector takes what OpenTelemetry's SDK sends, and what it took can be read back."""

from functools import partial
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link

from tests.cluster.collector import Collector, running_collector
from tests.cluster.fixtures import asked_for_e2e

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not asked_for_e2e(), reason="the collector is built and started with EVERWARM_E2E=1 only"
    ),
]

RESOURCE = Resource.create({"service.name": "everwarm-test"})


def _has_span(name: str, collector: Collector) -> bool:
    return name in {span.name for span in collector.spans()}


def test_spans_and_metrics_of_the_sdk_arrive_at_the_collector(tmp_path: Path) -> None:
    with running_collector(tmp_path / "collector") as collector:
        tracers = TracerProvider(resource=RESOURCE)
        exporter = OTLPSpanExporter(endpoint=f"{collector.endpoint}/v1/traces")
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = tracers.get_tracer("tests")
        with tracer.start_as_current_span("birth") as birth:
            pass
        with (
            tracer.start_as_current_span("outer", links=[Link(birth.get_span_context())]),
            tracer.start_as_current_span("inner", attributes={"pods": 2}),
        ):
            pass
        tracers.shutdown()
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{collector.endpoint}/v1/metrics"))
        meters = MeterProvider(metric_readers=[reader], resource=RESOURCE)
        meters.get_meter("tests").create_counter("everwarm.test.calls").add(1)
        meters.shutdown()
        collector.wait_for("outer span", partial(_has_span, "outer"))
        collector.wait_for("metric", lambda seen: "everwarm.test.calls" in seen.metrics())
        spans = {span.name: span for span in collector.spans()}
    assert spans["inner"].parent == spans["outer"].span
    assert spans["inner"].trace == spans["outer"].trace != spans["birth"].trace
    assert spans["outer"].links == (spans["birth"].trace,)
    assert spans["inner"].attributes == {"pods": "2"}
    assert {span.service for span in spans.values()} == {"everwarm-test"}


def test_collector_that_comes_back_listens_where_it_did_and_keeps_what_it_had(tmp_path: Path) -> None:
    with running_collector(tmp_path / "collector") as collector:
        for name in ("before", "after"):
            tracers = TracerProvider(resource=RESOURCE)
            exporter = OTLPSpanExporter(endpoint=f"{collector.endpoint}/v1/traces")
            tracers.add_span_processor(SimpleSpanProcessor(exporter))
            tracers.get_tracer("tests").start_span(name).end()
            tracers.shutdown()
            collector.wait_for(name, partial(_has_span, name))
            collector.stop()
            collector.start()
        assert [span.name for span in collector.spans()] == ["before", "after"]
