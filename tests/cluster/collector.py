"""The OpenTelemetry Collector itself, built from the Go module in `collector/`, as a process on this machine.

It takes OTLP over HTTP and writes each request as a line of JSON, which is read back here as the spans and metric
names that `tests.support.otlp` speaks of. What a receiver of the tests' own cannot show, it does: that a real collector
takes what we send.
"""

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster.control_plane import LOOPBACK, PartProcess
from tests.cluster.go_module import GoModule
from tests.support.otlp import ReceivedSpan
from tests.support.pods import free_port

MODULE: Final = Path(__file__).parent / "collector"
VERSION: Final = "v0.165.0"
START_TIMEOUT_S: Final = 30.0

Json = dict[str, Any]


class Collector:
    """A running collector; made by `running_collector`."""

    def __init__(self, program: Path, folder: Path, address: str, port: int) -> None:
        self.endpoint: Final = f"http://{address}:{port}"
        """Base URL for OTEL_EXPORTER_OTLP_ENDPOINT."""
        self._address, self._port = address, port
        self._records = folder / "records.jsonl"
        (folder / "logs").mkdir(parents=True)
        config = folder / "collector.json"
        config.write_text(json.dumps(_config(f"{address}:{port}", self._records)), encoding="utf-8")
        self._process = PartProcess("collector", [str(program), f"--config=file:{config}"], folder)

    def start(self) -> None:
        """Start it, also after `stop`; returns once it takes requests. What it has received before stays."""
        self._process.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            self._process.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no collector within {START_TIMEOUT_S:.0f} s; see {self._process.log}")
            time.sleep(0.02)  # polls a condition

    def stop(self) -> None:
        """Kill it: from now on nobody listens at the endpoint."""
        self._process.kill()

    def spans(self) -> tuple[ReceivedSpan, ...]:
        """Everything received so far."""
        return tuple(span for record in self._read() for span in _spans(record))

    def metrics(self) -> frozenset[str]:
        """The names of all metrics received so far."""
        return frozenset(
            metric["name"]
            for record in self._read()
            for resource in record.get("resourceMetrics", ())
            for scope in resource.get("scopeMetrics", ())
            for metric in scope.get("metrics", ())
        )

    def text(self) -> str:
        """All that was received, as JSON lines: to assert that something is nowhere in it."""
        return self._records.read_text(encoding="utf-8") if self._records.exists() else ""

    def wait_for(
        self, what: str, condition: Callable[["Collector"], object], *, within_s: float = 20.0
    ) -> None:
        """Return once *condition* holds; raises TimeoutError, which says that there was no *what*."""
        deadline = time.monotonic() + within_s
        while not condition(self):
            self._process.check()
            if time.monotonic() > deadline:
                names = sorted({f"{span.service}: {span.name}" for span in self.spans()})
                raise TimeoutError(f"no {what} at the collector within {within_s:.0f} s; spans: {names}")
            time.sleep(0.05)  # polls a file that another process writes

    def _read(self) -> Iterator[Json]:
        for line in self.text().splitlines(keepends=True):
            # The last line may be in writing, and one that was when the collector was killed is torn.
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)

    def _listens(self) -> bool:
        connection = http.client.HTTPConnection(self._address, self._port, timeout=5)
        try:
            connection.request("GET", "/v1/traces")
            return connection.getresponse().status == 405
        except OSError:
            return False
        finally:
            connection.close()


@contextlib.contextmanager
def running_collector(folder: Path, *, address: str = LOOPBACK, port: int = 0) -> Iterator[Collector]:
    """A collector inside `with`, its files in *folder*, which is made; the program is built if it is not cached.

    address, port: where it listens; that of the node's bridge is one that pods reach. 0 takes a free port. Raises
    BinariesUnavailable, or PartEnded with the log when it could not start.
    """
    program = collector_module().build() / "collector"
    collector = Collector(program, folder, address, port or free_port())
    try:
        collector.start()
        yield collector
    finally:
        collector.stop()


def collector_module() -> GoModule:
    """The Go module of the collector."""
    return GoModule(
        folder=MODULE,
        what=f"the OpenTelemetry Collector {VERSION}",
        version=VERSION,
        programs={"collector": "."},
    )


def _config(endpoint: str, records: Path) -> Json:
    pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": endpoint}}}},
        "exporters": {"file": {"path": str(records), "append": True, "flush_interval": "100ms"}},
        "service": {
            "pipelines": {"traces": pipeline, "metrics": pipeline},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
    }


def _spans(record: Json) -> Iterator[ReceivedSpan]:
    for resource in record.get("resourceSpans", ()):
        service = _attributes(resource["resource"].get("attributes", ())).get("service.name", "")
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                lasted_ns = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
                yield ReceivedSpan(
                    service=service,
                    name=span["name"],
                    trace=span["traceId"],
                    span=span["spanId"],
                    parent=span.get("parentSpanId", ""),
                    attributes=_attributes(span.get("attributes", ())),
                    events=tuple(event["name"] for event in span.get("events", ())),
                    duration_s=lasted_ns / 1e9,
                    links=tuple(link["traceId"] for link in span.get("links", ())),
                )


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Values as text, whatever their type; OTLP's JSON has one key for each type."""
    return {pair["key"]: str(next(iter(pair["value"].values()), "")) for pair in pairs}
