"""What a pod is asked for one utterance, and the transcript in its answer: the wire of `Client` and of realtime sessions.

Samples go the fast way, `/v1/transcribe`; files in OpenAI's form. What the query of a request says is the same for most
utterances of an agent, and is written once.
"""

from functools import lru_cache
from typing import Final
from urllib.parse import urlencode

from pydantic import ValidationError

from everwarm.audio_input import PCM_TYPE, EncodedFile, Pcm, form
from everwarm.dispatch import RECORDING_S, Answer, BytesBody, Call
from everwarm.routing.router import Wish
from everwarm_core.errors import PodFailed
from everwarm_core.http.headers import REQUEST_ID_HEADER
from everwarm_core.openai_errors import error_from_response
from everwarm_core.requests import TranscriptionRequest, transcribe_query
from everwarm_core.transcript import Transcript, parse_verbose_json

GLANCE_S: Final = 5.0  # by then the speech has gone on, or a final is on its way


def call_of(source: Pcm | EncodedFile, request: TranscriptionRequest, request_id: str) -> Call:
    """The POST that has *source* transcribed as *request* says."""
    wish = Wish(request.model, request.language, source.audio_s)
    headers = {REQUEST_ID_HEADER: request_id}
    if isinstance(source, Pcm):
        headers["content-type"] = PCM_TYPE
        return Call(_pcm_path(request), headers, BytesBody(source.data), wish)
    fields = [(name, value) for name, value in transcribe_query(request) if name != "task"]
    body, headers["content-type"] = form(source, [*fields, ("response_format", "verbose_json")])
    path = "/v1/audio/translations" if request.task == "translate" else "/v1/audio/transcriptions"
    return Call(path, headers, BytesBody(body), wish)


def transcript_of(answer: Answer) -> Transcript:
    """The transcript in *answer*; raises the error that it tells instead, or PodFailed when it tells neither."""
    if answer.status >= 400:
        raise error_from_response(answer.status, answer.body or b"", answer.headers)
    try:
        return parse_verbose_json(answer.body or b"")
    except ValidationError as error:
        raise PodFailed(answer.pod, "its answer is no transcript") from error


def recording_s(source: Pcm | EncodedFile) -> float:
    """What a recording adds to the default deadline: its own length, as far as it can be told."""
    longest_s = source.audio_s if isinstance(source, Pcm) else source.longest_s
    return longest_s if longest_s > RECORDING_S else 0.0


@lru_cache(maxsize=64)
def _pcm_path(request: TranscriptionRequest) -> str:
    return f"/v1/transcribe?{urlencode(transcribe_query(request))}"
