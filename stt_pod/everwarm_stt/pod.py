"""What the pod's lifecycle and its HTTP server share: the state of one pod, and what that lets it serve.

`lifecycle` moves it from state to state, the server asks it and adds languages that a request has proven, the
heartbeat reads its record. All on one event loop; `changed` brings the next heartbeat forward.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Final

import structlog

from everwarm_core.errors import InvalidParameter, ModelNotFound, ModelNotWarm, UnsupportedLanguage
from everwarm_core.keys import requested_language
from everwarm_core.languages import AUTO
from everwarm_core.registry.records import PodRecord, PodState
from everwarm_core.requests import TranscriptionRequest
from everwarm_stt.admission import Admission
from everwarm_stt.birth import ordinary_options
from everwarm_stt.engine import DecodeOptions, Engine
from everwarm_stt.settings import PodSettings

VERSION: Final = version("everwarm-stt")
GATE_S: Final = 0.4
"""Time for the operator to turn a pod's gate (0.1 s, more on a busy node): a kubelet that finds gate and container changed
tells both at once, and needs a second look at the pod otherwise."""
LOADING_RETRY_AFTER_S: Final = 2.0  # a small model is warm by then; OpenAI's client tries twice

log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False)
class Pod:
    """One pod; *url* is the base URL that agents call."""

    settings: PodSettings
    url: str
    admission: Admission
    state: PodState = PodState.LOADING
    engine: Engine | None = None
    languages: tuple[str, ...] = ()
    """Proven warm so far."""
    load_s: float = 0.0
    warm_s: float = 0.0
    started: float = field(default_factory=time.time)
    traceparent: str = ""
    """Of the trace of its start."""
    boot: str = field(default_factory=lambda: secrets.token_hex(8))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    asked_at: float | None = None
    """When `/readyz` was last asked, in monotonic seconds."""

    @property
    def is_ready(self) -> bool:
        """Whether new work is welcome: warm for every key of the spec, and not draining."""
        return (
            self.state is PodState.WARM
            and not self.admission.is_draining
            and set(self.settings.languages) <= set(self.languages)
        )

    def tells_in_s(self, now: float) -> float:
        """Seconds from *now* until a turn to warm or from it should be said, so that registry and kubelet hear of it together.

        Shortly before the next question for its readiness, where such come every `probe_seconds`; else at once.
        """
        period_s = self.settings.probe_seconds
        if not period_s or self.asked_at is None or now - self.asked_at > 2 * period_s:
            return 0.0
        return (self.asked_at - GATE_S - now) % period_s

    def record(self) -> PodRecord:
        """What the registry is told now."""
        return PodRecord(
            id=self.settings.pod_id,
            url=self.url,
            state=self.state,
            model=self.settings.model,
            names=self.settings.names,
            languages=self.languages,
            slots=self.settings.slots,
            queue=self.settings.queue,
            inflight=self.admission.inflight,
            version=VERSION,
            node=self.settings.node,
            started=self.started,
            load_s=self.load_s,
            warm_s=self.warm_s,
            boot=self.boot,
            traceparent=self.traceparent,
        )

    def enter(self, state: PodState) -> None:
        """Be in *state* from now on, and tell the registry at once."""
        self.state = state
        self.changed.set()
        log.info("pod.state", state=state.value, pod=self.settings.pod_id, model=self.settings.model)

    def prove(self, language: str) -> None:
        """Count *language* as warm, as a real decode in it has run, and tell the registry at once."""
        self.languages = tuple(dict.fromkeys((*self.languages, language)))
        self.changed.set()

    def check_name(self, name: str) -> None:
        """Raise ModelNotFound unless *name* is one this pod serves."""
        if name not in self.settings.names:
            raise ModelNotFound(name, known=self.settings.names)

    def loaded_engine(self) -> Engine:
        """The engine; raises ModelNotWarm while it is not loaded."""
        if self.engine is None:
            raise ModelNotWarm(self.settings.model, retry_after_s=LOADING_RETRY_AFTER_S)
        return self.engine

    def options(self, request: TranscriptionRequest) -> DecodeOptions:
        """How *request* is decoded here.

        Raises ModelNotFound, ModelNotWarm, UnsupportedLanguage, or InvalidParameter for a translation that these
        weights cannot do.
        """
        self.check_name(request.model)
        engine = self.loaded_engine()
        if request.task == "translate" and not engine.is_multilingual:
            raise InvalidParameter("model", f"{request.model!r} knows English only and cannot translate")
        ordinary = ordinary_options(self.settings, self._language(request, engine))
        return replace(
            ordinary,
            task=request.task,
            prompt=request.prompt,
            temperature=ordinary.temperature if request.temperature is None else request.temperature,
            word_timestamps=request.granularities.words,
        )

    def _language(self, request: TranscriptionRequest, engine: Engine) -> str:
        if not engine.is_multilingual:  # whatever the name says: a folder of one's own need not end in .en
            if request.language not in (None, AUTO, "en"):
                raise UnsupportedLanguage(request.language, model=request.model)
            return "en"
        language = requested_language(
            request.language, model=self.settings.model, languages=self.settings.languages
        )
        if language not in (AUTO, *engine.languages):
            raise UnsupportedLanguage(language)
        return language
