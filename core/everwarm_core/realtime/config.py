"""A transcription session's configuration as OpenAI writes it, and what we make of it.

GA (`session.update`, `audio.input....`) and the beta before it (`transcription_session.update`, flat names) say the
same; both become one `SessionConfig`. An update changes what it names and leaves the rest. What we do not do is
answered as it is, not as it was asked: `noise_reduction` stays null, and who asks for another kind of turn detection
than `server_vad` gets an error. Fields without a meaning here (`create_response`, `include`, ...) are ignored.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from everwarm_core.errors import InvalidParameter
from everwarm_core.languages import parse_language
from everwarm_core.realtime.audio import RATES, AudioFormat
from everwarm_core.realtime.endpoint import Endpointing
from everwarm_core.realtime.listener import Wish
from everwarm_core.requests import MAX_LANGUAGE_CHARS, MAX_MODEL_CHARS, MAX_PROMPT_CHARS

SERVER_VAD: Final = Endpointing()
MANUAL: Final = Endpointing(silence_ms=None)
_BETA_FORMATS: Final = {
    "pcm16": AudioFormat.PCM,
    "g711_ulaw": AudioFormat.PCMU,
    "g711_alaw": AudioFormat.PCMA,
}


class _Update(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TurnDetection(_Update):
    """`turn_detection`; OpenAI's defaults."""

    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5_000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=100, le=10_000)] = 500


class Format(_Update):
    """`audio.input.format`."""

    type: AudioFormat = AudioFormat.PCM
    rate: int | None = None


class Transcription(_Update):
    """`transcription`: which model, and what it is told. `languages` is the newer plural, of which one can be used."""

    model: Annotated[str, Field(max_length=MAX_MODEL_CHARS)] | None = None
    language: Annotated[str, Field(max_length=MAX_LANGUAGE_CHARS)] | None = None
    languages: Annotated[tuple[str, ...], Field(max_length=100)] | None = None
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)] | None = None


class _Input(_Update):
    format: Format | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


class _Audio(_Update):
    input: _Input = _Input()


class GaSession(_Update):
    """`session` of a `session.update`."""

    type: Literal["transcription"] = "transcription"
    audio: _Audio = _Audio()


class BetaSession(_Update):
    """`session` of a `transcription_session.update`."""

    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | None = None
    input_audio_transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How a session is set now. model: None until the client has named one."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    form: AudioFormat = AudioFormat.PCM
    endpointing: Endpointing = SERVER_VAD

    def wish(self) -> Wish:
        """What its utterances ask for; raises InvalidParameter while no model is known."""
        if self.model is None:
            raise InvalidParameter(
                "session.audio.input.transcription.model", "missing; name the model to use"
            )
        return Wish(self.model, self.language, self.prompt)

    def updated(self, session: GaSession | BetaSession) -> "SessionConfig":
        """As *session* changes it. Raises InvalidParameter or UnsupportedLanguage."""
        if isinstance(session, BetaSession):
            form = session.input_audio_format
            changes: _Input | BetaSession = session
            transcription = session.input_audio_transcription
            config = self if form is None else replace(self, form=_BETA_FORMATS[form])
        else:
            changes = session.audio.input
            transcription = changes.transcription
            config = self if changes.format is None else replace(self, form=_form(changes.format))
        if "turn_detection" in changes.model_fields_set:
            config = replace(config, endpointing=_endpointing(changes.turn_detection))
        return config if transcription is None else replace(config, **_told(transcription))

    def ga(self, session_id: str, *, expires_at: int) -> dict[str, Any]:
        """The session as GA events show it."""
        form: dict[str, Any] = {"type": self.form.value}
        if self.form is AudioFormat.PCM:
            form["rate"] = RATES[self.form]
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": form,
                    "transcription": self._transcription(),
                    "noise_reduction": None,
                    "turn_detection": self._turn_detection(),
                }
            },
            "include": None,
        }

    def beta(self, session_id: str, *, expires_at: int) -> dict[str, Any]:
        """The session as the beta's events show it."""
        form = next(name for name, form in _BETA_FORMATS.items() if form is self.form)
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "expires_at": expires_at,
            "input_audio_format": form,
            "input_audio_transcription": self._transcription(),
            "input_audio_noise_reduction": None,
            "turn_detection": self._turn_detection(),
            "modalities": ["text"],
        }

    def _transcription(self) -> dict[str, Any] | None:
        if self.model is None:
            return None
        told = {"model": self.model, "language": self.language, "prompt": self.prompt}
        return {name: value for name, value in told.items() if value is not None}

    def _turn_detection(self) -> dict[str, Any] | None:
        rules = self.endpointing
        if rules.silence_ms is None:
            return None
        return TurnDetection(
            threshold=rules.threshold,
            prefix_padding_ms=rules.prefix_ms,
            silence_duration_ms=rules.silence_ms,
        ).model_dump()


def _form(form: Format) -> AudioFormat:
    if form.rate is not None and form.rate != RATES[form.type]:
        raise InvalidParameter(
            "session.audio.input.format.rate",
            f"is {form.rate}; {form.type.value} has {RATES[form.type]} samples a second here",
        )
    return form.type


def _endpointing(turns: TurnDetection | None) -> Endpointing:
    if turns is None:
        return MANUAL
    return Endpointing(turns.threshold, turns.prefix_padding_ms, turns.silence_duration_ms)


def _told(transcription: Transcription) -> dict[str, Any]:
    """The fields of SessionConfig that *transcription* names."""
    named = transcription.model_fields_set
    told: dict[str, Any] = {}
    if transcription.model:
        told["model"] = transcription.model
    if "prompt" in named:
        told["prompt"] = transcription.prompt or None
    if "language" in named or "languages" in named:
        language = transcription.language or next(iter(transcription.languages or ()), None)
        told["language"] = parse_language(language) if language else None
    return told
