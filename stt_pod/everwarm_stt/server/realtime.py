"""`GET /v1/realtime`: sessions whose utterances are decoded on this pod's own slots.

Sessions hold no slot, only their utterances do, each for its own decode: a pod may listen to many who are silent. Glances
and early finals take a slot that is idle or none. A full pod lets an utterance wait for a place until its deadline,
since its audio is here and nowhere else.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from everwarm_core.errors import DeadlineExceeded, EverwarmError, ModelNotWarm, PodFull
from everwarm_core.http.realtime import RealtimeEndpoint
from everwarm_core.http.websocket import Handshake
from everwarm_core.realtime.audio import SAMPLE_RATE
from everwarm_core.realtime.listener import Transcriber, Utterance, Wish
from everwarm_core.realtime.sessions import Sessions
from everwarm_core.registry.records import PodState
from everwarm_core.requests import TranscriptionRequest
from everwarm_core.transcript import Transcript
from everwarm_stt.audio import decode_pcm
from everwarm_stt.pod import LOADING_RETRY_AFTER_S, Pod
from everwarm_stt.server.edge import Account
from everwarm_stt.server.exchange import Job
from everwarm_stt.server.instruments import Instruments
from everwarm_stt.server.tokens import Tokens
from everwarm_stt.turns import Deadline


@dataclass(frozen=True, slots=True)
class Slots(Transcriber):
    """A `Transcriber` on the slots of *pod*."""

    pod: Pod
    instruments: Instruments

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """See Transcriber."""
        seconds = self.pod.settings.realtime_deadline_seconds
        deadline = Deadline(seconds, asyncio.get_running_loop().time() + seconds)
        try:
            async with asyncio.timeout_at(deadline.at):
                while True:
                    try:
                        async with self.pod.admission.admit(deadline, is_promised=True) as place:
                            return await self._job(utterance).whole(place)
                    except PodFull:
                        await self.pod.admission.place_came_free()
        except TimeoutError as error:
            raise DeadlineExceeded(deadline_s=seconds, waiting_for="a place in the pod") from error

    async def glance(self, utterance: Utterance) -> Transcript | None:
        """See Transcriber."""
        if not self.pod.admission.has_idle_slot:
            return None
        try:
            async with self.pod.admission.admit() as place:
                return await self._job(utterance).whole(place)
        except EverwarmError:
            return None

    def check(self, wish: Wish) -> None:
        """See Transcriber."""
        self.pod.options(_request(wish))

    def _job(self, utterance: Utterance) -> Job:
        pod = self.pod
        limit_s = pod.settings.limit_audio_seconds
        return Job(
            pod=pod,
            engine=pod.loaded_engine(),
            instruments=self.instruments,
            options=pod.options(_request(utterance.wish)),
            source=partial(decode_pcm, utterance.pcm, rate=SAMPLE_RATE, limit_s=limit_s),
            account=Account(utterance.item_id, time.perf_counter()),
        )


def _request(wish: Wish) -> TranscriptionRequest:
    return TranscriptionRequest(wish.model, language=wish.language, prompt=wish.prompt)


def realtime_endpoint(
    slots: Slots, sessions: Sessions, tokens: Callable[[], Tokens | None]
) -> RealtimeEndpoint:
    """The application behind the path; tokens: as `Edge` has them."""

    def welcome(handshake: Handshake) -> Transcriber:
        if (wanted := tokens()) is not None:
            wanted.check(handshake.authorization)
        if slots.pod.state in (PodState.LOADING, PodState.WARMING):
            raise ModelNotWarm(slots.pod.settings.model, retry_after_s=LOADING_RETRY_AFTER_S)
        return slots

    return RealtimeEndpoint(sessions, welcome)
