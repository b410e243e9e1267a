"""From an empty cluster to an empty cluster: install, serve, change, break, upgrade and remove, with no utterance lost.

The tests are the chapters of one story and run in order; each says what it leaves. A pod in the cluster sends speech all
the while, and every chapter after the first ones begins and ends with it. Two callers speak beside it, each at a person's
pace: one in realtime sessions through the gateway's Service, one in LiveKit's stream from outside the cluster. What they ask for
together is half of what one pod less than there are can serve, measured at the beginning. Another pod compares what Kubernetes and
the registry say of every pod.
"""

import asyncio
import base64
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

import everwarm
from everwarm.demo.clips import load_clips
from everwarm.demo.wer import words
from tests.cluster.clients import find_kubectl
from tests.e2e.conftest import CHART, NAMESPACE, POD_SECURITY, PREVIOUS_TAG, RELEASE, RESTRICTED, ROOT, Stage
from tests.e2e.kubectl import CommandFailed, Json, Lines, wait_for
from tests.e2e.outside import forwarded, livekit_agent
from tests.support.pods import free_port
from tests.support.speech import clips

pytestmark = [pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(1200)]

HERE = Path(__file__).parent
TINY, BASE, BROKEN = "tiny-en", "base", "broken"
LEASE_S = 5.0  # a killed pod's entry in the registry
GRACE_S = 7.0  # Redis back: that long nothing that is missing counts as gone
SERVED = 8  # utterances of the load that a chapter must see answered
CPU = {"requests": {"cpu": "100m", "memory": "400Mi"}, "limits": {"memory": "1Gi"}}
SPOKEN_HZ = (
    2.5  # decodes a second for the two who speak: a final every 3 s each, and looks at what was said so far
)
LEAST_HZ = 1.0
UNDER_LOAD = "under load"
SPOKEN = tuple(clip for clip in clips() if clip.path.stem in {"yes_please", "opening_hours"})
REALTIME_CLIENT = "tests/support/realtime.py"


def whisper_model(name: str, model: str, path: str, **spec: object) -> Json:
    """A WhisperModel whose weights are on the story's volume."""
    source = {"persistentVolumeClaim": {"claimName": "weights", "path": path}}
    return {
        "apiVersion": "everwarm.dev/v1alpha1",
        "kind": "WhisperModel",
        "metadata": {"name": name},
        "spec": {"model": model, "source": source, "template": {"resources": CPU}, **spec},
    }


def values(stage: Stage, **more: object) -> Json:
    """The release's values."""
    found: Json = {"gateway": {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}}, **more}
    for name, value in stage.place.values.items():
        found[name] = {**value, **found.get(name, {})}
    if stage.collector:
        found["telemetry"] = {"otlpEndpoint": stage.collector.endpoint}
    return found


def upgrade(stage: Stage, chart: Path, **more: object) -> None:
    stage.kubectl.helm(
        "upgrade",
        "--install",
        RELEASE,
        str(chart),
        "--values=-",
        "--wait",
        "--timeout=5m",
        given=values(stage, **more),
    )


# --- The load and the comparison -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """What the agents have said of their utterances so far. files: of whole utterances; realtime, livekit: of spoken ones."""

    files: Lines
    realtime: Lines
    livekit: Sequence[Json]
    rate_hz: float

    def lost(self) -> list[Json]:
        """Those without their words, or with their final more than once."""
        return [line for way in (self.files, self.realtime, self.livekit) for line in way if line["problem"]]

    def serve(self, count: int = SERVED) -> None:
        """Return once *count* more have ended, and one more that was spoken each way."""
        until = [len(self.files) + count, len(self.realtime) + 1, len(self.livekit) + 1]
        wait_for(
            "answers",
            lambda: all(now >= then for now, then in zip(self._lengths(), until, strict=True)),
        )

    def _lengths(self) -> list[int]:
        return [len(self.files), len(self.realtime), len(self.livekit)]


@pytest.fixture(scope="module")
def inside(stage: Stage) -> Iterator[Callable[..., Lines]]:
    """Starts a script of `inside/` as a pod, with *files* beside it, and follows what it says; all end with the story."""
    running: list[tuple[str, Lines]] = []

    def start(script: str, files: Mapping[str, bytes] | None = None, **variables: str) -> Lines:
        content = {"main.py": (HERE / "inside" / f"{script}.py").read_bytes(), **(files or {})}
        held = {_key(path): base64.b64encode(data).decode() for path, data in content.items()}
        stage.kubectl.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": script}, "binaryData": held}
        )
        stage.kubectl.apply(*_pod(stage, script, variables, list(content)))
        wait_for(
            f"{script}'s first words",
            lambda: stage.kubectl.get("pod", script)["status"].get("phase") == "Running",
        )
        lines = stage.kubectl.follow(script)
        running.append((script, lines))
        return lines

    yield start
    for script, lines in running:
        with _tolerating_absence():
            stage.kubectl("delete", "pod", script, "--wait=true")
        lines.finish()


@contextmanager
def _tolerating_absence() -> Iterator[None]:
    try:
        yield
    except CommandFailed as error:
        if "NotFound" not in str(error):
            raise


def _key(path: str) -> str:
    """*path* as a ConfigMap can name it."""
    return path.replace("/", "-")


def _pod(stage: Stage, script: str, variables: dict[str, str], files: list[str]) -> list[Json]:
    """A pod that runs *script*, with an agent's token and way to the registry, and its right to list pods."""
    secret = f"{RELEASE}-platform"
    url = {"secretKeyRef": {"name": secret, "key": "redis-url-agent"}}
    env: list[Json] = [
        {"name": "EVERWARM_NAMESPACE", "value": NAMESPACE},
        {"name": "EVERWARM_REDIS_URL", "valueFrom": url},
        {"name": "EVERWARM_TOKEN_FILE", "value": "/token/token"},
        *({"name": name, "value": value} for name, value in variables.items()),
    ]
    if stage.collector:
        env.append({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": stage.collector.endpoint})
    container = {
        "name": script,
        "image": stage.plan.name("gateway"),
        "command": ["python", "/script/main.py"],
        "env": env,
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "script", "mountPath": "/script"},
            {"name": "token", "mountPath": "/token"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    spec = {
        "serviceAccountName": script,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 60,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": [
            {
                "name": "script",
                "configMap": {
                    "name": script,
                    "items": [{"key": _key(path), "path": path} for path in files],
                },
            },
            {"name": "token", "secret": {"secretName": secret, "items": [{"key": "token", "path": "token"}]}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    rbac = "rbac.authorization.k8s.io"
    meta = {"name": script, "labels": {"everwarm.dev/agent": "true"}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": meta,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": script},
            "subjects": [{"kind": "ServiceAccount", "name": script, "namespace": NAMESPACE}],
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec},
    ]


@pytest.fixture(scope="module")
def comparison(stage: Stage, inside: Callable[..., Lines]) -> Lines:
    """What Kubernetes and the registry have disagreed on for over a second."""
    return inside("agreement")


@pytest.fixture(scope="module")
def load(stage: Stage, inside: Callable[..., Lines], comparison: Lines) -> Iterator[Load]:
    """The agents, which send and speak from now on; the one outside until the end of the module."""
    rate_hz = max(LEAST_HZ, 0.5 / _seconds_for_one(stage) - SPOKEN_HZ)
    stage.figures.note("load beside two who speak", rate_hz, "utterances/s")
    variables = {"MODEL": TINY, "GATEWAY_URL": f"http://{RELEASE}-gateway:8080"}
    files = inside("load", RATE_HZ=f"{rate_hz:.3f}", **variables)
    realtime = inside("realtime", _spoken(), **variables)
    with (
        forwarded(stage.kubectl, f"{RELEASE}-gateway") as url,
        livekit_agent(url, model=TINY, clips=SPOKEN) as livekit,
    ):
        started = Load(files, realtime, livekit, rate_hz)
        started.serve(4)
        yield started


def _spoken() -> dict[str, bytes]:
    """What `inside/realtime.py` wants beside it."""
    texts = {f"{clip.path.stem}.pcm": clip.text for clip in SPOKEN}
    return {
        REALTIME_CLIENT: (ROOT / REALTIME_CLIENT).read_bytes(),
        "speech.json": json.dumps(texts).encode(),
        **{f"{clip.path.stem}.pcm": clip.pcm() for clip in SPOKEN},
    }


@pytest.fixture
def unharmed(load: Load) -> Iterator[Load]:
    """The load, which must be served before, during and after the chapter, and lose nothing."""
    assert load.lost() == []
    yield load
    load.serve()
    assert load.lost() == []


@contextmanager
def gateway_url(stage: Stage) -> Iterator[str]:
    """The gateway from outside the cluster, as `kubectl port-forward` reaches it."""
    port = free_port()
    argv = [str(find_kubectl()), f"--kubeconfig={stage.place.kubeconfig}", f"--namespace={NAMESPACE}"]
    process = subprocess.Popen(
        [*argv, "port-forward", f"service/{RELEASE}-gateway", f"{port}:8080"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "Forwarding" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _seconds_for_one(stage: Stage) -> float:
    """The median of utterances sent one after the other from outside the cluster, each checked."""
    clip = next(clip for clip in load_clips() if clip.name == "appointment")

    async def ask(url: str) -> list[float]:
        took = []
        async with everwarm.Client(base_url=url) as client:
            for _ in range(5):
                began = time.monotonic()
                heard = await client.transcribe(clip.path, model=TINY, language="en")
                took.append(time.monotonic() - began)
                assert words(heard.text) == words(clip.text)
        return took

    with gateway_url(stage) as url:
        return statistics.median(asyncio.run(ask(url)))


# --- The story -------------------------------------------------------------------------------------------------------


def test_helm_install_makes_a_platform_that_is_ready(stage: Stage) -> None:
    chart = stage.previous / "charts" / "everwarm" if stage.previous else CHART
    began = time.monotonic()
    upgrade(stage, chart)
    stage.figures.note("helm install to a ready platform", time.monotonic() - began)


def test_applied_models_turn_ready_and_a_broken_one_says_why(stage: Stage) -> None:
    began = time.monotonic()
    stage.kubectl.apply(
        whisper_model(TINY, "tiny.en", "tiny.en", replicas=2),
        whisper_model(BASE, "base", "base", languages=["en", "auto"]),
        whisper_model(BROKEN, "tiny.en", "nowhere", replicas=1),
    )
    stage.kubectl("wait", "--for=condition=Ready", f"wm/{TINY}", f"wm/{BASE}", "--timeout=300s")
    stage.figures.note("kubectl apply to Ready, two models of three pods", time.monotonic() - began)
    wait_for(
        "reason", lambda: _condition(stage, BROKEN, "Stalled").get("reason") == "WeightsNotFound", within_s=60
    )
    assert "nowhere" in _condition(stage, BROKEN, "Stalled")["message"]
    wait_for("its event, which comes after the status", lambda: _events(stage, "WeightsNotFound"))
    shown = stage.kubectl("get", "wm")
    assert shown.split()[:2] == ["NAME", "MODEL"]
    for name in (TINY, BASE):
        stage.figures.note(f"{name}, process start to warm", _status(stage, name)["warmSeconds"])
    stage.kubectl("delete", "wm", BROKEN)


def test_pods_that_cannot_start_say_why_within_a_minute(stage: Stage) -> None:
    """What only a node finds out: the API server has taken these pods."""
    private = whisper_model("no-secret", "tiny.en", "tiny.en", replicas=1)
    private["spec"]["source"] = {"hub": {"tokenSecret": {"name": "nowhere", "key": "token"}}}
    found = {"no-image": "ImageNotPulled", "no-secret": "ContainerNotCreated"}
    stage.kubectl.apply(
        whisper_model("no-image", "tiny.en", "tiny.en", replicas=1, image="localhost/everwarm/nowhere:0"),
        private,
    )
    for name, reason in found.items():
        wait_for(reason, partial(_is_told, stage, name, reason), within_s=60)
        assert "nowhere" in _condition(stage, name, "Stalled")["message"]
        wait_for("its event, which comes after the status", partial(_events, stage, reason))
    stage.kubectl("delete", "wm", *found)


def _is_told(stage: Stage, name: str, reason: str) -> bool:
    return _condition(stage, name, "Stalled").get("reason") == reason


def test_helm_test_transcribes_through_the_gateway(stage: Stage) -> None:
    stage.kubectl.helm("test", RELEASE, "--timeout=3m")


def test_an_agent_outside_the_cluster_transcribes(stage: Stage) -> None:
    stage.figures.note("an utterance from outside, p50", _seconds_for_one(stage))


def test_pods_refuse_callers_without_the_token(stage: Stage) -> None:
    pod = stage.pods(TINY)[0]
    code = (
        "import urllib.request as u, urllib.error as e\n"
        f"r = u.Request('http://{pod['status']['podIP']}:8000/v1/transcribe?model=x', b'', {{'content-type': 'audio/pcm;rate=16000'}})\n"
        "try: print(u.urlopen(r).status)\n"
        "except e.HTTPError as error: print(error.code)\n"
    )
    gateway = stage.kubectl.items("pods", "--selector=app.kubernetes.io/component=gateway")[0]["metadata"][
        "name"
    ]
    assert stage.kubectl("exec", gateway, "--", "python", "-c", code).strip() == "401"


def test_a_rolling_update_loses_nothing(stage: Stage, unharmed: Load) -> None:
    before = stage.uids(TINY)
    began = time.monotonic()
    _patch(stage, TINY, {"decode": {"beamSize": 1}})
    wait_for("two new pods", lambda: stage.is_settled(TINY, 2) and before.isdisjoint(stage.uids(TINY)))
    stage.figures.note(f"rolling update of two pods, {UNDER_LOAD}", time.monotonic() - began)


def test_scaling_up_and_down_loses_nothing(stage: Stage, unharmed: Load) -> None:
    began = time.monotonic()
    stage.kubectl("scale", f"wm/{TINY}", "--replicas=3")
    wait_for("three pods", lambda: stage.is_settled(TINY, 3))
    stage.figures.note(f"scale from two to three, {UNDER_LOAD}", time.monotonic() - began)
    unharmed.serve()
    stage.kubectl("scale", f"wm/{TINY}", "--replicas=2")
    wait_for("two pods", lambda: stage.is_settled(TINY, 2))


def test_killing_a_pod_loses_nothing(stage: Stage, unharmed: Load) -> None:
    victim = stage.pods(TINY)[0]["metadata"]["name"]
    killed, began = time.time(), time.monotonic()
    stage.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    wait_for("its successor", lambda: stage.is_settled(TINY, 2))
    stage.figures.note(f"pod killed to its successor warm, {UNDER_LOAD}", time.monotonic() - began)
    stage.excused.append((killed, killed + LEASE_S + 1))


def test_an_eviction_beyond_the_budget_is_refused_and_within_it_is_replaced(
    stage: Stage, unharmed: Load
) -> None:
    first, second = (pod["metadata"]["name"] for pod in stage.pods(TINY))
    _evict(stage, first)
    with pytest.raises(CommandFailed, match="disruption budget"):
        _evict(stage, second)
    wait_for("its successor", lambda: stage.is_settled(TINY, 2))
    wait_for("room in the budget", lambda: not _refuses(lambda: _evict(stage, second)))
    wait_for(
        "two successors",
        lambda: stage.is_settled(TINY, 2) and {first, second}.isdisjoint(_names(stage, TINY)),
    )


def test_restarting_the_operator_loses_nothing(stage: Stage, unharmed: Load) -> None:
    began, before = time.time(), stage.uids(TINY) | stage.uids(BASE)
    _restart(stage, "deployment", "operator")
    stage.excuse(began, 2)
    assert stage.uids(TINY) | stage.uids(BASE) == before


def test_restarting_the_registry_loses_nothing_and_turns_no_pod(stage: Stage, unharmed: Load) -> None:
    name = f"{RELEASE}-valkey-0"
    began, before = time.time(), stage.kubectl.get("pod", name)["metadata"]["uid"]
    stage.kubectl("delete", "pod", name)
    wait_for("another Valkey", lambda: _is_ready_successor(stage.kubectl.get("pod", name), before))
    unharmed.serve()
    stage.excuse(began, GRACE_S)
    assert stage.ready(TINY) == 2


def test_restarting_the_gateways_loses_nothing(stage: Stage, unharmed: Load) -> None:
    _restart(stage, "deployment", "gateway")


def test_an_upgrade_of_the_chart_and_its_rollback_restart_no_pod_of_an_unchanged_image(
    stage: Stage, unharmed: Load, tmp_path: Path
) -> None:
    before = stage.uids(TINY) | stage.uids(BASE)
    newer = shutil.copytree(CHART, tmp_path / "everwarm")
    about = yaml.safe_load((newer / "Chart.yaml").read_text(encoding="utf-8"))
    (newer / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "99.0.0"}), encoding="utf-8")
    began = time.time()
    upgrade(stage, newer)
    stage.kubectl.helm("rollback", RELEASE, "--wait", "--timeout=5m")
    upgrade(stage, CHART)
    stage.excuse(
        began, GRACE_S
    )  # what the operator and Valkey are made of may have changed between the charts
    wait_for("calm", lambda: stage.is_settled(TINY, 2) and stage.is_settled(BASE, 1))
    assert stage.uids(TINY) | stage.uids(BASE) == before


def test_pods_of_the_previous_commit_serve_agents_of_this_one_and_the_other_way_round(
    stage: Stage, unharmed: Load
) -> None:
    if stage.previous is None:
        pytest.skip("the commit before this one has no images of its own")
    older = f"{stage.place.prefix}/stt:{PREVIOUS_TAG}"
    _patch(stage, TINY, {"image": older})
    wait_for("older pods", lambda: stage.is_settled(TINY, 2) and _images(stage, TINY) == {older})
    unharmed.serve()
    upgrade(stage, CHART, gateway={"image": {"tag": PREVIOUS_TAG}})
    _patch(stage, TINY, {"image": stage.plan.name("stt")})
    wait_for(
        "newer pods", lambda: stage.is_settled(TINY, 2) and _images(stage, TINY) == {stage.plan.name("stt")}
    )
    unharmed.serve()
    upgrade(stage, CHART)


def test_a_dead_collector_costs_nothing_but_telemetry(stage: Stage, unharmed: Load) -> None:
    if stage.collector is None:
        pytest.skip("pods reach no address of this machine")
    stage.collector.stop()
    unharmed.serve(3 * SERVED)
    stage.collector.start()


def test_one_utterance_is_one_trace_and_a_pods_birth_another(stage: Stage, unharmed: Load) -> None:
    if stage.collector is None:
        pytest.skip("pods reach no address of this machine")
    path = {"everwarm.transcribe", "everwarm.route", "everwarm.queue", "everwarm.decode"}

    def whole_traces(_: object) -> bool:
        assert stage.collector is not None
        by_trace: dict[str, set[tuple[str, str]]] = {}
        seen = stage.collector.spans()
        for span in seen:
            by_trace.setdefault(span.trace, set()).add((span.service, span.name))
        served = [spans for spans in by_trace.values() if path <= {name for _, name in spans}]
        births = {trace for trace, spans in by_trace.items() if ("everwarm-pod", "everwarm.start") in spans}
        led_to = {trace for span in seen if span.name == "everwarm.reconcile" for trace in span.links}
        through = [spans for spans in served if len({service for service, _ in spans}) >= 3]
        return bool(through and births & led_to)

    stage.collector.wait_for("whole traces", whole_traces, within_s=60)
    metrics = stage.collector.metrics()
    assert {name for name in metrics if name.startswith("everwarm.")}
    said = next(clip for clip in load_clips() if clip.name == "appointment").text
    assert said not in stage.collector.text()


def test_nothing_was_lost(stage: Stage, load: Load, comparison: Lines) -> None:
    for script in ("load", "realtime", "agreement"):
        stage.kubectl("delete", "pod", script, "--wait=true")
    load.files.finish()
    load.realtime.finish()
    comparison.finish()
    lost = load.lost()
    took = [line["took"] for line in load.files]
    ways: list[Lines | Sequence[Json]] = [load.files, load.realtime, load.livekit]
    stage.figures.note("utterances served", sum(len(way) for way in ways) - len(lost), "")
    stage.figures.note("median of those sent whole", statistics.median(took))
    stage.figures.note("the longest wait", max(took))
    _note_spoken(stage, "realtime", load.realtime)
    stage.figures.note(
        "realtime, said again after a reconnect", sum(line["again"] for line in load.realtime), ""
    )
    _note_spoken(stage, "LiveKit's stream", load.livekit)
    (looks,) = (line["looks"] for line in comparison if "looks" in line)
    stage.figures.note("looks at Ready and warm", looks, "")
    disagreements = [line for line in comparison if "pod" in line and not _is_excused(stage, line)]
    longest = max((line["until"] - line["from"] for line in disagreements), default=0.0)
    stage.figures.note("longest disagreement of Ready and warm, not excused", longest)
    stage.figures.notes += [_disagreement(line) for line in disagreements]
    stage.figures.note("of them Ready and not warm", sum(line["ready"] for line in disagreements), "")
    stage.figures.lost, stage.figures.disagreements = len(lost), len(disagreements)
    assert lost == []


def _note_spoken(stage: Stage, way: str, lines: Lines | Sequence[Json]) -> None:
    """The callers look for a final only after a second of silence, so what it took tells of trouble and not of speed."""
    stage.figures.note(f"{way}, utterances", len(lines), "")
    stage.figures.note(f"{way}, last word to final, the longest", max(line["took"] for line in lines))


def test_uninstalling_leaves_what_is_promised_and_no_more(stage: Stage) -> None:
    stage.kubectl.helm("uninstall", RELEASE, "--wait", "--timeout=5m")
    assert {model["metadata"]["name"] for model in stage.kubectl.items("wm")} == {TINY, BASE}
    assert stage.ready(TINY) == 2
    stage.kubectl("delete", "wm", "--all")
    ours = "deployments,replicasets,statefulsets,services,poddisruptionbudgets,pods,secrets,roles,rolebindings,serviceaccounts"

    def left() -> list[str]:
        scripts = {"load", "realtime", "agreement", "default", "kubernetes"}
        return [
            f"{item['kind']}/{item['metadata']['name']}"
            for item in stage.kubectl.items(ours)
            if item["metadata"]["name"] not in scripts
        ]

    wait_for("empty namespace", lambda: not left())
    cluster = stage.kubectl.items(
        "clusterroles,clusterrolebindings", f"--selector=app.kubernetes.io/instance={RELEASE}"
    )
    assert cluster == []
    stage.kubectl("delete", "crd", "whispermodels.everwarm.dev")


# --- Words of the story ----------------------------------------------------------------------------------------------


def _status(stage: Stage, name: str) -> Json:
    found: Json = stage.kubectl.get("whispermodel", name).get("status", {})
    return found


def _condition(stage: Stage, name: str, kind: str) -> Json:
    found: list[Json] = [each for each in _status(stage, name).get("conditions", ()) if each["type"] == kind]
    return found[0] if found else {}


def _events(stage: Stage, reason: str) -> list[Json]:
    return [event for event in stage.kubectl.items("events") if event["reason"] == reason]


def _patch(stage: Stage, name: str, spec: Json) -> None:
    stage.kubectl("patch", f"wm/{name}", "--type=merge", f"--patch={json.dumps({'spec': spec})}")


def _evict(stage: Stage, pod: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    stage.kubectl(
        "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", "-f", "-", given=eviction
    )


def _refuses(command: Callable[[], None]) -> bool:
    try:
        command()
    except CommandFailed as error:
        if "disruption budget" not in str(error):
            raise
        return True
    return False


def _names(stage: Stage, name: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in stage.pods(name)}


def _images(stage: Stage, name: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in stage.pods(name)}


def _is_ready_successor(pod: Json, uid: str) -> bool:
    """Whether *pod* is Ready and not the one with *uid*, of which a StatefulSet's status may still tell."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return pod["metadata"]["uid"] != uid and conditions.get("Ready") == "True"


def _restart(stage: Stage, kind: str, component: str) -> None:
    stage.kubectl("rollout", "restart", f"{kind}/{RELEASE}-{component}")
    stage.kubectl("rollout", "status", f"{kind}/{RELEASE}-{component}", "--timeout=180s")


def _disagreement(line: Json) -> str:
    said = "Ready and not warm" if line["ready"] else "warm and not Ready"
    return f"{line['pod']}, {line['age']:g} s old, was {said} for {line['until'] - line['from']:.2f} s"


def _is_excused(stage: Stage, line: Json) -> bool:
    return any(began <= line["from"] and line["until"] <= until for began, until in stage.excused)
