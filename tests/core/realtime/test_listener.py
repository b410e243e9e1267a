"""A stream becomes utterances in order, each with one outcome, whatever the transcriber does; decodes come early in pauses.

The speech and the detector are real; the transcriber is a script, for its faults and its timing are what is looked at.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from everwarm_core.errors import NothingToCommit, PodFailed, UtteranceTooLong
from everwarm_core.realtime.audio import SAMPLE_RATE, Samples
from everwarm_core.realtime.endpoint import Endpointing
from everwarm_core.realtime.listener import (
    Committed,
    Completed,
    Failed,
    Foreseen,
    Habits,
    Happening,
    Interim,
    Listener,
    SpeechStarted,
    SpeechStopped,
    Transcriber,
    Utterance,
    Wish,
)
from everwarm_core.transcript import Transcript
from tests.support.speech import clips

PIECE = SAMPLE_RATE // 10
SHORT_PAUSE = np.zeros(SAMPLE_RATE // 4, np.int16)
PAUSE = np.zeros(SAMPLE_RATE, np.int16)
FIRST, SECOND = clips()[0].samples(), clips()[1].samples()


@dataclass
class Script(Transcriber):
    """A transcriber that answers with the utterance's length, when it is let."""

    may_glance: bool = True
    finals: list[Utterance] = field(default_factory=list)
    glances: list[Utterance] = field(default_factory=list)
    adopted: list[Utterance] = field(default_factory=list)
    answer: Callable[[Utterance], "asyncio.Future[Transcript] | Transcript"] | None = None

    async def transcribe(self, utterance: Utterance) -> Transcript:
        self.finals.append(utterance)
        if self.answer is None:
            return transcript_of(utterance)
        answered = self.answer(utterance)
        return await answered if isinstance(answered, asyncio.Future) else answered

    async def glance(self, utterance: Utterance) -> Transcript | None:
        self.glances.append(utterance)
        await asyncio.sleep(0)
        return transcript_of(utterance) if self.may_glance else None

    def adopt(self, utterance: Utterance) -> None:
        self.adopted.append(utterance)


def transcript_of(utterance: Utterance) -> Transcript:
    return Transcript(language="en", duration=utterance.seconds, text=f"{len(utterance.pcm)} bytes were said")


@asynccontextmanager
async def listening(
    script: Script, *, endpointing: Endpointing | None = None, habits: Habits | None = None
) -> AsyncIterator[tuple[Listener, list[Happening]]]:
    told: list[Happening] = []

    async def tell(happening: Happening) -> None:
        told.append(happening)

    async with Listener(
        script, tell, endpointing=endpointing or Endpointing(), wish=lambda: Wish("tiny.en"), habits=habits
    ) as listener:
        yield listener, told


async def hear(listener: Listener, *speech: Samples) -> None:
    whole = np.concatenate(speech)
    for start in range(0, len(whole), PIECE):
        await listener.hear(whole[start : start + PIECE])
        for _ in range(4):  # as much as a decode of the script needs
            await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - polls a condition
            await asyncio.sleep(0)


def of_type(told: list[Happening], kind: type[Happening]) -> list[Happening]:
    return [happening for happening in told if isinstance(happening, kind)]


async def test_two_utterances_are_told_apart_and_each_has_its_story_in_order() -> None:
    async with listening(Script()) as (listener, told):
        await hear(listener, PAUSE, FIRST, PAUSE, SECOND, PAUSE)
        await listener.finish()
    ids = list(dict.fromkeys(happening.item_id for happening in told))
    assert len(ids) == 2
    for item_id in ids:
        kinds = [type(h) for h in told if h.item_id == item_id and not isinstance(h, Interim | Foreseen)]
        assert kinds == [SpeechStarted, SpeechStopped, Committed, Completed]
    first, second = of_type(told, Committed)
    assert isinstance(first, Committed)
    assert isinstance(second, Committed)
    assert (first.previous_item_id, second.previous_item_id) == (None, ids[0])


async def test_final_is_the_early_decode_when_nobody_spoke_on() -> None:
    script = Script()
    async with listening(script) as (listener, told):
        await hear(listener, FIRST, PAUSE)
        await listener.finish()
    (foreseen,) = of_type(told, Foreseen)[-1:]
    (completed,) = of_type(told, Completed)
    assert isinstance(foreseen, Foreseen)
    assert isinstance(completed, Completed)
    assert completed.transcript is foreseen.transcript
    assert not script.finals
    assert [utterance.item_id for utterance in script.adopted] == [completed.item_id]


async def test_early_and_late_finals_hear_the_same_samples() -> None:
    early, late = Script(), Script(may_glance=False)
    for script in (early, late):
        async with listening(script, habits=Habits(glance_s=0)) as (listener, _):
            await hear(listener, FIRST, PAUSE)
            await listener.finish()
    assert early.glances[-1].pcm == late.finals[0].pcm


async def test_speech_that_goes_on_after_a_pause_makes_the_early_decode_void() -> None:
    script = Script()
    async with listening(script, endpointing=Endpointing(silence_ms=900)) as (listener, told):
        await hear(listener, FIRST, SHORT_PAUSE, FIRST, PAUSE, PAUSE)
        await listener.finish()
    (completed,) = of_type(told, Completed)
    assert isinstance(completed, Completed)
    assert completed.transcript.duration > 2 * len(FIRST) / SAMPLE_RATE


@pytest.mark.parametrize("fails", [False, True])
async def test_early_decode_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setattr("everwarm_core.realtime.listener.EARLY_PATIENCE_S", 0.01)

    class Hanging(Script):
        async def glance(self, utterance: Utterance) -> Transcript | None:
            await asyncio.Event().wait()
            return await super().glance(utterance)

        async def transcribe(self, utterance: Utterance) -> Transcript:
            if fails:
                raise PodFailed("pod-1", "died")
            return await super().transcribe(utterance)

    async with listening(Hanging(), habits=Habits(glance_s=0)) as (listener, told):
        await hear(listener, FIRST, PAUSE)
        await listener.finish()
    assert [type(h) for h in told if isinstance(h, Completed | Failed)] == [Failed if fails else Completed]


async def test_nothing_is_decoded_early_where_that_is_off() -> None:
    script = Script()
    async with listening(script, habits=Habits(glance_s=0, is_eager=False)) as (listener, _):
        await hear(listener, FIRST, PAUSE)
        await listener.finish()
    assert not script.glances
    assert len(script.finals) == 1


async def test_finals_come_in_the_order_of_the_speech_however_long_one_takes() -> None:
    held: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
    script = Script(may_glance=False)
    script.answer = lambda utterance: held if utterance is script.finals[0] else transcript_of(utterance)
    async with listening(script) as (listener, told):
        await hear(listener, FIRST, PAUSE, SECOND, PAUSE)
        await until(lambda: len(script.finals) == 2)
        assert not of_type(told, Completed)
        held.set_result(transcript_of(script.finals[0]))
        await listener.finish()
    assert [h.item_id for h in of_type(told, Completed)] == [u.item_id for u in script.finals]


async def test_failed_utterance_is_told_and_the_next_one_goes_on() -> None:
    def answer(utterance: Utterance) -> Transcript:
        if utterance is script.finals[0]:
            raise PodFailed("pod-1", "died")
        return transcript_of(utterance)

    script = Script(may_glance=False, answer=answer)
    async with listening(script) as (listener, told):
        await hear(listener, FIRST, PAUSE, SECOND, PAUSE)
        await listener.finish()
    assert [type(h) for h in told if isinstance(h, Completed | Failed)] == [Failed, Completed]


async def test_reader_waits_when_too_many_utterances_have_no_transcript() -> None:
    held: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
    script = Script(may_glance=False, answer=lambda _: held)
    async with listening(script) as (listener, told), asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(hear(listener, *[FIRST, PAUSE] * 6))
        await until(lambda: len(of_type(told, Committed)) == 5)
        assert len(script.finals) == 4
        assert not reader.done()
        held.set_result(Transcript(language="en", duration=1.0, text="at last"))
        await reader
        await listener.finish()
    assert len(of_type(told, Completed)) == 6


async def test_commit_ends_an_utterance_that_nobody_else_ends() -> None:
    script = Script(may_glance=False)
    async with listening(script, endpointing=Endpointing(silence_ms=None)) as (listener, told):
        await hear(listener, FIRST, PAUSE)
        assert not of_type(told, Committed)
        await listener.commit()
        await listener.finish()
    assert script.finals[0].seconds == pytest.approx(len(FIRST) / SAMPLE_RATE + 1.0, abs=0.1)


async def test_commit_without_audio_is_an_error_and_of_silence_a_transcript() -> None:
    script = Script()
    async with listening(script, endpointing=Endpointing(silence_ms=None)) as (listener, told):
        with pytest.raises(NothingToCommit):
            await listener.commit()
        await hear(listener, PAUSE)
        await listener.commit()
        await listener.finish()
        with pytest.raises(NothingToCommit):
            await listener.commit()
    assert len(of_type(told, Completed)) == 1


async def test_clear_forgets_what_was_heard() -> None:
    async with listening(Script(), endpointing=Endpointing(silence_ms=None)) as (listener, told):
        await hear(listener, FIRST)
        listener.clear()
        with pytest.raises(NothingToCommit):
            await listener.commit()
    assert not of_type(told, Committed)


async def test_audio_without_a_commit_is_bounded_and_what_came_before_can_be_committed() -> None:
    script = Script()
    habits = Habits(limit_s=3.0)
    async with listening(script, endpointing=Endpointing(silence_ms=None), habits=habits) as (listener, _):
        with pytest.raises(UtteranceTooLong):
            await hear(listener, *[FIRST] * 5)
        await listener.commit()
        await listener.finish()
    assert 3.0 <= script.finals[0].seconds < 4.5


async def test_hours_of_silence_are_not_kept() -> None:
    async with listening(Script()) as (listener, _):
        for _ in range(60):
            await listener.hear(PAUSE)
        assert len(listener._audio) < 3 * 2 * SAMPLE_RATE


async def test_commits_in_the_middle_of_a_window_do_not_shift_what_is_heard_later() -> None:
    untouched, committed = Script(may_glance=False), Script(may_glance=False)
    for script, commits in ((untouched, 0), (committed, 200)):
        async with listening(script) as (listener, _told):
            for _ in range(commits):
                await listener.hear(np.zeros(100, np.int16))
                await listener.commit()
            await hear(listener, PAUSE, FIRST, PAUSE)
            await listener.finish()
    assert len(committed.finals) == 201
    assert committed.finals[-1].seconds == pytest.approx(untouched.finals[-1].seconds, abs=0.1)
