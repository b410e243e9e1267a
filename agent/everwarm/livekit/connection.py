"""The connection arguments of an STT, completed from the environment into one frozen, comparable value.

Read once, when an STT is made: that a URL is missing is an error in the line that forgot it, and two STTs are the same
to the cache when they would talk to the same pods in the same way.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from pydantic import SecretStr

from everwarm.settings import AgentSettings
from everwarm_core.errors import InvalidParameter, UnsupportedLanguage
from everwarm_core.keys import is_english_only
from everwarm_core.languages import parse_language

Fallback = Literal["local"] | None


class Connection(TypedDict, total=False):
    """Where the pods are; each as in `everwarm.Client`, the environment's where absent."""

    base_url: str | None
    redis_url: str | None
    namespace: str | None
    token_file: str | Path | None
    api_key: str | None
    deadline_s: float | None


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
        settings=_settings(connection, fallback),
    )


def language_of(language: str | None, *, model: str) -> str | None:
    """*language* as a Whisper code, `auto` or None (what the model is served in); raises UnsupportedLanguage."""
    if not language:
        return None
    code = parse_language(language)
    if is_english_only(model) and code not in ("en", "auto"):
        raise UnsupportedLanguage(code, model=model)
    return code


def _settings(connection: Connection, fallback: Fallback) -> AgentSettings:
    given = {name: value for name, value in connection.items() if value is not None}
    given.pop("deadline_s", None)
    if "api_key" in given:
        given["api_key"] = SecretStr(str(given["api_key"]))
    if "token_file" in given:
        given["token_file"] = Path(str(given["token_file"]))
    if "base_url" in given and "redis_url" not in given:
        given["redis_url"] = None  # an argument wins over the environment
    settings = AgentSettings(**given)  # type: ignore[arg-type]  # names and types are those of the fields
    if not (settings.redis_url or settings.base_url or settings.fallback_urls or fallback):
        raise InvalidParameter(
            "redis_url", "nothing says where the pods are; set EVERWARM_REDIS_URL or EVERWARM_BASE_URL"
        )
    return settings
