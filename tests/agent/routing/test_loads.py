"""What an agent remembers of the pods it used."""

from everwarm.routing.loads import EJECTION_BASE_S, EJECTION_MAX_S, FAILURES_TO_EJECT, Loads, Standing
from everwarm_core.registry.records import Lease, PodRecord, Snapshot
from tests.fixtures.records import pod_record


class Time:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(loads: Loads, pod: PodRecord, times: int) -> None:
    for _ in range(times):
        loads.failed(loads.started(pod, 2.0), 2.0)


def snapshot(*pods: PodRecord, taken_at: float) -> Snapshot:
    return Snapshot(taken_at=taken_at, epoch="one", leases=tuple(Lease(pod, taken_at + 5) for pod in pods))


def test_loads_count_own_requests_at_once_and_others_as_told() -> None:
    time, pod = Time(), pod_record(inflight=3, slots=4)
    loads = Loads(time)
    first = loads.started(pod, 2.0)
    loads.started(pod, 2.0)
    assert loads.inflight(pod) == 5
    loads.succeeded(first, 2.0, service_s=0.2, inflight=2, slots=4)
    assert loads.inflight(pod) == 2  # one of ours is left, and one of somebody else's


def test_loads_believe_a_refusal_more_than_the_record_that_is_as_old() -> None:
    time, pod = Time(), pod_record(inflight=0, slots=1, queue=1)
    loads = Loads(time)
    loads.refused(loads.started(pod, 2.0), 2.0, inflight=None, slots=None)
    loads.observe(snapshot(pod, taken_at=time.now + 0.5))
    assert loads.standing(pod, now=time.now) is Standing.BUSY
    loads.observe(snapshot(pod, taken_at=time.now + 2))
    assert loads.standing(pod, now=time.now) is Standing.IDLE


def test_loads_cost_nothing_once_everything_has_ended() -> None:
    pod = pod_record()
    loads = Loads(Time())
    empty = loads.expected_s(pod, 2.0)
    sent = [loads.started(pod, seconds) for seconds in (0.1, 0.7, 12.3)]
    assert loads.expected_s(pod, 2.0) > empty
    for load, seconds in zip(sent, (0.1, 0.7, 12.3), strict=True):
        loads.abandoned(load, seconds)
    assert loads.expected_s(pod, 2.0) == empty


def test_a_pod_is_ejected_after_five_failures_in_a_row() -> None:
    time, pod = Time(), pod_record()
    loads = Loads(time)
    fail(loads, pod, FAILURES_TO_EJECT - 1)
    assert loads.standing(pod, now=time.now) is not Standing.EJECTED
    fail(loads, pod, 1)
    assert loads.standing(pod, now=time.now) is Standing.EJECTED
    assert loads.standing(pod, now=time.now + EJECTION_BASE_S + 0.1) is not Standing.EJECTED


def test_a_pod_is_ejected_for_twice_as_long_each_time_up_to_a_limit() -> None:
    time, pod = Time(), pod_record()
    loads = Loads(time)
    fail(loads, pod, FAILURES_TO_EJECT - 1)
    for times in range(8):
        fail(loads, pod, 1)
        span = min(EJECTION_MAX_S, EJECTION_BASE_S * 2**times)
        assert loads.standing(pod, now=time.now + span - 0.1) is Standing.EJECTED
        time.now += span + 0.1
        assert loads.standing(pod, now=time.now) is not Standing.EJECTED


def test_a_success_ends_the_ejection_and_its_history() -> None:
    time, pod = Time(), pod_record()
    loads = Loads(time)
    fail(loads, pod, FAILURES_TO_EJECT)
    loads.succeeded(loads.started(pod, 2.0), 2.0, service_s=0.2, inflight=0, slots=2)
    assert loads.standing(pod, now=time.now) is not Standing.EJECTED
    fail(loads, pod, FAILURES_TO_EJECT)
    assert loads.standing(pod, now=time.now + EJECTION_BASE_S + 0.1) is not Standing.EJECTED


def test_a_new_process_under_the_same_id_starts_with_a_clean_record() -> None:
    time, pod = Time(), pod_record(boot="one")
    loads = Loads(time)
    fail(loads, pod, FAILURES_TO_EJECT)
    reborn = pod_record(boot="two")
    assert loads.standing(reborn, now=time.now) is not Standing.EJECTED
    assert loads.inflight(reborn) == reborn.inflight


def test_loads_forget_pods_that_left_the_registry() -> None:
    time, pod = Time(), pod_record()
    loads = Loads(time)
    loads.abandoned(loads.started(pod, 2.0), 2.0)
    loads.observe(snapshot(taken_at=time.now + 1))
    assert list(loads) == []


def test_loads_remember_pods_while_the_registry_is_out_of_reach() -> None:
    time, pod = Time(), pod_record()
    loads = Loads(time)
    fail(loads, pod, 1)
    loads.observe(Snapshot(taken_at=time.now + 1, epoch="one", leases=(), frozen=True))
    assert list(loads) == [pod.id]


def test_a_draining_pod_is_left_alone_before_the_registry_says_so() -> None:
    time, pod = Time(), pod_record()
    loads = Loads(time)
    loads.closed(loads.started(pod, 2.0), 2.0)
    assert loads.standing(pod, now=time.now) is Standing.CLOSED
    assert loads.standing(pod, now=time.now + 60) is not Standing.CLOSED
