"""What a resource says of itself: conditions with reasons a person can act on, and numbers."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from everwarm_core.errors import SpecError
from everwarm_core.spec import WhisperModel
from everwarm_operator.desired import desired_objects
from everwarm_operator.observed import (
    DeploymentCondition,
    ObservedDeployment,
    ObservedPod,
    ObservedResource,
    Waiting,
)
from everwarm_operator.problems import (
    Problem,
    ProblemReason,
    Rival,
    deployment_problems,
    foreign_object,
    invalid_spec,
    most_telling,
    pod_problems,
    taken_name,
)
from everwarm_operator.status import (
    Condition,
    ConditionType,
    Counts,
    conditions,
    rejected_status,
    whole_status,
)
from tests.fixtures.records import pod_record
from tests.operator.worlds import (
    NOW,
    OWNER,
    PLATFORM,
    failed,
    live_objects,
    pod,
    resource,
    template_hash,
    waiting_pod,
    warm_pod,
    whisper_model,
)

ROLLED_OUT = ObservedDeployment(
    generation=1, observed_generation=1, wanted=2, replicas=2, updated=2, ready=2, available=2
)
TWO = whisper_model(replicas=2)
BROKEN = Problem(ProblemReason.IMAGE_NOT_PULLED, "image 'x' cannot be pulled: not found")
PASSING = Problem(ProblemReason.UNSCHEDULABLE, "no node takes a pod: Insufficient cpu", stalls=False)
OVERDUE = Problem(ProblemReason.PROGRESS_DEADLINE_EXCEEDED, "too late")
TAKEN = Problem(ProblemReason.NAME_TAKEN, "metadata.name: 'x' is claimed")


def counts(serving: int, of: int = 2) -> Counts:
    """*serving* of these pods are warm and Ready."""
    return Counts(replicas=of, ready=serving, warm=serving, serving=serving)


def told(
    *problems: Problem,
    serving: int = 2,
    model: WhisperModel = TWO,
    deployment: ObservedDeployment | None = ROLLED_OUT,
) -> dict[str, tuple[bool, str]]:
    """The conditions by type: whether each is true, and its reason."""
    found = conditions(model, counts=counts(serving), deployment=deployment, problems=problems)
    return {each.type.value: (each.is_true, str(each.reason)) for each in found}


# --- Conditions ----------------------------------------------------------------------------------------------------


def test_resource_whose_pods_are_all_warm_is_ready_and_settled() -> None:
    assert told() == {
        "Ready": (True, "AllPodsWarm"),
        "Reconciling": (False, "Settled"),
        "Stalled": (False, "NotStalled"),
    }


def test_resource_that_waits_for_warm_pods_says_so() -> None:
    assert told(serving=1) == {
        "Ready": (False, "WaitingForWarmPods"),
        "Reconciling": (True, "WaitingForWarmPods"),
        "Stalled": (False, "NotStalled"),
    }


def test_resource_at_zero_replicas_is_ready() -> None:
    empty = replace(ROLLED_OUT, wanted=0, replicas=0, updated=0)
    assert told(serving=0, model=whisper_model(replicas=0), deployment=empty) == {
        "Ready": (True, "ScaledToZero"),
        "Reconciling": (False, "Settled"),
        "Stalled": (False, "NotStalled"),
    }


@pytest.mark.parametrize(
    "deployment",
    [
        None,
        replace(ROLLED_OUT, generation=2),
        replace(ROLLED_OUT, updated=1),
        replace(ROLLED_OUT, replicas=3),
        replace(ROLLED_OUT, wanted=3, replicas=3, updated=3),
    ],
)
def test_resource_stays_ready_while_it_is_rolled_out(deployment: ObservedDeployment | None) -> None:
    assert told(deployment=deployment) == {
        "Ready": (True, "AllPodsWarm"),
        "Reconciling": (True, "RollingOut"),
        "Stalled": (False, "NotStalled"),
    }


def test_resource_that_somebody_must_repair_is_stalled_and_no_longer_reconciling() -> None:
    """Tools look at Reconciling first, and would wait for ever."""
    assert told(BROKEN, serving=0) == {
        "Ready": (False, "ImageNotPulled"),
        "Reconciling": (False, "Stalled"),
        "Stalled": (True, "ImageNotPulled"),
    }


def test_resource_whose_pods_still_serve_is_ready_though_its_rollout_is_stalled() -> None:
    assert told(BROKEN, deployment=replace(ROLLED_OUT, updated=1, replicas=3))["Ready"] == (
        True,
        "AllPodsWarm",
    )


def test_problem_that_may_pass_is_told_and_does_not_stall() -> None:
    """A node may be on its way."""
    assert told(PASSING, serving=1) == {
        "Ready": (False, "Unschedulable"),
        "Reconciling": (True, "Unschedulable"),
        "Stalled": (False, "NotStalled"),
    }


def test_problem_that_did_not_pass_in_time_stalls() -> None:
    assert told(PASSING, OVERDUE, serving=1)["Stalled"] == (True, "Unschedulable")


def test_rollout_without_room_for_one_pod_more_says_what_it_needs() -> None:
    """The last GPU is taken by the pod that is to be replaced."""
    found = conditions(
        TWO, counts=counts(2), deployment=replace(ROLLED_OUT, updated=1, replicas=3), problems=[PASSING]
    )
    reconciling = next(each for each in found if each.type is ConditionType.RECONCILING)
    assert reconciling.message.endswith("a rollout needs room for one pod more")


def test_resource_that_may_not_be_applied_is_not_ready_whatever_its_pods_do() -> None:
    assert told(TAKEN) == {
        "Ready": (False, "NameTaken"),
        "Reconciling": (False, "Stalled"),
        "Stalled": (True, "NameTaken"),
    }


def test_the_first_problem_in_order_is_told() -> None:
    assert most_telling([OVERDUE, PASSING, BROKEN]) is BROKEN
    assert most_telling([]) is None


@pytest.mark.parametrize("problem", [None, BROKEN, PASSING, TAKEN])
@pytest.mark.parametrize("serving", [0, 2])
def test_every_condition_has_one_word_as_reason_and_a_message(problem: Problem | None, serving: int) -> None:
    problems = [problem] if problem else []
    for each in conditions(TWO, counts=counts(serving), deployment=ROLLED_OUT, problems=problems):
        assert str(each.reason).isalpha()
        assert each.message


# --- Times and the rest of the status ------------------------------------------------------------------------------

LATER = datetime(2026, 11, 25, 13, 0, 0, tzinfo=UTC)
READY = (Condition(ConditionType.READY, True, "AllPodsWarm", "2 of 2 pods are warm"),)
WAITING = (Condition(ConditionType.READY, False, "WaitingForWarmPods", "1 of 2 pods are warm"),)


def status(
    states: tuple[Condition, ...] = READY, previous: dict[str, Any] | None = None, at: datetime = NOW.wall
) -> dict[str, Any]:
    """The whole status."""
    records = [pod_record(load_s=0.51234, warm_s=0.5), pod_record(load_s=0.1, warm_s=1.25678)]
    return whole_status(
        TWO, generation=3, counts=counts(2), records=records, states=states, previous=previous or {}, now=at
    )


def test_status_says_all_that_the_contract_names() -> None:
    assert status() == {
        "observedGeneration": 3,
        "replicas": 2,
        "readyReplicas": 2,
        "warmReplicas": 2,
        "selector": "app.kubernetes.io/component=stt,app.kubernetes.io/instance=base-en-06c9d22c,"
        "app.kubernetes.io/name=everwarm-stt",
        "model": "base.en",
        "names": ["base.en"],
        "languages": ["en"],
        "loadSeconds": 0.51,
        "warmSeconds": 1.26,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AllPodsWarm",
                "message": "2 of 2 pods are warm",
                "lastTransitionTime": "2026-11-25T12:00:00Z",
                "observedGeneration": 3,
            }
        ],
    }


def test_status_that_says_the_same_later_is_the_same() -> None:
    assert status(previous=status(), at=LATER) == status()


def test_transition_time_moves_with_the_status_of_its_condition_only() -> None:
    other_words = (replace(READY[0], reason="ScaledToZero", message="x"),)
    (kept,) = status(other_words, status(), LATER)["conditions"]
    (moved,) = status(WAITING, status(), LATER)["conditions"]
    assert kept["lastTransitionTime"] == "2026-11-25T12:00:00Z"
    assert moved["lastTransitionTime"] == "2026-11-25T13:00:00Z"


@pytest.mark.parametrize(
    "previous",
    [{"conditions": None}, {"conditions": ["x"]}, {"conditions": [{"type": "Ready", "status": "True"}]}],
)
def test_damaged_conditions_are_written_anew(previous: dict[str, Any]) -> None:
    (written,) = status(previous=previous)["conditions"]
    assert written["lastTransitionTime"] == "2026-11-25T12:00:00Z"


def test_seconds_stand_while_nobody_is_warm() -> None:
    kept = whole_status(
        TWO, generation=3, counts=counts(0), records=[], states=READY, previous=status(), now=NOW.wall
    )
    assert (kept["loadSeconds"], kept["warmSeconds"]) == (0.51, 1.26)


def test_spec_that_means_nothing_stalls_and_leaves_the_numbers() -> None:
    error = SpecError("x", (("spec.languages", "each at most once"), ("spec.slots", "too many")))
    rejected = rejected_status(
        invalid_spec(error), generation=4, counts=counts(1), previous=status(), now=LATER
    )
    assert (rejected["warmReplicas"], rejected["names"]) == (1, ["base.en"])
    assert rejected["observedGeneration"] == 4
    stalled = next(each for each in rejected["conditions"] if each["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert stalled["message"] == "spec.languages: each at most once; spec.slots: too many"


# --- Problems that pods have ---------------------------------------------------------------------------------------


def last_words(reason: str, error: str) -> str:
    """The last line of log of a pod that failed."""
    return json.dumps({"event": "pod.failed", "reason": reason, "error": error})


WEIGHTS = failed(last_words("weights of model 'base.en': /weights lacks model.bin", "WeightsUnavailable"))
LOOPING: dict[str, Any] = {
    "is_running": False,
    "waiting": Waiting("CrashLoopBackOff", "back-off 10s restarting failed container"),
}
PODS = [
    (waiting_pod("ImagePullBackOff", 'Back-off pulling image "x"'), "ImageNotPulled", "cannot be pulled"),
    (waiting_pod("ErrImagePull", "not found"), "ImageNotPulled", "image 'everwarm/stt:1.0.0' cannot be pulled: not found"),
    (waiting_pod("InvalidImageName", "couldn't parse"), "ImageNotPulled", "couldn't parse"),
    (waiting_pod("CreateContainerConfigError", 'secret "hub" not found'), "ContainerNotCreated", 'secret "hub" not found'),
    (pod(terminated=WEIGHTS, **LOOPING), "WeightsNotFound", "/weights lacks model.bin"),
    (pod(terminated=WEIGHTS), "WeightsNotFound", "/weights lacks model.bin"),
    (pod(terminated=failed(last_words("still loading after 600 s", "WarmupFailed"))), "WarmupFailed", "after 600 s"),
    (pod(terminated=failed(last_words("bad", "SpecError"))), "PodsFail", "bad"),
    (pod(terminated=failed(reason="OOMKilled", exit_code=137), **LOOPING), "OutOfMemory", "raise spec.template.resources"),
    (pod(terminated=failed("Segmentation fault", exit_code=139), **LOOPING), "PodsFail", "exit code 139: Segmentation fault"),
    (pod(terminated=failed("x"), restart_count=2), "PodsFail", "exit code 1: x"),
    (pod(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "Unschedulable", "nvidia.com/gpu"),
    (pod(unschedulable='0/1 nodes are available: persistentvolumeclaim "weights" not found.'), "ClaimNotFound", "'weights'"),
]  # fmt: skip


def problem_of(*pods: ObservedPod) -> Problem | None:
    """The problem that these pods have."""
    return most_telling(pod_problems(pods, template_hash=template_hash(whisper_model())))


@pytest.mark.parametrize(("of", "reason", "words"), PODS, ids=[f"{case[1]}-{case[2]}" for case in PODS])
def test_trouble_of_a_pod_is_told_with_a_reason_to_act_on(of: ObservedPod, reason: str, words: str) -> None:
    problem = problem_of(of)
    assert problem is not None
    assert problem.reason == reason
    assert words in problem.message


def test_only_a_missing_node_may_come_by_itself() -> None:
    assert {problem.reason for each, *_ in PODS if (problem := problem_of(each)) and not problem.stalls} == {
        ProblemReason.UNSCHEDULABLE
    }


@pytest.mark.parametrize(("of", "reason", "words"), PODS, ids=[f"{case[1]}-{case[2]}" for case in PODS])
@pytest.mark.parametrize(
    "change",
    [
        {"is_ready": True},
        {"is_deleting": True},
        {"phase": "Failed"},
        {"template_hash": "of another generation"},
    ],
    ids=str,
)
def test_trouble_that_is_over_or_being_replaced_is_not_told(
    of: ObservedPod, reason: str, words: str, change: dict[str, Any]
) -> None:
    assert problem_of(replace(of, **change)) is None


def test_one_crash_of_a_pod_is_no_problem_yet() -> None:
    assert problem_of(pod(terminated=failed("x"), restart_count=1)) is None


def test_a_failure_is_over_once_a_later_process_was_warm() -> None:
    """A pod that is not Ready for a moment is not told to have lost its weights last week."""
    was_warm = warm_pod(terminated=WEIGHTS, restart_count=3, is_ready=False)
    assert problem_of(was_warm) is None


def test_a_pod_that_ended_well_has_no_problem() -> None:
    assert problem_of(pod(terminated=failed("x", exit_code=0), restart_count=5)) is None


def test_kubelets_two_ways_to_say_that_an_image_is_missing_are_told_as_one() -> None:
    """It says them in turn, and each turn would be a write."""
    error = waiting_pod("ErrImagePull", "failed to pull: not found")
    back_off = waiting_pod(
        "ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: failed to pull: not found'
    )
    assert problem_of(error) == problem_of(back_off)


def test_pods_in_any_order_have_the_same_problem() -> None:
    one = waiting_pod("ErrImagePull", "first", name="pod-a")
    other = waiting_pod("ErrImagePull", "second", name="pod-b")
    assert problem_of(one, other) == problem_of(other, one)


def test_long_messages_are_shortened() -> None:
    problem = problem_of(waiting_pod("ErrImagePull", "x" * 5000))
    assert problem is not None
    assert len(problem.message) <= 1000


# --- Problems that a Deployment has --------------------------------------------------------------------------------

REFUSED = [
    ('pods "base-1-abc" is forbidden: exceeded quota: gpus, requested: 1', "QuotaExceeded", "raise the quota"),
    ('pods "base-1-abc" is forbidden: violates PodSecurity "restricted:latest": x', "ForbiddenByPodSecurity", "violates"),
    ('pods "base-1-abc" is forbidden: error looking up service account', "PodsRefused", "service account"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "reason", "words"), REFUSED, ids=[case[1] for case in REFUSED])
def test_pods_that_are_refused_are_told_with_what_to_do(message: str, reason: str, words: str) -> None:
    failing = replace(ROLLED_OUT, replica_failure=DeploymentCondition(True, "FailedCreate", message))
    (problem,) = deployment_problems(failing)
    assert problem.reason == reason
    assert words in problem.message
    assert "base-1-abc" not in problem.message, "another name at each try would be a write at each try"


def test_rollout_that_takes_too_long_is_told() -> None:
    late = replace(ROLLED_OUT, progressing=DeploymentCondition(False, "ProgressDeadlineExceeded", "x"))
    (problem,) = deployment_problems(late)
    assert problem.reason is ProblemReason.PROGRESS_DEADLINE_EXCEEDED
    assert problem.stalls


def test_healthy_deployment_has_no_problem() -> None:
    healthy = replace(
        ROLLED_OUT,
        progressing=DeploymentCondition(True, "NewReplicaSetAvailable", "x"),
        replica_failure=DeploymentCondition(False, "", ""),
    )
    assert list(deployment_problems(healthy)) == []


# --- Names and objects that belong to others -----------------------------------------------------------------------


def rival(name: str, *, hour: int, **spec: Any) -> Rival:
    """A resource made at that hour; `resource()` is of 11:00."""
    created_at = datetime(2026, 11, 25, hour, 0, 0, tzinfo=UTC)
    return Rival(whisper_model(name, **spec), resource(name=name, uid=f"uid-{name}", created_at=created_at))


def name_problem(model: WhisperModel, *rivals: Rival) -> Problem | None:
    """What is wrong with the names of *model*, which was made at 11:00."""
    return taken_name(model, resource(name=model.name), rivals)


def test_alias_of_an_older_resource_is_taken() -> None:
    problem = name_problem(
        whisper_model("b", aliases=["whisper-1"]), rival("a", hour=10, aliases=["whisper-1"])
    )
    assert problem is not None
    assert problem.message == (
        "spec.aliases[0]: 'whisper-1' is claimed by resource 'a' already; choose another one"
    )


def test_older_resource_keeps_its_alias() -> None:
    assert (
        name_problem(whisper_model("a", aliases=["whisper-1"]), rival("b", hour=12, aliases=["whisper-1"]))
        is None
    )


def test_of_two_resources_of_the_same_second_exactly_one_keeps_the_alias() -> None:
    one, other = rival("a", hour=10, aliases=["x"]), rival("b", hour=10, aliases=["x"])
    lost = [taken_name(each.model, each.resource, [one, other]) for each in (one, other)]
    assert sum(problem is not None for problem in lost) == 1


def test_equal_models_pool_their_pods() -> None:
    assert name_problem(whisper_model("b"), rival("a", hour=10)) is None


def test_model_that_an_older_resource_uses_as_a_name_is_taken() -> None:
    """Pods of two models would answer to one name."""
    problem = name_problem(whisper_model("b", model="tiny.en"), rival("a", hour=10, aliases=["tiny.en"]))
    assert problem is not None
    assert problem.message.startswith("spec.model: 'tiny.en' is a name of resource 'a'")


def test_a_resource_is_no_rival_of_itself() -> None:
    model = whisper_model("base.en", aliases=["x"])
    itself = Rival(model, resource())
    assert taken_name(model, resource(), [itself]) is None


def foreign(change: dict[str, Any], of: ObservedResource | None = None) -> Problem | None:
    """The problem with a live Service whose metadata was changed."""
    objects = live_objects(TWO)
    objects["Service", "base-en-06c9d22c"]["metadata"].update(change)
    made = desired_objects(TWO, owner=OWNER, platform=PLATFORM)
    return foreign_object(made, objects, of or resource())


def test_own_objects_are_ours() -> None:
    assert foreign({}) is None


SOMEBODY: dict[str, Any] = {"kind": "Other", "name": "x", "uid": "u", "controller": True}


@pytest.mark.parametrize(
    "change",
    [{"ownerReferences": [SOMEBODY]}, {"ownerReferences": [], "annotations": {}}],
    ids=["owned", "plain"],
)
def test_object_of_somebody_else_is_not_taken_over(change: dict[str, Any]) -> None:
    problem = foreign(change)
    assert problem is not None
    assert problem.reason is ProblemReason.OBJECT_NOT_OURS
    assert problem.stalls
    assert "Service 'base-en-06c9d22c'" in problem.message


def test_object_that_lost_its_owner_reference_is_taken_back() -> None:
    assert foreign({"ownerReferences": []}) is None


def test_object_of_an_earlier_resource_of_the_name_is_waited_for() -> None:
    problem = foreign({}, resource(uid="uid-of-its-successor"))
    assert problem is not None
    assert problem.blocks
    assert not problem.stalls
