"""What a key may take: places at a time, and seconds of audio that come back at an even rate."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from everwarm.api_keys import Limits
from everwarm.gateway.limits import LEAST_S, Bucket, Caller, Utterance
from everwarm_core.errors import InternalError, RateLimited

PER_MINUTE = st.integers(1, 100_000)
SECONDS = st.floats(0, 1e5)


class Hand:
    """A clock that only moves by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(per_minute=PER_MINUTE, taken=SECONDS)
def test_bucket_lets_in_again_after_the_wait_it_tells(per_minute: int, taken: float) -> None:
    bucket = Bucket.full(per_minute, now=0.0).taken(taken)
    told_s = math.ceil(bucket.wait_s())
    assert bucket.filled(told_s).wait_s() == 0.0
    if told_s > 1:
        assert bucket.filled(told_s - 1.001).wait_s() > 0


@given(per_minute=PER_MINUTE, taken=SECONDS, steps=st.lists(st.floats(0, 100), max_size=20))
def test_bucket_fills_the_same_however_often_it_is_looked_at(
    per_minute: int, taken: float, steps: list[float]
) -> None:
    start = Bucket.full(per_minute, now=0.0).taken(taken)
    looked_at, now = start, 0.0
    for step in steps:
        now += step
        looked_at = looked_at.filled(now)
    assert looked_at.left_s == pytest.approx(start.filled(now).left_s)


@given(per_minute=PER_MINUTE, passed=SECONDS)
def test_bucket_never_holds_more_than_a_minute_s_worth(per_minute: int, passed: float) -> None:
    bucket = Bucket.full(per_minute, now=0.0).taken(5.0).filled(passed).taken(-1e6)
    assert bucket.left_s == per_minute
    assert bucket.until_full_s() == 0.0


def test_bucket_ignores_a_clock_that_runs_backwards() -> None:
    bucket = Bucket.full(60, now=10.0).taken(30.0)
    assert bucket.filled(5.0) == bucket


def test_a_caller_without_limits_is_never_refused_and_told_nothing() -> None:
    caller = Caller()
    with caller.utterance(1e6), caller.utterance(1e6), caller.utterance() as last:
        assert last.headers() == caller.headers() == {}


def test_a_place_is_free_again_however_its_utterance_ended() -> None:
    caller = Caller("desk", Limits(concurrent=1))
    for _ in range(2):
        with (
            pytest.raises(RateLimited, match="1 utterance at a time"),
            caller.utterance(),
            caller.utterance(),
        ):
            pass
        with pytest.raises(InternalError), caller.utterance():
            raise InternalError("a defect")
    assert caller.held == 0


def test_seconds_beyond_what_is_left_are_owed_and_waited_for() -> None:
    clock = Hand()
    caller = Caller("desk", Limits(audio_s_per_minute=60), clock=clock)
    with caller.utterance(90.0):
        pass
    with pytest.raises(RateLimited, match="60 s of audio a minute") as refused, caller.utterance():
        pass
    assert refused.value.retry_after_s == 30.0 + LEAST_S
    clock.now += 31.0
    with caller.utterance():
        pass


def test_a_better_known_length_replaces_what_was_taken_before() -> None:
    caller = Caller("desk", Limits(audio_s_per_minute=60), clock=Hand())
    with caller.utterance() as utterance:
        utterance.costs(50.0)
        utterance.costs(10.0)
    assert caller.headers()["x-ratelimit-remaining-audio-seconds"] == "50"


def test_an_utterance_that_fails_costs_nothing_and_one_whose_caller_left_does() -> None:
    caller = Caller("desk", Limits(audio_s_per_minute=60), clock=Hand())
    with pytest.raises(InternalError), caller.utterance(20.0):
        raise InternalError("a defect")
    assert caller.headers()["x-ratelimit-remaining-audio-seconds"] == "60"
    with pytest.raises(ConnectionError), caller.utterance(20.0):
        raise ConnectionError
    assert caller.headers()["x-ratelimit-remaining-audio-seconds"] == "40"


def test_looks_at_idle_slots_cost_nothing_and_take_no_utterance_s_place() -> None:
    caller = Caller("desk", Limits(concurrent=1, audio_s_per_minute=60), clock=Hand())
    with caller.utterance(is_glance=True) as glance, caller.utterance(20.0):
        glance.costs(30.0)
        with pytest.raises(RateLimited, match="1 utterance at a time"), caller.utterance(is_glance=True):
            pass
    with caller.utterance(is_glance=True) as glance:
        assert glance.headers()["x-ratelimit-remaining-requests"] == "1"
        assert glance.headers()["x-ratelimit-remaining-audio-seconds"] == "40"
    assert (caller.held, caller.glances) == (0, 0)


def test_headers_say_what_is_there_for_the_next_request() -> None:
    clock = Hand()
    caller = Caller("desk", Limits(concurrent=2, audio_s_per_minute=60), clock=clock)
    with caller.utterance(30.5) as first:
        assert first.headers() == {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "2",
            "x-ratelimit-limit-audio-seconds": "60",
            "x-ratelimit-remaining-audio-seconds": "29",
            "x-ratelimit-reset-audio-seconds": "31s",
        }
        with caller.utterance(90.0) as second:
            assert second.headers()["x-ratelimit-remaining-requests"] == "1"
            assert second.headers()["x-ratelimit-remaining-audio-seconds"] == "0"
            assert caller.headers()["x-ratelimit-remaining-requests"] == "0"
    assert first.headers()["x-ratelimit-remaining-requests"] == "2"


class Callers(RuleBasedStateMachine):
    """Utterances of one caller as they may come, and a clock: the limits hold whatever the order."""

    utterances = Bundle("utterances")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Hand()
        self.caller = Caller("desk", Limits(concurrent=3, audio_s_per_minute=60), clock=self.clock)
        self.let_in_s = 0.0
        self.open: list[Utterance] = []

    @rule(target=utterances, audio_s=st.floats(0, 120))
    def begin(self, audio_s: float) -> Utterance:
        utterance = self.caller.utterance(audio_s)
        with suppress(RateLimited):
            utterance.__enter__()
            self.let_in_s += audio_s
            self.open.append(utterance)
        return utterance

    @rule(utterance=consumes(utterances))
    def end(self, utterance: Utterance) -> None:
        if utterance in self.open:
            self.open.remove(utterance)
            utterance.__exit__(None, None, None)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def no_more_at_a_time_than_allowed(self) -> None:
        assert len(self.open) == self.caller.held <= 3

    @invariant()
    def no_more_over_time_than_allowed(self) -> None:
        """A minute's worth at first, the rate after it, and the debt of one utterance at most."""
        assert self.let_in_s <= 60.0 + (self.clock.now - 1000.0) + 120.0 + 1e-6


TestCallers = Callers.TestCase
