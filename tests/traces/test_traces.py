"""One utterance is one trace, a pod's start is another, and neither holds a word that was said.

Real programs export to a real OTLP receiver; the assertions read what a collector would have got.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.fixtures.valkey import running_valkey
from tests.support.otlp import OtlpReceiver, ReceivedSpan
from tests.support.pods import PodProcess, running_pod
from tests.support.speech import Clip, clips, words

AGENT = textwrap.dedent(
    """
    import asyncio, sys
    import everwarm
    from everwarm_core import telemetry

    async def main(redis_url, path):
        async with everwarm.Client(redis_url=redis_url) as client:
            return await client.transcribe(path, model="tiny.en", language="en", prompt="customer support")

    started = telemetry.start("agent", version="test")
    print(asyncio.run(main(*sys.argv[1:])).text)
    started.shutdown()
    """
)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return clips()[0]


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """A registry that holds this pod alone: others of its name would be tried as well."""
    with running_valkey() as server:
        yield server.url


@pytest.fixture(scope="module")
def pod(
    receiver: OtlpReceiver, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PodProcess]:
    environment = {"EVERWARM_REDIS_URL": registry, "OTEL_SERVICE_NAME": "pod", **receiver.environment}
    with running_pod(environment, folder=tmp_path_factory.mktemp("traced")) as warm:
        yield warm


@pytest.fixture(scope="module")
def text(pod: PodProcess, receiver: OtlpReceiver, registry: str, clip: Clip) -> str:
    """What an agent, in a process of its own, got for the clip."""
    done = subprocess.run(
        [sys.executable, "-c", AGENT, registry, str(clip.path)],
        env={**os.environ, "OTEL_SERVICE_NAME": "agent", **receiver.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_an_utterance_is_one_trace_from_the_agent_to_the_decode(text: str, receiver: OtlpReceiver) -> None:
    path = ("everwarm.transcribe", "everwarm.route", "everwarm.queue", "everwarm.decode")
    spans = receiver.wait_for(lambda seen: set(path) <= {span.name for span in seen})
    transcribe = _named(spans, "everwarm.transcribe")
    for name in path:
        assert _named(spans, name).trace == transcribe.trace
    assert transcribe.parent == ""


def test_the_decode_descends_from_the_agents_request_over_http(text: str, receiver: OtlpReceiver) -> None:
    # The pod's span of the request ends after the decode, and may come in a later export.
    spans = receiver.wait_for(lambda seen: [s.name for s in _chain(seen)][-1:] == ["everwarm.transcribe"])
    chain = _chain(spans)
    assert [span.service for span in chain][:1] == ["pod"]
    assert [span.service for span in chain] == sorted((span.service for span in chain), reverse=True)


def test_the_route_span_says_which_pod_and_why(text: str, receiver: OtlpReceiver) -> None:
    spans = receiver.wait_for(lambda seen: "everwarm.route" in {span.name for span in seen})
    route = _named(spans, "everwarm.route").attributes
    assert route["everwarm.route.reason"] == "only_candidate"
    assert route["everwarm.route.candidates"] == "1"
    assert route["everwarm.pod"]


def test_the_decode_span_tells_audio_seconds_and_tokens(
    text: str, receiver: OtlpReceiver, clip: Clip
) -> None:
    spans = receiver.wait_for(lambda seen: "everwarm.decode" in {span.name for span in seen})
    decode = _named(spans, "everwarm.decode").attributes
    assert float(decode["everwarm.audio.duration"]) == pytest.approx(clip.seconds, abs=0.05)
    assert int(decode["everwarm.tokens"]) > 0


def test_a_pods_start_is_a_trace_of_its_own_with_load_warm_and_register(
    pod: PodProcess, receiver: OtlpReceiver
) -> None:
    steps = {"load", "warm", "register"}
    spans = receiver.wait_for(lambda seen: {"everwarm.start", *steps} <= {span.name for span in seen})
    start = _named(spans, "everwarm.start")
    assert start.parent == ""
    for step in steps:
        assert _named(spans, step).trace == start.trace


def test_metrics_of_the_pod_arrive(text: str, receiver: OtlpReceiver) -> None:
    receiver.wait_for_metric("everwarm.decode.duration")
    receiver.wait_for_metric("everwarm.load.duration")


def test_no_word_that_was_said_or_prompted_is_exported(text: str, receiver: OtlpReceiver, clip: Clip) -> None:
    assert words(text) == words(clip.text)
    receiver.wait_for(lambda seen: "everwarm.transcribe" in {span.name for span in seen})
    exported = receiver.payloads().lower()
    said = [word for word in [*words(clip.text), "customer", "support"] if len(word) > 4]
    assert [word for word in said if word.encode() in exported] == []


def test_no_word_that_was_said_is_logged(text: str, pod: PodProcess, clip: Clip) -> None:
    logged = pod.log.read_text(encoding="utf-8").lower()
    assert clip.text.lower() not in logged
    assert "customer support" not in logged


def _named(spans: tuple[ReceivedSpan, ...], name: str) -> ReceivedSpan:
    return next(span for span in spans if span.name == name)


def _chain(spans: tuple[ReceivedSpan, ...]) -> list[ReceivedSpan]:
    """The decode and its ancestors, as far as they have arrived."""
    by_id = {span.span: span for span in spans}
    here = next((span for span in spans if span.name == "everwarm.decode"), None)
    chain = []
    while here is not None:
        chain.append(here)
        here = by_id.get(here.parent)
    return chain
