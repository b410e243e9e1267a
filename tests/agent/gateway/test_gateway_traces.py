"""What the gateway exports of a request, in a process of its own: tracer providers are global and set once."""

import json
import subprocess
import sys

SCENE = """
import asyncio, json, sys
import aiohttp
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from everwarm.gateway import run_gateway
from everwarm.settings import GatewaySettings
from tests.support.faulty_pods import announce, die, faulty_pod, record_of

memory, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)

async def scene(redis_url):
    stop, up = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with faulty_pod("pod-a", die) as pod, asyncio.TaskGroup() as group, aiohttp.ClientSession() as http:
        await announce(redis_url, [record_of(pod)])
        settings = GatewaySettings(redis_url=redis_url, gateway_port=0)
        group.create_task(run_gateway(settings, ready=up.set_result, stop=stop))
        url = await up + "/v1/transcribe?model=base.en&prompt=SECRETWORD"
        async with http.post(url, data=b"12" * 9000, headers={"content-type": "audio/pcm;rate=16000"}) as answer:
            assert answer.status == 200, await answer.text()
        stop.set()
    for span in memory.get_finished_spans():
        print(json.dumps({"name": span.name, "kind": span.kind.name, "attributes": dict(span.attributes)}))

asyncio.run(scene(sys.argv[1]))
"""


def test_a_request_is_one_server_span_and_a_route_span_an_attempt_and_says_nothing_of_the_prompt(
    redis_url: str,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCENE, redis_url], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    spans = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    assert [span["name"] for span in spans if span["kind"] == "SERVER"] == ["POST /v1/transcribe"]
    attempts = [span["attributes"] for span in spans if span["name"] == "everwarm.route"]
    assert [attempt["everwarm.route.attempt"] for attempt in attempts] == [1, 2]
    assert attempts[0]["everwarm.refusal"] == "pod_failed"
    assert "everwarm.refusal" not in attempts[1]
    assert "SECRETWORD" not in done.stdout + done.stderr
