"""The languages Whisper was trained on, and how callers may spell them.

Source of codes and names: `whisper/tokenizer.py` of openai/whisper (99 languages, plus Cantonese since large-v3).
A language is a prompt token, not weights, so this table is all a pod needs to serve one more. `auto` is no
language: it means "detect it", costs one more encoder pass, and is a key of its own in the registry.
"""

from typing import Final

from everwarm_core.errors import UnsupportedLanguage

AUTO: Final = "auto"

LANGUAGE_NAMES: Final[dict[str, str]] = {
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian", "ko": "korean",
    "fr": "french", "ja": "japanese", "pt": "portuguese", "tr": "turkish", "pl": "polish", "ca": "catalan",
    "nl": "dutch", "ar": "arabic", "sv": "swedish", "it": "italian", "id": "indonesian", "hi": "hindi",
    "fi": "finnish", "vi": "vietnamese", "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay",
    "cs": "czech", "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian",
    "th": "thai", "ur": "urdu", "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian", "la": "latin",
    "mi": "maori", "ml": "malayalam", "cy": "welsh", "sk": "slovak", "te": "telugu", "fa": "persian",
    "lv": "latvian", "bn": "bengali", "sr": "serbian", "az": "azerbaijani", "sl": "slovenian", "kn": "kannada",
    "et": "estonian", "mk": "macedonian", "br": "breton", "eu": "basque", "is": "icelandic", "hy": "armenian",
    "ne": "nepali", "mn": "mongolian", "bs": "bosnian", "kk": "kazakh", "sq": "albanian", "sw": "swahili",
    "gl": "galician", "mr": "marathi", "pa": "punjabi", "si": "sinhala", "km": "khmer", "sn": "shona",
    "yo": "yoruba", "so": "somali", "af": "afrikaans", "oc": "occitan", "ka": "georgian", "be": "belarusian",
    "tg": "tajik", "sd": "sindhi", "gu": "gujarati", "am": "amharic", "yi": "yiddish", "lo": "lao",
    "uz": "uzbek", "fo": "faroese", "ht": "haitian creole", "ps": "pashto", "tk": "turkmen", "nn": "nynorsk",
    "mt": "maltese", "sa": "sanskrit", "lb": "luxembourgish", "my": "myanmar", "bo": "tibetan", "tl": "tagalog",
    "mg": "malagasy", "as": "assamese", "tt": "tatar", "haw": "hawaiian", "ln": "lingala", "ha": "hausa",
    "ba": "bashkir", "jw": "javanese", "su": "sundanese", "yue": "cantonese",
}  # fmt: skip

_CODES_BY_NAME: Final = {name: code for code, name in LANGUAGE_NAMES.items()}

# ISO codes in use that Whisper spells otherwise: Javanese, Norwegian Bokmål, Hebrew before 1989, Filipino, Mandarin.
_OTHER_CODES: Final = {"jv": "jw", "nb": "no", "iw": "he", "fil": "tl", "cmn": "zh"}


def parse_language(text: str) -> str:
    """The Whisper code for a language as callers write it: `en`, `EN`, `en-US`, `pt_BR`, `english` or `auto`.

    Raises UnsupportedLanguage when it is none of these.
    """
    wanted = text.strip().lower()
    if wanted == AUTO or wanted in LANGUAGE_NAMES:
        return wanted
    if wanted in _CODES_BY_NAME:
        return _CODES_BY_NAME[wanted]
    code = wanted.replace("_", "-").split("-", 1)[0]
    code = _OTHER_CODES.get(code, code)
    if code in LANGUAGE_NAMES:
        return code
    raise UnsupportedLanguage(text)


def language_name(code: str) -> str:
    """The full name OpenAI's verbose_json uses, as `english`; the code itself when Whisper has no name for it."""
    return LANGUAGE_NAMES.get(code, code)
