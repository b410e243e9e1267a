"""Our errors as Pipecat's: the one table of categories, and what somebody who reads an ErrorFrame can do about it.

A category is more than a word. AUTHENTICATION and INVALID_REQUEST are permanent to Pipecat: the service is given no
more audio until its settings change. So what is wrong with one utterance is the application's fault, never the
request's, and what another moment may mend is the network's or the server's. The client has been to several pods by
then, and Pipecat does not try again: the utterance is lost, and the next one is asked for as usual.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipecat.frames.frames import ErrorFrame
from pipecat.utils.errors import ErrorCategory

from everwarm_core.errors import (
    CapacityError,
    DeadlineExceeded,
    EverwarmError,
    GatewayFull,
    InvalidParameter,
    InvalidRequest,
    ModelNotFound,
    ModelNotWarm,
    PodFailed,
    PodFull,
    RateLimited,
    RegistryUnavailable,
    Unauthorized,
    UnsupportedLanguage,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What Pipecat is told of a class of errors, and what people are."""

    category: ErrorCategory
    advice: str


def error_frame(error: EverwarmError) -> ErrorFrame:
    """What the pipeline is told of *error*: the entry of its nearest ancestor in `PIPECAT_ERRORS`."""
    fault = next(PIPECAT_ERRORS[cls] for cls in type(error).__mro__ if cls in PIPECAT_ERRORS)
    return ErrorFrame(
        error=f"an utterance was not transcribed: {error}. {fault.advice}",
        exception=error,
        category=fault.category,
    )


PIPECAT_ERRORS: Final[Mapping[type[EverwarmError], Fault]] = {
    Unauthorized: Fault(
        ErrorCategory.AUTHENTICATION,
        "Give the gateway's key as api_key or EVERWARM_API_KEY, the pods' token as token_file or EVERWARM_TOKEN_FILE",
    ),
    ModelNotFound: Fault(
        ErrorCategory.INVALID_REQUEST,
        "Ask for a model that is served, or apply a WhisperModel that serves this one",
    ),
    UnsupportedLanguage: Fault(
        ErrorCategory.INVALID_REQUEST, "Ask for a language that the model knows, or for another model"
    ),
    InvalidParameter: Fault(ErrorCategory.INVALID_REQUEST, "Correct the service's arguments"),
    InvalidRequest: Fault(
        ErrorCategory.APPLICATION,
        "Only this utterance is at fault; look at the audio that the transport delivers",
    ),
    RateLimited: Fault(ErrorCategory.RATE_LIMIT, "The limits stand in the gateway's file of keys"),
    PodFull: Fault(
        ErrorCategory.RATE_LIMIT, "If it happens often, add replicas or slots to the WhisperModel"
    ),
    GatewayFull: Fault(ErrorCategory.RATE_LIMIT, "If it happens often, add gateways or raise their limits"),
    ModelNotWarm: Fault(ErrorCategory.SERVER, "Look at `everwarm status`: its pods start, or none is left"),
    DeadlineExceeded: Fault(
        ErrorCategory.SERVER, "Look at `everwarm status`; add replicas, or wait longer with deadline_s"
    ),
    CapacityError: Fault(ErrorCategory.SERVER, "Nothing is to be done: the next utterance goes elsewhere"),
    PodFailed: Fault(
        ErrorCategory.CONNECTIVITY,
        "Check that the base URL is right, and look at `everwarm status` and the pods' logs",
    ),
    RegistryUnavailable: Fault(
        ErrorCategory.CONNECTIVITY, "Until then a base_url, of a gateway, works without it"
    ),
    EverwarmError: Fault(ErrorCategory.SERVER, "The pods' logs say more"),
}
