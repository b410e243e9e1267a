"""Every claim of the demo can fail, and fails for its own reason alone."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from everwarm.demo.claims import break_even, claims
from everwarm.demo.clips import Clip, schedule
from everwarm.demo.measure import Sample, peak_bytes, peak_cpu_percent, steady_bytes
from everwarm.demo.protocol import Answer, Order, read_answer, read_order, write
from everwarm.demo.report import as_json, broken, comparison, proof, who_served
from everwarm.demo.results import Played, Way, WayResult
from everwarm.demo.run import SceneResult

CLIPS = tuple(Clip(Path(f"{name}.flac"), f"say {name} now", 2.0) for name in "abcd")
TURNS = schedule(CLIPS, workers=4, full_rounds=0)


def way(kind: Way, *, first_s: float, later_s: float, **figures: Any) -> WayResult:
    played = tuple(
        Played(
            turn,
            Answer(
                first_s if turn.is_first else later_s,
                turn.clip.text.title() + ".",
                f"pod-{number % 2}" if kind is Way.EVERWARM else "itself",
            ),
        )
        for number, turn in enumerate(TURNS)
    )
    return WayResult(kind, "tiny.en", played, **figures)


def measured(*, cpu_s: float, worker_loads: int, steady: int, workers: int, **more: Any) -> dict[str, Any]:
    return {
        "worker_loads": worker_loads,
        "pod_loads": 0,
        "pods": (),
        "memory_peak": steady * 2,
        "memory_steady": steady,
        "memory_workers": workers,
        "cpu_s": cpu_s,
        "cpu_peak_percent": 100.0,
        "mapped": (),
        **more,
    }


BEFORE = way(
    Way.BEFORE,
    first_s=2.0,
    later_s=2.0,
    **measured(cpu_s=24.0, worker_loads=len(TURNS), steady=900, workers=900, mapped=("ctranslate2",)),
)
CACHED = way(
    Way.CACHED,
    first_s=2.0,
    later_s=1.0,
    **measured(cpu_s=14.0, worker_loads=4, steady=800, workers=800, mapped=("ctranslate2",)),
)
EVERWARM = way(
    Way.EVERWARM,
    first_s=1.1,
    later_s=1.0,
    **measured(cpu_s=12.0, worker_loads=0, steady=700, workers=200, pod_loads=2, pods=("pod-0", "pod-1")),
)


def broken_by(
    everwarm: WayResult = EVERWARM, before: WayResult = BEFORE, cached: WayResult = CACHED
) -> set[str]:
    return {claim.name for claim in claims(before, cached, everwarm) if not claim.held}


def answered(result: WayResult, number: int, **changes: Any) -> WayResult:
    """*result* with its answer *number* changed."""
    played = list(result.played)
    played[number] = replace(played[number], answer=replace(played[number].answer, **changes))
    return replace(result, played=tuple(played))


def test_every_claim_holds_when_everything_is_as_promised() -> None:
    assert broken_by() == set()


@pytest.mark.parametrize(
    ("everwarm", "claim"),
    [
        (replace(EVERWARM, pod_loads=3), "loads"),
        (replace(EVERWARM, worker_loads=1), "loads"),
        (replace(EVERWARM, mapped=("ctranslate2",)), "empty workers"),
        (answered(EVERWARM, 3, libraries=("faster_whisper",)), "empty workers"),
        (replace(EVERWARM, memory_workers=801), "memory"),
        (replace(EVERWARM, cpu_s=25.0), "cpu"),
        (answered(EVERWARM, 5, error="pod failed"), "answered"),
        (answered(EVERWARM, 6, text="Say something else."), "equal transcripts"),
    ],
)
def test_claim_breaks_alone_when_its_own_promise_does(everwarm: WayResult, claim: str) -> None:
    assert broken_by(everwarm) == {claim}


def test_claim_of_the_first_request_breaks_when_it_waits_for_a_load() -> None:
    slow = EVERWARM
    for number in (number for number, turn in enumerate(TURNS) if turn.is_first and number > 0):
        slow = answered(slow, number, seconds=2.0)
    assert broken_by(slow) == {"first request"}


def test_claim_of_readiness_breaks_when_only_the_pods_first_requests_are_slow() -> None:
    """The workers' median hides one slow request of four; the pods' own does not."""
    slow = answered(answered(EVERWARM, 0, seconds=1.6), 1, seconds=1.6)
    assert broken_by(slow) == {"warm when ready"}


def test_claims_about_time_hold_when_the_machine_slows_down_for_a_while() -> None:
    slow = EVERWARM
    for number, turn in enumerate(TURNS):
        if turn.round in (0, 2):
            slow = answered(slow, number, seconds=3 * EVERWARM.played[number].answer.seconds)
    assert broken_by(slow) == set()


def test_claim_of_right_transcripts_breaks_when_all_ways_hear_the_same_wrong_words() -> None:
    cached, everwarm = CACHED, EVERWARM
    for number in range(len(TURNS)):
        cached = answered(cached, number, text="nothing of the sort")
        everwarm = answered(everwarm, number, text="nothing of the sort")
    assert broken_by(everwarm, cached=cached) == {"right transcripts"}


@pytest.mark.parametrize(
    "others",
    [{"before": replace(BEFORE, worker_loads=len(TURNS) - 1)}, {"cached": replace(CACHED, worker_loads=3)}],
)
def test_claim_of_a_fair_comparison_breaks_when_a_way_is_not_what_it_is_called(
    others: dict[str, WayResult],
) -> None:
    assert broken_by(**others) == {"comparison"}


def test_break_even_is_the_first_number_of_workers_that_pays() -> None:
    assert break_even(CACHED, EVERWARM) == 4  # 200 a worker with a model, 50 without, and 500 besides
    assert break_even(CACHED, replace(EVERWARM, memory_workers=800)) is None


def test_report_shows_every_row_pod_and_claim() -> None:
    result = SceneResult("tiny.en", (BEFORE, CACHED, EVERWARM), claims(BEFORE, CACHED, EVERWARM))
    out = StringIO()
    console = Console(file=out, width=120)
    console.print(comparison(result), who_served(result), proof(result))
    for shown in ("first request", "later requests", "memory, steady", "model loads", "pod-0", "pod-1"):
        assert shown in out.getvalue()
    assert out.getvalue().count("holds  ") == len(result.claims)


def test_json_says_which_claims_broke_and_holds_no_transcripts() -> None:
    failing = replace(EVERWARM, pod_loads=3)
    result = SceneResult("tiny.en", (BEFORE, CACHED, failing), claims(BEFORE, CACHED, failing))
    assert broken([result]) == ("tiny.en: loads",)
    told = as_json([result])
    assert (told["held"], told["broken"]) == (False, ["tiny.en: loads"])
    assert "say a now" not in str(told).lower()


def test_messages_survive_their_way_over_the_wire() -> None:
    answer = Answer(1.5, "Grüße,\nyou", "pod", None, ("ctranslate2",))
    assert read_answer(write(answer)) == answer
    assert read_order(write(Order("/tmp/é.flac"))) == Order("/tmp/é.flac")
    assert write(answer).count(b"\n") == 1


def test_figures_are_read_off_the_samples() -> None:
    samples = [Sample(float(at), {1: 100 + at, 2: 10}, cpu_s=at * 0.5) for at in range(5)]
    assert peak_bytes(samples) == 114
    assert steady_bytes(samples, since=2) == 113
    assert steady_bytes(samples, since=2, pids={2}) == 10
    assert peak_cpu_percent(samples, since=0, window_s=1) == pytest.approx(50)
