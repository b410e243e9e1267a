"""What the chart asks of running programs: metrics for the dashboard and the alerts, an answer for `helm test`.

Pod, gateway and operator are real ones, under more load than they take and with something that fails, so that their
pages hold all that they ever show.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.chart.rendering import EVERYTHING, ROOT, Json, rendered, the
from tests.cluster.control_plane import ControlPlane
from tests.operator.running import World, grant, install_crd, running_operator
from tests.support.platform import RunningPlatform, running_platform
from tests.support.realtime import SILENCE, at_24_khz, realtime
from tests.support.speech import clips

pytestmark = [pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(300)]

Series = dict[str, set[str]]
"""Labels by name of a metric."""

SCRAPED: Final = {"namespace", "pod", "container", "le"}
"""What Prometheus adds to each series, and the bound of a bucket."""

NO_QUEUE: Final = """
apiVersion: everwarm.dev/v1alpha1
kind: WhisperModel
metadata: {name: tiny}
spec: {model: tiny.en, queue: 0}
"""
"""So that a second request at a time is refused by the pod and tried again by the gateway."""
PATIENCE_MS: Final = 120_000
"""Of each of them: that all are answered is to be seen, and not how soon by a pod that decodes one at a time."""


def dashboard() -> Json:
    """As it is in the ConfigMap."""
    objects = rendered(EVERYTHING)
    found: Json = json.loads(the(objects, "ConfigMap", "-dashboard")["data"]["everwarm.json"])
    return found


def alerts() -> list[Json]:
    (group,) = the(rendered(EVERYTHING), "PrometheusRule")["spec"]["groups"]
    rules: list[Json] = group["rules"]
    return rules


def expressions() -> dict[str, str]:
    """Every query, by where it is asked."""
    found = {rule["alert"]: str(rule["expr"]) for rule in alerts()}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = str(target["expr"])
    return found


# --- What is exposed -------------------------------------------------------------------------------------------------


def series_of(page: str) -> Series:
    """The metrics of a page."""
    found: Series = defaultdict(set)
    for line in page.splitlines():
        if sample := re.match(r"([a-z_]+)(?:\{(.*)\})? ", line):
            found[sample[1]] |= set(re.findall(r'([a-z_]+)="', sample[2] or ""))
    return found


def page_at(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        page: bytes = answer.read()
    return page.decode()


def transcribe(url: str, model: str, *, deadline_ms: int) -> int:
    """The status of one request to a gateway."""
    request = urllib.request.Request(
        f"{url}/v1/transcribe?model={model}&language=en",
        data=bytes(2 * 16_000 * 5),
        headers={"content-type": "audio/pcm;rate=16000", "x-everwarm-deadline-ms": str(deadline_ms)},
    )
    try:
        with urllib.request.urlopen(request, timeout=deadline_ms / 1000 + 60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def speak(url: str) -> None:
    """One utterance in a realtime session."""
    async with realtime(url, model="tiny") as client:
        await client.speak(at_24_khz(clips()[0].samples()), SILENCE)
        await client.transcript()


def port_of(platform: RunningPlatform) -> int:
    (pod,) = platform.pods()
    (port,) = {c.laddr.port for c in pod.net_connections(kind="tcp") if c.status == "LISTEN"}
    return int(port)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A pod and a gateway."""
    with running_platform(NO_QUEUE, folder=tmp_path_factory.mktemp("platform")) as running:
        yield running


@pytest.fixture(scope="module")
def of_pod_and_gateway(platform: RunningPlatform) -> dict[str, Series]:
    """The pages of a pod and a gateway that were asked for more than the pod takes."""
    with ThreadPoolExecutor(8) as callers:
        asked = callers.map(lambda _: transcribe(platform.url, "tiny", deadline_ms=PATIENCE_MS), range(24))
        statuses = set(asked)
    assert statuses == {200}  # the pod has refused some of them, and they were tried again
    assert transcribe(platform.url, "tiny", deadline_ms=1) in {503, 504}
    asyncio.run(speak(platform.url))
    return {
        "gateway": series_of(page_at(platform.url)),
        "stt": series_of(page_at(f"http://127.0.0.1:{port_of(platform)}")),
    }


@pytest.fixture
async def of_operator(
    control_plane: ControlPlane, namespace: str, redis_url: str, tmp_path: Path
) -> dict[str, Series]:
    """An operator that saw one pod become warm, and another resource whose objects are refused."""
    install_crd(control_plane)
    world = World(control_plane, namespace, redis_url)
    kubeconfig = grant(control_plane, namespace)
    with running_operator(control_plane, kubeconfig, namespace, redis_url, tmp_path) as operator:
        world.apply("english")
        world.wait("a pod", world.pods)
        (pod,) = world.pods()
        world.run_container(pod)
        await world.register(pod)
        world.apply("refused", template={"labels": {"no key at all": "x"}})
        for name in ("everwarm_reconcile_errors_total", "everwarm_pod_warm_duration_seconds_count"):
            world.wait(name, lambda name=name: name in operator.metrics())
        return {"operator": series_of(operator.metrics())}


# --- What is asked for -----------------------------------------------------------------------------------------------


def test_alerts_and_dashboard_ask_only_for_what_is_exposed(
    of_pod_and_gateway: dict[str, Series], of_operator: dict[str, Series]
) -> None:
    """Each selector names the container it reads: the metric must be on that page, and its labels on that metric."""
    exposed = {**of_pod_and_gateway, **of_operator}
    wrong = []
    for where, expression in expressions().items():
        for metric, matchers in re.findall(r"\b(everwarm_[a-z_]+|up)\{([^}]*)\}", expression):
            container = re.search(r'container="([a-z]+)"', matchers)
            assert container, f"{where} reads {metric} of every program"
            if metric == "up":  # Prometheus' own
                continue
            labels = exposed[container[1]].get(metric)
            if labels is None:
                wrong.append(f"{where}: {container[1]} exposes no {metric}")
                continue
            asked = set(re.findall(r"([a-z_]+)(?:=~?|!=|!~)\"", matchers)) | _grouped(expression)
            wrong += [
                f"{where}: {metric} has no label {x}"
                for x in asked - labels - SCRAPED
                if _is_single(expression)
            ]
    assert wrong == []


def _grouped(expression: str) -> set[str]:
    """The labels that *expression* groups or matches by."""
    found = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return {label.strip() for group in found for label in group.split(",")}


def _is_single(expression: str) -> bool:
    """Whether all its selectors are grouped by the same labels."""
    return "unless" not in expression


def test_every_query_reads_a_metric_of_ours_and_none_without_a_selector() -> None:
    for where, expression in expressions().items():
        named = re.findall(r"\b(?:everwarm_[a-z_]+(?=[{\[ )]|$)|up(?=\{))", _without_labels(expression))
        assert named, where
        assert expression.count("{") == len(named), f"{where} reads a metric of every program"


def _without_labels(expression: str) -> str:
    """*expression* without what stands in `by (...)` and between braces, where labels of ours are named."""
    return re.sub(r"\{[^}]*\}", "{}", re.sub(r"\b(by|on)\s*\([^)]*\)", "", expression))


def test_documents_name_only_metrics_that_are_exposed(
    of_pod_and_gateway: dict[str, Series], of_operator: dict[str, Series]
) -> None:
    exposed = {*of_operator["operator"], *of_pod_and_gateway["gateway"], *of_pod_and_gateway["stt"]}
    labels = {
        label
        for page in (of_operator | of_pod_and_gateway).values()
        for found in page.values()
        for label in found
    }
    packages = {path.name for path in ROOT.glob("*/everwarm_*")}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        named = set(re.findall(r"\beverwarm_[a-z_]+", page.read_text(encoding="utf-8")))
        assert named <= exposed | labels | packages, page.name


def test_every_metric_of_ours_is_on_the_dashboard(
    of_pod_and_gateway: dict[str, Series], of_operator: dict[str, Series]
) -> None:
    """What nobody looks at need not be measured; loads are for the test that there is one in a process's life."""
    shown = " ".join(expressions().values())
    pages = {**of_pod_and_gateway, **of_operator}
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for page in pages.values() for name in page}
    unseen = {name for name in names if name.startswith("everwarm_") and name not in shown}
    assert unseen == {"everwarm_model_loads_total"}


# --- Alerts ----------------------------------------------------------------------------------------------------------


def test_every_alert_says_what_it_means_and_the_runbook_what_to_do() -> None:
    runbook = (ROOT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8")
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description", "runbook_url"} <= rule["annotations"].keys()
        assert rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}")
        assert f"### {rule['alert']}\n" in runbook


def test_panels_lie_side_by_side() -> None:
    """Grafana moves panels that overlap, each time to another place."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


# --- helm test -------------------------------------------------------------------------------------------------------


def run_test(folder: Path, programs: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command of the release's test, as its pod would run it; *programs* is where it finds `everwarm`."""
    shell, flags, script = the(rendered(), "Pod", "-test")["spec"]["containers"][0]["command"]
    variables = {"MODEL": "", "KEY": "api-keys", "HOME": str(folder), **environment}
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [shell, flags, script.replace("/var/run/everwarm", str(folder))],
        env={**variables, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("model", ["", "tiny"], ids=["any", "by name"])
def test_helm_test_passes_when_speech_comes_back_as_text(
    platform: RunningPlatform, tmp_path: Path, model: str
) -> None:
    done = run_test(tmp_path, tmp_path, MODEL=model, EVERWARM_BASE_URL=platform.url)
    assert done.returncode == 0, done.stderr
    assert "heard: Could you move my appointment to Thursday" in done.stdout


def test_helm_test_fails_when_there_is_no_such_model(platform: RunningPlatform, tmp_path: Path) -> None:
    done = run_test(tmp_path, tmp_path, MODEL="none", EVERWARM_BASE_URL=platform.url)
    assert done.returncode != 0
    assert "model 'none' does not exist here" in done.stderr


def program(folder: Path, script: str) -> Path:
    """A folder with an `everwarm` that does *script*."""
    folder.mkdir()
    (folder / "everwarm").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / "everwarm").chmod(0o755)
    return folder


def test_helm_test_fails_when_other_words_come_back(tmp_path: Path) -> None:
    done = run_test(
        tmp_path, program(tmp_path / "bin", "echo Could you move my appointment to Monday?"), MODEL="tiny"
    )
    assert done.returncode != 0
    assert "not heard: Thursday" in done.stderr


HASHED = f"sha256:{'0' * 64} name=desk"


@pytest.mark.parametrize(
    "keys",
    [
        "first\nsecond\n",
        "first",
        "first name=desk concurrent=4\nsecond\n",
        f"# keys\n\n{HASHED}\nfirst name=desk",
    ],
    ids=["two", "one without an end", "with limits", "behind a hash"],
)
def test_helm_test_shows_the_first_plain_key(tmp_path: Path, keys: str) -> None:
    (tmp_path / "api-keys").mkdir()
    (tmp_path / "api-keys" / "api-keys").write_text(keys, encoding="utf-8")
    done = run_test(
        tmp_path, program(tmp_path / "bin", 'echo "$EVERWARM_API_KEY appointment Thursday"'), MODEL="tiny"
    )
    assert "heard: first appointment" in done.stdout


def test_helm_test_says_what_it_needs_when_it_knows_no_key(tmp_path: Path) -> None:
    (tmp_path / "api-keys").mkdir()
    (tmp_path / "api-keys" / "api-keys").write_text(f"{HASHED}\n", encoding="utf-8")
    done = run_test(tmp_path, program(tmp_path / "bin", "echo appointment Thursday"), MODEL="tiny")
    assert done.returncode != 0
    assert "test.apiKey.existingSecret" in done.stderr
