"""The connection arguments of the plugins for voice frameworks, completed from the environment and checked.

Done once, where a service is made: that a URL is missing, or that a model cannot know a language, is then an error in
the line that got it wrong, and not one in every utterance. No I/O, and nothing of any framework.
"""

from pathlib import Path
from typing import TypedDict

from pydantic import SecretStr

from everwarm.settings import AgentSettings, agent_settings
from everwarm_core.errors import InvalidParameter
from everwarm_core.keys import ensure_knows
from everwarm_core.languages import parse_language


class Connection(TypedDict, total=False):
    """Where the pods are; each as in `everwarm.Client`, the environment's where absent."""

    base_url: str | None
    redis_url: str | None
    namespace: str | None
    token_file: str | Path | None
    api_key: str | None
    deadline_s: float | None


def settings_of(connection: Connection, *, is_optional: bool = False) -> AgentSettings:
    """*connection* over the environment; `deadline_s` is left to the caller.

    Raises InvalidParameter when nothing says where pods are, unless that *is_optional*.
    """
    given = {name: value for name, value in connection.items() if name != "deadline_s" and value is not None}
    if "api_key" in given:
        given["api_key"] = SecretStr(str(given["api_key"]))
    if "token_file" in given:
        given["token_file"] = Path(str(given["token_file"]))
    settings = agent_settings(given)
    if not (settings.redis_url or settings.base_url or settings.fallback_urls or is_optional):
        raise InvalidParameter(
            "redis_url", "nothing says where the pods are; set EVERWARM_REDIS_URL or EVERWARM_BASE_URL"
        )
    return settings


def language_of(language: str | None, *, model: str) -> str | None:
    """*language* as a Whisper code, `auto` or None (what the model is served in); raises UnsupportedLanguage."""
    if not language:
        return None
    code = parse_language(language)
    ensure_knows(model, code)
    return code
