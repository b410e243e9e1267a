"""A real OTLP/HTTP receiver: what a collector would get, kept for assertions.

Programs under test export to it by `OTEL_EXPORTER_OTLP_ENDPOINT`; payloads are decoded with OpenTelemetry's own
protobuf messages, so a malformed export fails here as it would at a collector.
"""

import gzip
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it arrived; ids are hexadecimal, an empty *parent* marks a root, *links* are ids of traces."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, str]
    events: tuple[str, ...]
    duration_s: float
    links: tuple[str, ...] = ()


class OtlpReceiver:
    """Listens on a free loopback port inside `with`; `endpoint` is the value for the exporter's variable."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._metrics: set[str] = set()
        self._raw: list[bytes] = []
        self._arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._receive(self.path, body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Quiet: the test speaks."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="otlp-receiver")

    @property
    def endpoint(self) -> str:
        """Base URL for OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make a program export here, soon after each span ends."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "60",  # seconds; a batch that is given up is lost, and somebody waits for it
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> tuple[ReceivedSpan, ...]:
        """Everything received so far."""
        with self._arrived:
            return tuple(self._spans)

    def wait_for(
        self, condition: Callable[[tuple[ReceivedSpan, ...]], bool], timeout_s: float = 20.0
    ) -> tuple[ReceivedSpan, ...]:
        """The spans as soon as *condition* holds of them; fails with their names when it does not in time."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: condition(tuple(self._spans)), timeout_s):
                names = sorted({f"{span.service}: {span.name}" for span in self._spans})
                raise AssertionError(f"no such spans within {timeout_s} s; received: {names}")
            return tuple(self._spans)

    def wait_for_metric(self, name: str, timeout_s: float = 20.0) -> None:
        """Return once a metric called *name* has arrived."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: name in self._metrics, timeout_s):
                raise AssertionError(
                    f"no metric {name!r} within {timeout_s} s; received: {sorted(self._metrics)}"
                )

    def payloads(self) -> bytes:
        """All bytes that arrived, joined: to assert that something is nowhere among them."""
        with self._arrived:
            return b"".join(self._raw)

    def _receive(self, path: str, body: bytes) -> None:
        with self._arrived:
            self._raw.append(body)
            if path == "/v1/traces":
                self._spans.extend(_spans(body))
            elif path == "/v1/metrics":
                self._metrics.update(_metric_names(body))
            self._arrived.notify_all()


def _spans(body: bytes) -> Iterable[ReceivedSpan]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    service=service,
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    attributes=_attributes(span.attributes),
                    events=tuple(event.name for event in span.events),
                    duration_s=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    links=tuple(link.trace_id.hex() for link in span.links),
                )


def _metric_names(body: bytes) -> Iterable[str]:
    request = ExportMetricsServiceRequest.FromString(body)
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            yield from (metric.name for metric in scope.metrics)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    return "" if kind is None else str(getattr(value, kind))
