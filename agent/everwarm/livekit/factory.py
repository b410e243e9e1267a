"""`create_stt`: one STT per model and language for a whole process, however often and from wherever it is asked for.

The original system made a model per utterance here, and its repair was a cache of models under `{model}_{language}`.
The call and the log lines are kept; what is cached is only a client. The STT hears live audio by itself; with a VAD, each
call wraps it in a `StreamAdapter` of its own instead, which cuts utterances where that VAD says, with or without a fallback.
"""

import threading
import weakref
from typing import Any, Final, Unpack

from livekit.agents import stt
from livekit.agents.vad import VAD

from everwarm.livekit.connection import Arguments, Fallback, Options, options_of
from everwarm.livekit.stt import STT
from everwarm_core.logs import Tag, library_logger

log = library_logger(__name__)

_guard: Final = threading.Lock()
_instances: Final[dict[Options, STT]] = {}


def create_stt(
    *,
    model: str,
    language: str | None = None,
    vad: VAD | None = None,
    fallback: Fallback = None,
    word_timestamps: bool = False,
    **arguments: Unpack[Arguments],
) -> stt.STT[Any]:
    """This process's STT for *model* and *language*, made by the first call.

    It streams: interim transcripts, and finals a moment after the last word, for it listens and decodes by itself.
    Give a *vad* where that VAD is to say what an utterance is, say one that is tuned or that has been used all along:
    then you get a `StreamAdapter` around the STT, whose utterances are sent when they have ended, one after the other.
    Arguments as of `STT`; where any differs it is another instance. Thread-safe; loads nothing and opens nothing.
    Raises InvalidParameter, UnsupportedLanguage, or PlatformError for a fallback that is not installed.
    """
    options = options_of(
        model=model,
        language=language,
        word_timestamps=word_timestamps,
        fallback=fallback,
        arguments=arguments,
    )
    with _guard:
        found = _instances.get(options)
        shared = found or STT(
            model=model, language=language, fallback=fallback, word_timestamps=word_timestamps, **arguments
        )
        _instances[options] = shared
    log.info(
        "stt.reused" if found else "stt.created",
        tag=Tag.CACHE,
        key=options.key,
        instance=shared.id,
        model=options.model,
        language=options.language,
    )
    return shared if vad is None else SharedStreamAdapter(stt=shared, vad=vad)


class SharedStreamAdapter(stt.StreamAdapter):
    """A StreamAdapter that its shared STT does not keep alive.

    LiveKit's own subscribes to the wrapped STT's metrics until `aclose`, which sessions do not call: on an STT that
    lives as long as the process, each session would leave an adapter and its VAD behind.
    """

    def __init__(self, *, stt: STT, vad: VAD) -> None:
        super().__init__(stt=stt, vad=vad)
        self._look_for_pods = stt.look_for_pods
        stt.off("metrics_collected", self._on_metrics_collected)
        weak_method = weakref.WeakMethod(self._on_metrics_collected)

        def forward(*args: Any, **kwargs: Any) -> None:
            if method := weak_method():
                method(*args, **kwargs)

        stt.on("metrics_collected", forward)
        self._forget = weakref.finalize(self, stt.off, "metrics_collected", forward)

    def prewarm(self) -> None:
        """Begin to look for pods; what streams detect speech with is not needed here."""
        self._look_for_pods()

    async def aclose(self) -> None:
        """Stop forwarding metrics; the shared STT stays open for the others."""
        self._forget()
