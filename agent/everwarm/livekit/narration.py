"""What LiveKit is told of a stream, and in which order: from what a listener tells to LiveKit's events; pure.

The order of one utterance is START_OF_SPEECH, INTERIM_TRANSCRIPT as it grows, PREFLIGHT_TRANSCRIPT when a pause begins,
FINAL_TRANSCRIPT, END_OF_SPEECH, RECOGNITION_USAGE. With `turn_detection="stt"` an AgentSession ends the turn at the END_OF_SPEECH
with the finals it has by then, so the end waits for its final, as it does in LiveKit's own plugins. Only who speaks
again before that final is there gets the end told first: a session must not take the old end for that of the new speech.
When the speech ended is told in any case (`speech_end_time`), so that waiting for a final costs no delay of endpointing.

Interim texts are left out while an earlier utterance has no final: a session puts them behind the finals it has.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.stt import SpeechEvent, SpeechEventType

from everwarm.livekit.speech import speech_data
from everwarm_core.realtime.listener import (
    Committed,
    Completed,
    Failed,
    Foreseen,
    Happening,
    Interim,
    SpeechStarted,
    SpeechStopped,
)
from everwarm_core.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened.

    now: seconds of the wall clock; heard_s: seconds of audio that were heard by then; offset_s: when the stream began, on
    the clock that LiveKit's times are of; language: what is asked for, empty where the model finds out.
    """

    now: float
    heard_s: float
    offset_s: float = 0.0
    language: str = ""

    def wall(self, audio_s: float) -> float:
        """When the audio at *audio_s* was heard, had it come as fast as life."""
        return self.now - max(0.0, self.heard_s - audio_s)


@dataclass(slots=True)
class Narrator:
    """Follows one stream. interim_results: whether how an utterance reads so far is told."""

    interim_results: bool = True
    _open: str = ""
    """The utterance that somebody speaks now."""
    _began_s: float = 0.0
    _ended_at: dict[str, float] = field(default_factory=dict)
    """When the utterances ended (wall clock) whose outcome is not told yet."""
    _ending: str = ""
    """The last one of them, if its END_OF_SPEECH is not told yet."""

    @property
    def is_open(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return bool(self._open)

    @property
    def is_idle(self) -> bool:
        """Whether nobody speaks and every final is told."""
        return not self._open and not self._ended_at

    def events(self, happening: Happening, moment: Moment) -> Iterator[SpeechEvent]:
        """The events that tell of *happening*."""
        item_id = happening.item_id
        match happening:
            case SpeechStarted(at_ms=at_ms):
                yield from self._end_of(self._ending)
                self._open, self._began_s = item_id, at_ms / 1000
                yield SpeechEvent(SpeechEventType.START_OF_SPEECH, request_id=item_id)
            case Interim(text=text) if text and self.interim_results and not self._ended_at:
                yield self._interim(item_id, text, moment)
            case Foreseen(transcript=transcript, start_ms=start_ms) if transcript.text and not self._ended_at:
                yield _told(SpeechEventType.PREFLIGHT_TRANSCRIPT, item_id, transcript, start_ms, moment)
            case SpeechStopped(at_ms=at_ms):
                self._ended_at[item_id] = moment.wall(at_ms / 1000)
            case Committed():
                self._ended_at.setdefault(item_id, moment.now)
                self._open, self._ending = "", item_id
            case Completed(transcript=transcript, start_ms=start_ms):
                final = _told(SpeechEventType.FINAL_TRANSCRIPT, item_id, transcript, start_ms, moment)
                final.speech_end_time = self._ended_at[item_id]
                yield final
                yield from self._outcome(item_id)
                yield SpeechEvent(
                    SpeechEventType.RECOGNITION_USAGE,
                    request_id=item_id,
                    recognition_usage=stt.RecognitionUsage(audio_duration=transcript.duration),
                )
            case Failed():
                yield from self._outcome(item_id)

    def nothing(self, moment: Moment) -> SpeechEvent:
        """The final that says that there was nothing to end: who flushes waits for one."""
        at_s = moment.offset_s + moment.heard_s
        data = stt.SpeechData(LanguageCode(moment.language), text="", start_time=at_s, end_time=at_s)
        return SpeechEvent(SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data])

    def _interim(self, item_id: str, text: str, moment: Moment) -> SpeechEvent:
        data = stt.SpeechData(
            LanguageCode(moment.language),
            text,
            start_time=moment.offset_s + self._began_s,
            end_time=moment.offset_s + moment.heard_s,
        )
        return SpeechEvent(SpeechEventType.INTERIM_TRANSCRIPT, request_id=item_id, alternatives=[data])

    def _outcome(self, item_id: str) -> Iterator[SpeechEvent]:
        if item_id == self._ending:
            yield from self._end_of(item_id)
        del self._ended_at[item_id]

    def _end_of(self, item_id: str) -> Iterator[SpeechEvent]:
        if item_id:
            self._ending = ""
            yield SpeechEvent(
                SpeechEventType.END_OF_SPEECH,
                request_id=item_id,
                speech_end_time=self._ended_at[item_id],
            )


def _told(
    kind: SpeechEventType, item_id: str, transcript: Transcript, start_ms: int, moment: Moment
) -> SpeechEvent:
    data = speech_data(transcript, began_s=moment.offset_s + start_ms / 1000)
    return SpeechEvent(kind, request_id=item_id, alternatives=[data])
