"""All that an STT is made from, as one frozen, comparable value.

Two STTs are the same to the cache when they would talk to the same pods in the same way.
"""

from dataclasses import dataclass
from typing import Literal

from everwarm.connection import Connection, language_of, settings_of
from everwarm.settings import AgentSettings
from everwarm_core.errors import InvalidParameter

Fallback = Literal["local"] | None


@dataclass(frozen=True, slots=True)
class Options:
    """All that an STT is made from; equal options share an instance in `create_stt`."""

    model: str
    language: str | None
    word_timestamps: bool
    fallback: Fallback
    deadline_s: float | None
    settings: AgentSettings

    @property
    def key(self) -> str:
        """`{model}_{language}`, as the original system wrote it."""
        return f"{self.model}_{self.language or 'default'}"


def options_of(
    *, model: str, language: str | None, word_timestamps: bool, fallback: Fallback, connection: Connection
) -> Options:
    """The options, checked; does no I/O.

    Raises InvalidParameter when nothing says where pods are, UnsupportedLanguage for a language the model cannot know.
    """
    if fallback not in (None, "local"):
        raise InvalidParameter("fallback", f"is {fallback!r}; give None or 'local'")
    return Options(
        model=model,
        language=language_of(language, model=model),
        word_timestamps=word_timestamps,
        fallback=fallback,
        deadline_s=connection.get("deadline_s"),
        settings=settings_of(connection, is_optional=bool(fallback)),
    )
