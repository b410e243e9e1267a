"""Model keys: what a pod proves itself warm for, and what an utterance asks for.

A key is (model, language), written `base.en_en`. The model part is whatever name a caller uses: the spec's
model, the resource's metadata.name or an alias; the registry holds one entry for each. Language codes contain no
underscore, so the *last* underscore separates the two and model names may contain more of them.
"""

from typing import NamedTuple, Self

from everwarm_core.errors import UnsupportedLanguage
from everwarm_core.languages import AUTO


class ModelKey(NamedTuple):
    """(model, language); language is a Whisper code or `auto`."""

    model: str
    language: str

    def __str__(self) -> str:
        return f"{self.model}_{self.language}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key written as *text*; raises ValueError when there is no underscore or an empty part."""
        model, separator, language = text.rpartition("_")
        if not (model and separator and language):
            raise ValueError(f"{text!r} is not a model key; write it as 'base.en_en'")
        return cls(model, language)


def is_english_only(model: str) -> bool:
    """Whether weights of this name know English only: Whisper's own sizes mark that with a `.en` suffix."""
    return model.rstrip("/").endswith(".en")


def ensure_knows(model: str, language: str | None) -> None:
    """Raise UnsupportedLanguage where weights of this name know English only and *language* is another."""
    if is_english_only(model) and language not in (None, AUTO, "en"):
        raise UnsupportedLanguage(language, model=model)


def default_languages(model: str) -> tuple[str, ...]:
    """The languages proven warm when the spec names none: English for `*.en`, else detection."""
    return ("en",) if is_english_only(model) else (AUTO,)


def requested_language(language: str | None, *, model: str, languages: tuple[str, ...]) -> str:
    """The language a request means, given the *languages* of the spec that serves *model*.

    language: a parsed Whisper code, `auto`, or None when the request names none: then the only language of the
    spec, else `auto`. On English-only weights `auto` is English; any other language raises UnsupportedLanguage.
    """
    ensure_knows(model, language)
    if is_english_only(model):
        return "en"
    if language is not None:
        return language
    return languages[0] if len(languages) == 1 else AUTO
