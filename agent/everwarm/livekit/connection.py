"""All that an STT is made from, as one frozen, comparable value.

Two STTs are the same to the cache when they would talk to the same pods in the same way.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict, cast

from pydantic import ValidationError

from everwarm.connection import Connection, language_of, settings_of
from everwarm.settings import AgentSettings
from everwarm_core.errors import InvalidParameter
from everwarm_core.realtime.config import TurnDetection
from everwarm_core.realtime.endpoint import Endpointing

Fallback = Literal["local"] | None


class Streaming(TypedDict, total=False):
    """How a stream tells utterances apart, and what it tells of them; each as in `STT`."""

    interim_results: bool
    vad_threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int


class Arguments(Connection, Streaming, total=False):
    """What an STT may be told beside its model, language and fallback."""


@dataclass(frozen=True, slots=True)
class Options:
    """All that an STT is made from; equal options share an instance in `create_stt`."""

    model: str
    language: str | None
    word_timestamps: bool
    fallback: Fallback
    deadline_s: float | None
    interim_results: bool
    endpointing: Endpointing
    settings: AgentSettings

    @property
    def key(self) -> str:
        """`{model}_{language}`, as the original system wrote it."""
        return f"{self.model}_{self.language or 'default'}"


def options_of(
    *, model: str, language: str | None, word_timestamps: bool, fallback: Fallback, arguments: Arguments
) -> Options:
    """The options, checked; does no I/O.

    Raises InvalidParameter when nothing says where pods are or a number is out of bounds, UnsupportedLanguage for a
    language the model cannot know.
    """
    if fallback not in (None, "local"):
        raise InvalidParameter("fallback", f"is {fallback!r}; give None or 'local'")
    streaming = Streaming.__annotations__
    connection = {name: value for name, value in arguments.items() if name not in streaming}
    return Options(
        model=model,
        language=language_of(language, model=model),
        word_timestamps=word_timestamps,
        fallback=fallback,
        deadline_s=arguments.get("deadline_s"),
        interim_results=arguments.get("interim_results", True),
        endpointing=_endpointing(arguments),
        settings=settings_of(cast("Connection", connection), is_optional=bool(fallback)),
    )


def _endpointing(arguments: Arguments) -> Endpointing:
    """What *arguments* say of it, within the bounds that realtime sessions have too."""
    given = {
        "threshold": arguments.get("vad_threshold"),
        "prefix_padding_ms": arguments.get("prefix_padding_ms"),
        "silence_duration_ms": arguments.get("silence_duration_ms"),
    }
    try:
        turns = TurnDetection.model_validate({name: v for name, v in given.items() if v is not None})
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        raise InvalidParameter(
            "vad_threshold" if name == "threshold" else name, f"is {given[name]!r}: {wrong['msg']}"
        ) from error
    return Endpointing(turns.threshold, turns.prefix_padding_ms, turns.silence_duration_ms)
