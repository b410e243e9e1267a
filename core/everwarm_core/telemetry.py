"""Traces and metrics: every name in one place, one set-up for programs, two span helpers for the HTTP edges.

Libraries and programs record through OpenTelemetry's API; only a program (pod, gateway, CLI) calls `start`, so an
agent that brings its own SDK keeps it. Exporting is configured by the standard `OTEL_*` variables and is off until
`OTEL_EXPORTER_OTLP_ENDPOINT` (or a signal's own endpoint) is set; `/metrics` works either way. One utterance is one
trace: the caller's `traceparent` travels in HTTP headers, and pods continue it. Neither transcript text nor audio
may ever become an attribute.

The HTTP spans are written here, not taken from the contrib instrumentations: those open a span per ASGI message,
pin beta releases in lockstep with the SDK, and know nothing of a retry on another pod.
"""

import os
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, ObservableGauge
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from prometheus_client import CollectorRegistry

SCOPE: Final = "everwarm"
EXPORT_TIMEOUT_S: Final = 2.0  # with a dead collector the default made shutdown take 7.6 s, this 1.2 s
SHUTDOWN_TIMEOUT_S: Final = 3.0


class SpanName(StrEnum):
    """Spans of our own; HTTP spans are named by method and route."""

    TRANSCRIBE = "everwarm.transcribe"
    ROUTE = "everwarm.route"
    QUEUE = "everwarm.queue"
    DECODE = "everwarm.decode"
    START = "everwarm.start"
    LOAD = "load"
    WARM = "warm"
    REGISTER = "register"
    RECONCILE = "everwarm.reconcile"


class Attribute(StrEnum):
    """Attribute keys of our own; HTTP ones are OpenTelemetry's."""

    MODEL = "everwarm.model"
    LANGUAGE = "everwarm.language"
    POD = "everwarm.pod"
    INSTANCE = "everwarm.instance"
    REQUEST_ID = "everwarm.request_id"
    AUDIO_SECONDS = "everwarm.audio.duration"
    DETECTED_LANGUAGE = "everwarm.language.detected"
    TOKENS = "everwarm.tokens"
    SEGMENTS = "everwarm.segments"
    PROVEN = "everwarm.key.proven"
    WINDOW = "everwarm.window"
    DOUBT = "everwarm.doubt"
    ROUTE_REASON = "everwarm.route.reason"
    ROUTE_CANDIDATES = "everwarm.route.candidates"
    ROUTE_ATTEMPT = "everwarm.route.attempt"
    REFUSAL = "everwarm.refusal"
    RESOURCE = "everwarm.resource"
    APPLIED = "everwarm.reconcile.applied"
    GATES = "everwarm.reconcile.gates"
    STATUS_CHANGED = "everwarm.reconcile.status_changed"
    EVENTS = "everwarm.reconcile.events"
    WRITTEN = "everwarm.api.written"
    ERROR = "error.type"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, unit, meaning and, for a histogram, bucket bounds in that unit."""

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...] = ()


_SECONDS: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.75,
    1,
    1.5,
    2,
    3,
    5,
    10,
    20,
    30,
    60,
)
_QUEUE_SECONDS: Final = (
    0.0005,
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2,
    5,
    10,
    30,
)
_RATIO: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5)

REQUEST_DURATION: Final = Metric(
    "everwarm.request.duration",
    "s",
    "From the first byte of a request to the last of its answer",
    _SECONDS,
)
QUEUE_DURATION: Final = Metric("everwarm.queue.duration", "s", "Wait for a slot", _QUEUE_SECONDS)
DECODE_DURATION: Final = Metric("everwarm.decode.duration", "s", "Decode on a slot", _SECONDS)
REAL_TIME_FACTOR: Final = Metric(
    "everwarm.decode.real_time_factor",
    "1",
    "Decode seconds per second of audio",
    _RATIO,
)
FINAL_DURATION: Final = Metric(
    "everwarm.final.duration",
    "s",
    "From the end of speech, as far as it is known, to the final transcript",
    _SECONDS,
)
SLOT_USAGE: Final = Metric("everwarm.slot.usage", "{slot}", "Slots that decode now")
SLOT_LIMIT: Final = Metric("everwarm.slot.limit", "{slot}", "Slots of the pod")
QUEUE_USAGE: Final = Metric("everwarm.queue.usage", "{request}", "Requests that wait for a slot now")
REALTIME_SESSIONS: Final = Metric("everwarm.realtime.sessions", "{session}", "Realtime sessions open now")
LOAD_DURATION: Final = Metric("everwarm.load.duration", "s", "Load of the weights, once per process")
WARM_DURATION: Final = Metric("everwarm.warm.duration", "s", "Warm-up after the load")
DOUBTS: Final = Metric(
    "everwarm.decode.doubts", "{decode}", "Short-window decodes that were not believed, by reason"
)
LOADS: Final = Metric("everwarm.model.loads", "{load}", "Loads of the weights in this process")
REFUSALS: Final = Metric(
    "everwarm.refusals",
    "{request}",
    "Requests refused before they were read, by reason",
)
RETRIES: Final = Metric("everwarm.route.retries", "{attempt}", "Attempts on another pod, by reason")
ROUTE_DURATION: Final = Metric(
    "everwarm.route.duration", "s", "Choice of a pod, hold included", _QUEUE_SECONDS
)
WARM_PODS: Final = Metric("everwarm.pods.warm", "{pod}", "Warm pods per model and language in the snapshot")
DESIRED_PODS: Final = Metric("everwarm.pods.desired", "{pod}", "Replicas a WhisperModel asks for")
REGISTRY_AGE: Final = Metric("everwarm.registry.age", "s", "Age of the registry snapshot in use")
RECONCILE_DURATION: Final = Metric(
    "everwarm.reconcile.duration", "s", "One look at a resource and the writes that follow", _SECONDS
)
RECONCILE_ERRORS: Final = Metric(
    "everwarm.reconcile.errors",
    "{error}",
    "Reconciles that failed and are tried again, by class of the error",
)
API_WRITES: Final = Metric(
    "everwarm.api.writes", "{request}", "Requests of the operator that write, by what they write"
)
POD_WARM_DURATION: Final = Metric(
    "everwarm.pod.warm.duration", "s", "From a pod's creation to its gate being opened", _SECONDS
)

_HISTOGRAMS: Final = (
    REQUEST_DURATION,
    QUEUE_DURATION,
    DECODE_DURATION,
    REAL_TIME_FACTOR,
    FINAL_DURATION,
    ROUTE_DURATION,
    RECONCILE_DURATION,
    POD_WARM_DURATION,
)


@cache
def tracer() -> trace.Tracer:
    """The tracer of all our spans; it may be asked for before there is a provider."""
    return trace.get_tracer(SCOPE)


class span(AbstractContextManager[Span]):  # noqa: N801 - used as a function
    """A span called *name*, current inside the block, ended with it; an exception that leaves the block is recorded.

    As `Tracer.start_as_current_span`, which costs an agent without an SDK 0.1 ms a span after a decode has emptied
    the caches: here a span that records nothing is not made current either.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        self._name, self._kind, self._attributes, self._context = name, kind, attributes, context
        self._links = links
        self._use: AbstractContextManager[Span] | None = None

    def __enter__(self) -> Span:
        opened = tracer().start_span(
            self._name,
            context=self._context,
            kind=self._kind,
            attributes=self._attributes,
            links=self._links,
        )
        if opened is not trace.get_current_span():
            self._use = trace.use_span(opened, end_on_exit=True)
            self._use.__enter__()
        return opened

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        return self._use.__exit__(kind, error, where) if self._use else None


def histogram(metric: Metric) -> Histogram:
    """The histogram of *metric*; its buckets are set by `start`."""
    return metrics.get_meter(SCOPE).create_histogram(metric.name, metric.unit, metric.description)


def counter(metric: Metric) -> Counter:
    """The counter of *metric*."""
    return metrics.get_meter(SCOPE).create_counter(metric.name, metric.unit, metric.description)


def gauge(metric: Metric, observe: "Callable[[CallbackOptions], Iterable[Observation]]") -> ObservableGauge:
    """A gauge of *metric* whose values *observe* returns whenever metrics are collected."""
    return metrics.get_meter(SCOPE).create_observable_gauge(
        metric.name,
        callbacks=[observe],
        unit=metric.unit,
        description=metric.description,
    )


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a program started; `shutdown` flushes it once, after the drain."""

    tracers: "TracerProvider"
    meters: "MeterProvider"
    registry: "CollectorRegistry"

    def metrics_page(self) -> tuple[bytes, str]:
        """The Prometheus text page and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def shutdown(self) -> None:
        """Export what is left; blocks at most about `SHUTDOWN_TIMEOUT_S`, so call it from a thread.

        The exporters give up on a dead collector by themselves; the join bounds what they do not.
        """
        flush = threading.Thread(target=self._flush, name="telemetry-shutdown", daemon=True)
        flush.start()
        flush.join(SHUTDOWN_TIMEOUT_S)

    def _flush(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown(timeout_millis=SHUTDOWN_TIMEOUT_S * 1000)


def start(service: str, *, version: str, attributes: Mapping[str, str] | None = None) -> Telemetry:
    """Set up the global tracer and meter providers of a program; call once, first thing in `main`.

    service: `service.name` unless OTEL_SERVICE_NAME says otherwise; attributes: further resource attributes, which
    OTEL_RESOURCE_ATTRIBUTES can override.
    """
    # The SDK costs some 60 ms of imports, which agents that only use the API need not pay.
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from prometheus_client import CollectorRegistry

    defaults = Resource({"service.name": service, "service.version": version, **(attributes or {})})
    resource = Resource.create().merge(defaults).merge(OTELResourceDetector().detect())

    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    if _exports("TRACES"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_export_timeout_s())))

    registry = CollectorRegistry()
    readers: list[MetricReader] = [
        PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=registry)
    ]
    if _exports("METRICS"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
            OTLPMetricExporter,
        )
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(timeout=_export_timeout_s())))
    views = [
        View(
            instrument_name=m.name,
            aggregation=ExplicitBucketHistogramAggregation(m.buckets),
        )
        for m in _HISTOGRAMS
    ]
    meters = MeterProvider(metric_readers=readers, resource=resource, views=views, shutdown_on_exit=False)

    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    return Telemetry(tracers, meters, registry)


def is_exporting() -> bool:
    """Whether the environment asks for traces or metrics to be sent somewhere."""
    return _exports("TRACES") or _exports("METRICS")


def server_span(method: str, route: str, headers: Mapping[str, str]) -> span:
    """A server span that continues the trace in *headers* (lower-case names); `answered` closes its account."""
    return span(
        f"{method} {route}",
        context=propagate.extract(headers),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method, "http.route": route},
    )


def client_span(method: str, url: str) -> span:
    """A client span for one attempt on *url* (no query, it may hold names only); see `put_trace`."""
    return span(method, kind=SpanKind.CLIENT, attributes={"http.request.method": method, "url.full": url})


def traceparent(opened: Span) -> str:
    """What leads others to the trace of *opened*; empty when nothing is traced."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context=trace.set_span_in_context(opened))
    return carrier.get("traceparent", "")


def linked(traceparent: str) -> SpanContext | None:
    """What a span of ours links to, so that *traceparent*, of whomever, is found from it; None when it is none."""
    given = propagate.extract({"traceparent": traceparent}, context=Context())
    context = trace.get_current_span(given).get_span_context()
    return context if context.is_valid else None


def put_trace(opened: Span, headers: MutableMapping[str, str]) -> None:
    """Put `traceparent` into *headers*, so that the other side continues the trace of *opened*, the current span."""
    if opened.get_span_context().is_valid:
        propagate.inject(headers)


def answered(span: Span, status: int) -> None:
    """Record the answer's *status*; from 500 on the span is an error, of type the status itself."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _exports(signal: str) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp") == "none":
        return False
    return bool(
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    )


def _export_timeout_s() -> float:
    return float(os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT", EXPORT_TIMEOUT_S))
