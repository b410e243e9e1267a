"""The platform on one machine exports as a cluster would: one trace over command line, gateway and pod."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.otlp import OtlpReceiver
from tests.support.platform import running_platform
from tests.support.speech import clips

ONE_POD = """
apiVersion: everwarm.dev/v1alpha1
kind: WhisperModel
metadata: {name: tiny}
spec: {model: tiny.en}
"""


def test_a_transcription_through_the_gateway_is_one_trace_over_three_programs(tmp_path: Path) -> None:
    with (
        OtlpReceiver() as receiver,
        running_platform(ONE_POD, folder=tmp_path, environment=receiver.environment) as platform,
    ):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "everwarm.cli",
                "transcribe",
                str(clips()[0].path),
                "--model",
                "tiny",
                "--url",
                platform.url,
            ],
            env={**os.environ, **receiver.environment},
            capture_output=True,
            timeout=60,
            check=True,
        )
        spans = receiver.wait_for(
            lambda seen: (
                {"everwarm.transcribe", "everwarm.route", "everwarm.decode"} <= {s.name for s in seen}
            )
        )
        metrics = urllib.request.urlopen(f"{platform.url}/metrics", timeout=5).read().decode()
    root = next(span for span in spans if span.name == "everwarm.transcribe")
    services = {span.service for span in spans if span.trace == root.trace}
    assert services == {"everwarm-cli", "everwarm-gateway", "everwarm-pod"}
    assert "everwarm_route_duration_seconds_count" in metrics
