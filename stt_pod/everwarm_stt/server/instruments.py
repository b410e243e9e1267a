"""The pod's metrics: what is measured per request, and what is read off the pod when somebody collects."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation

from everwarm_core import telemetry
from everwarm_core.realtime.sessions import Sessions
from everwarm_core.telemetry import Attribute
from everwarm_stt.pod import Pod


@dataclass(frozen=True, slots=True)
class Instruments:
    """Counters and histograms; attributes are bounded: names from the spec, languages from Whisper's table."""

    request: Histogram
    queue: Histogram
    decode: Histogram
    real_time_factor: Histogram
    refusals: Counter


def instruments(pod: Pod, sessions: Sessions) -> Instruments:
    """The instruments of *pod* and its realtime *sessions*; once per process, after `telemetry.start`."""
    labels = {Attribute.MODEL.value: pod.settings.model}

    def gauge(metric: telemetry.Metric, read: Callable[[], float | None]) -> None:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            value = read()
            return () if value is None else (Observation(value, labels),)

        telemetry.gauge(metric, observe)

    gauge(telemetry.SLOT_USAGE, lambda: pod.admission.busy)
    gauge(telemetry.SLOT_LIMIT, lambda: pod.settings.slots)
    gauge(telemetry.QUEUE_USAGE, lambda: pod.admission.waiting)
    gauge(telemetry.REALTIME_SESSIONS, lambda: len(sessions))
    gauge(telemetry.LOAD_DURATION, lambda: pod.load_s or None)  # absent until it is known
    gauge(telemetry.WARM_DURATION, lambda: pod.warm_s or None)
    return Instruments(
        request=telemetry.histogram(telemetry.REQUEST_DURATION),
        queue=telemetry.histogram(telemetry.QUEUE_DURATION),
        decode=telemetry.histogram(telemetry.DECODE_DURATION),
        real_time_factor=telemetry.histogram(telemetry.REAL_TIME_FACTOR),
        refusals=telemetry.counter(telemetry.REFUSALS),
    )
