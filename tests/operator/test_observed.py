"""What is read off API objects, whole or not."""

import copy
import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_operator.observed import (
    DeploymentCondition,
    Gate,
    ObservedDeployment,
    ObservedPod,
    ObservedResource,
    Terminated,
    Waiting,
    controller,
    format_time,
    parse_time,
)

POD: Final[dict[str, Any]] = {
    "metadata": {
        "name": "base-5d8f7-x2x4z",
        "uid": "0b7c",
        "creationTimestamp": "2026-11-25T11:00:00Z",
        "labels": {"pod-template-hash": "5d8f7"},
        "annotations": {
            "everwarm.dev/names": "base.en,whisper-1",
            "everwarm.dev/languages": "en,auto",
            "everwarm.dev/template": "0123456789abcdef",
        },
    },
    "spec": {
        "nodeName": "node-1",
        "containers": [{"name": "mesh", "image": "mesh:1"}, {"name": "stt", "image": "everwarm/stt:1"}],
    },
    "status": {
        "phase": "Running",
        "conditions": [
            {
                "type": "everwarm.dev/warm",
                "status": "True",
                "reason": "Warm",
                "message": "warm: boot 1f2e, container 0123456789ab",
                "lastTransitionTime": "2026-11-25T11:00:09Z",
            },
            {"type": "Ready", "status": "True"},
            {"type": "ContainersReady", "status": "True"},
            {"type": "PodScheduled", "status": "True"},
        ],
        "containerStatuses": [
            {"name": "mesh", "containerID": "containerd://mesh", "restartCount": 9, "state": {"waiting": {}}},
            {
                "name": "stt",
                "containerID": "containerd://0123456789abcdef",
                "restartCount": 1,
                "state": {"running": {"startedAt": "2026-11-25T11:00:05Z"}},
                "lastState": {
                    "terminated": {
                        "exitCode": 137,
                        "reason": "OOMKilled",
                        "message": "",
                        "containerID": "containerd://before",
                    }
                },
            },
        ],
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The pod with another value at *path*, whose parts are joined by `/`."""
    body = copy.deepcopy(POD)
    *parents, last = path.split("/")
    inner: Any = body
    for part in parents:
        inner = inner[int(part) if part.isdecimal() else part]
    inner[last] = value
    return body


def test_pod_is_read_whole() -> None:
    assert ObservedPod.from_object(POD) == ObservedPod(
        name="base-5d8f7-x2x4z",
        uid="0b7c",
        created_at=datetime(2026, 11, 25, 11, 0, 0, tzinfo=UTC),
        phase="Running",
        node="node-1",
        template_hash="0123456789abcdef",
        names=("base.en", "whisper-1"),
        languages=("en", "auto"),
        is_ready=True,
        are_containers_ready=True,
        gate=Gate(True, "Warm", "warm: boot 1f2e, container 0123456789ab", "2026-11-25T11:00:09Z"),
        image="everwarm/stt:1",
        container_id="containerd://0123456789abcdef",
        is_running=True,
        restart_count=1,
        terminated=Terminated(137, "OOMKilled", "", "containerd://before"),
    )


def test_pod_that_was_just_made_is_read_with_what_it_has() -> None:
    made = ObservedPod.from_object({"metadata": {"name": "a", "uid": "b"}})
    assert made == ObservedPod(name="a", uid="b")
    assert not made.is_stopped


@given(
    st.sampled_from(
        ["metadata", "spec", "status", "status/conditions", "status/containerStatuses", "spec/containers",
         "metadata/annotations", "status/containerStatuses/1/state", "status/containerStatuses/1/containerID",
         "status/conditions/0/message", "metadata/creationTimestamp"]
    ),
    st.sampled_from([None, "x", 7, [], {}, [None], [{"x": 1}]]),
)  # fmt: skip
def test_nothing_in_a_pod_is_required_to_be_there(path: str, value: object) -> None:
    ObservedPod.from_object(changed(path, value))


def test_pod_on_its_way_out_is_deleting() -> None:
    assert ObservedPod.from_object(changed("metadata/deletionTimestamp", "2026-11-25T12:00:00Z")).is_deleting


@pytest.mark.parametrize(("phase", "is_over"), [("Failed", True), ("Succeeded", True), ("Running", False)])
def test_pod_that_has_ended_is_over(phase: str, *, is_over: bool) -> None:
    assert ObservedPod.from_object(changed("status/phase", phase)).is_over is is_over


def test_container_that_waits_is_stopped_and_says_why() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}
    pod = ObservedPod.from_object(changed("status/containerStatuses/1/state", waiting))
    assert pod.waiting == Waiting("ImagePullBackOff", "Back-off")
    assert pod.is_stopped


def test_container_that_has_ended_is_told_before_the_one_that_ended_earlier() -> None:
    ended = {
        "terminated": {"exitCode": 1, "reason": "Error", "message": "x", "containerID": "containerd://now"}
    }
    pod = ObservedPod.from_object(changed("status/containerStatuses/1/state", ended))
    assert pod.terminated == Terminated(1, "Error", "x", "containerd://now")


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [("False", "Unschedulable", "no node"), ("True", "", None), ("False", "Other", None)],
)
def test_scheduler_is_quoted_while_it_finds_no_node(status: str, reason: str, message: str | None) -> None:
    condition = {"type": "PodScheduled", "status": status, "reason": reason, "message": "no node"}
    assert ObservedPod.from_object(changed("status/conditions", [condition])).unschedulable == message


LAST_WORDS: Final = {
    "event": "pod.failed",
    "reason": "weights of model 'x': gone",
    "error": "WeightsUnavailable",
}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (json.dumps(LAST_WORDS), LAST_WORDS),
        ('{"event": "pod.state"}\n' + json.dumps(LAST_WORDS) + "\n", LAST_WORDS),
        (json.dumps(LAST_WORDS) + "\nTraceback of an exit handler", LAST_WORDS),
        ('d", "reason": "cut by the kubelet"}', {}),
        ("Killed", {}),
        ("", {}),
        ('["pod.failed"]', {}),
    ],
)
def test_last_words_are_the_pods_own_account_of_its_failure(message: str, words: dict[str, str]) -> None:
    assert Terminated(1, "Error", message, "").last_words == words


def test_deployment_is_read_whole() -> None:
    deployment = ObservedDeployment.from_object(
        {
            "metadata": {"generation": 4},
            "spec": {"replicas": 3},
            "status": {
                "observedGeneration": 4,
                "replicas": 4,
                "updatedReplicas": 2,
                "readyReplicas": 3,
                "availableReplicas": 3,
                "conditions": [
                    {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "x"},
                    {
                        "type": "ReplicaFailure",
                        "status": "True",
                        "reason": "FailedCreate",
                        "message": "quota",
                    },
                ],
            },
        }
    )
    assert deployment == ObservedDeployment(
        generation=4,
        observed_generation=4,
        wanted=3,
        replicas=4,
        updated=2,
        ready=3,
        available=3,
        progressing=DeploymentCondition(True, "ReplicaSetUpdated", "x"),
        replica_failure=DeploymentCondition(True, "FailedCreate", "quota"),
    )


@pytest.mark.parametrize(
    ("changes", "is_rolled_out"),
    [
        ({}, True),
        ({"observed_generation": 1}, False),
        ({"updated": 1}, False),
        ({"replicas": 3}, False),
        ({"wanted": 1}, False),
    ],
)
def test_deployment_is_rolled_out_when_the_pods_there_are_are_the_pods_wanted(
    changes: dict[str, Any], *, is_rolled_out: bool
) -> None:
    counts: dict[str, Any] = {
        "generation": 2,
        "observed_generation": 2,
        "wanted": 2,
        "replicas": 2,
        "updated": 2,
        **changes,
    }
    assert ObservedDeployment(**counts).is_rolled_out is is_rolled_out


def test_deployment_that_was_just_made_is_not_rolled_out() -> None:
    made = ObservedDeployment.from_object({"metadata": {"generation": 1}, "spec": {"replicas": 1}})
    assert not made.is_observed
    assert not made.is_rolled_out


def test_resource_is_read_whether_it_is_valid_or_not() -> None:
    body = {
        "metadata": {
            "namespace": "speech",
            "name": "x",
            "uid": "u",
            "generation": 3,
            "creationTimestamp": "2026-11-25T11:00:00Z",
        },
        "spec": "nonsense",
        "status": {"replicas": 1},
    }
    assert ObservedResource.from_object(body) == ObservedResource(
        "speech", "x", "u", 3, datetime(2026, 11, 25, 11, 0, 0, tzinfo=UTC), {"replicas": 1}
    )
    assert ObservedResource.from_object({}).generation == 0


def test_controller_is_the_owner_that_says_so() -> None:
    owners = [{"uid": "a"}, {"uid": "b", "controller": True}]
    owner = controller({"metadata": {"ownerReferences": owners}})
    assert owner is not None
    assert owner["uid"] == "b"
    assert controller({"metadata": {"ownerReferences": owners[:1]}}) is None
    assert controller({}) is None


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds
def test_times_are_written_in_whole_seconds_and_read_back(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment.replace(microsecond=0)


@pytest.mark.parametrize("text", [None, "", "yesterday", 7, "2026-13-01T00:00:00Z"])
def test_a_damaged_time_reads_as_none(text: object) -> None:
    assert parse_time(text) is None
