"""`STTService`: Pipecat's segmented speech-to-text, answered by pods that are warm already.

Pipecat's base class gathers audio, cuts it where the VAD of the pipeline says that speech ended, and hands over one WAV
file for each utterance, in order and off the audio path; what is left to do is a request. A pipeline lives on one event
loop from start to end, so a plain `Client` on that loop does: it is opened by the StartFrame, closed by the EndFrame
(once what was said is transcribed), by a CancelFrame (at once), or by the teardown of a pipeline that got neither.
Nothing here retries: the client has been to other pods before it gives up.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from pipecat.frames.frames import CancelFrame, EndFrame, Frame, StartFrame, TranscriptionFrame
from pipecat.services.settings import STTSettings
from pipecat.services.stt_latency import DEFAULT_TTFS_P99
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.transcriptions.language import Language
from pipecat.utils.time import time_now_iso8601

from everwarm.client import Client
from everwarm.connection import Connection, language_of, settings_of
from everwarm.pipecat.faults import error_frame
from everwarm_core.errors import EverwarmError
from everwarm_core.languages import parse_language

TTFS_P99_S: Final = (
    DEFAULT_TTFS_P99  # a guess on the safe side: turns end with the final, and wait longer for none
)


class STTService(SegmentedSTTService):
    """Transcribes the utterances of a pipeline with *model* on warm pods; needs a VAD before it.

    language: a code such as `en` or `en-US`, `auto`, or None for the one the model is served in. base_url (a gateway or
    a single pod), redis_url, namespace, token_file, api_key, deadline_s: as `everwarm.Client`; what is not given comes
    from EVERWARM_*. ttfs_p99_latency: seconds from the end of speech that turns wait for a final at most. More keywords:
    as Pipecat's SegmentedSTTService. Model and language follow an STTUpdateSettingsFrame.
    Raises InvalidParameter or UnsupportedLanguage at once when these cannot work.
    """

    _settings: STTSettings

    def __init__(
        self,
        *,
        model: str,
        language: str | None = None,
        base_url: str | None = None,
        redis_url: str | None = None,
        namespace: str | None = None,
        token_file: str | Path | None = None,
        api_key: str | None = None,
        deadline_s: float | None = None,
        ttfs_p99_latency: float = TTFS_P99_S,
        **kwargs: Any,
    ) -> None:
        connection = Connection(
            base_url=base_url,
            redis_url=redis_url,
            namespace=namespace,
            token_file=token_file,
            api_key=api_key,
            deadline_s=deadline_s,
        )
        settings_of(connection)  # here and not at the start, where Pipecat only logs what is raised
        super().__init__(
            settings=STTSettings(model=model, language=language_of(language, model=model)),
            ttfs_p99_latency=ttfs_p99_latency,
            **kwargs,
        )
        self._client = Client(**connection)

    def can_generate_metrics(self) -> bool:
        """True: seconds of each request, and from the end of speech to the final; seconds of audio as usage."""
        return True

    def language_to_service_language(self, language: Language) -> str:
        """The Whisper code of *language*; raises UnsupportedLanguage."""
        return parse_language(language)

    async def start(self, frame: StartFrame) -> None:
        """Open the connections' pool and begin to follow the pods; returns at once, pods there or not."""
        await self._client.start()
        await super().start(frame)

    async def stop(self, frame: EndFrame) -> None:
        """Transcribe what was said, then close all connections."""
        await super().stop(frame)
        await self._client.aclose()

    async def cancel(self, frame: CancelFrame) -> None:
        """Drop what is not transcribed yet and close all connections."""
        await super().cancel(frame)
        await self._client.aclose()

    async def cleanup(self) -> None:
        """Close what a pipeline that was neither ended nor cancelled left open."""
        await super().cleanup()  # type: ignore[no-untyped-call]  # Pipecat annotates arguments alone
        await self._client.aclose()

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Transcribe *audio*, a WAV file of one utterance: a TranscriptionFrame with the Transcript as its result,
        nothing where nothing was said, or an ErrorFrame that says what to do.
        """
        await self.start_processing_metrics()
        try:
            transcript = await self._client.transcribe(
                audio, model=str(self._settings.model), language=self._language
            )
        except EverwarmError as error:
            yield error_frame(error)
            return
        await self.stop_processing_metrics()
        if transcript.text:
            yield TranscriptionFrame(
                transcript.text,
                self._user_id,
                time_now_iso8601(),
                language=Language(transcript.language),
                result=transcript,
            )

    @property
    def _language(self) -> str | None:
        language = self._settings.language
        return None if language is None else str(language)
