"""Our errors as livekit-agents' errors: the one table, and what `retryable` says in it.

`STT.recognize` tries a retryable error again, up to `conn_options.max_retry` times, and an `AgentSession` closes after
three that were not mended. So what fails on any pod must not be retried, and what another moment may mend must be.
The client has been to several pods by then: these retries come on top of its own. What a stream does with an utterance
that fails is `stream`'s.
"""

from collections.abc import Callable, Mapping
from typing import Final

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from everwarm_core.errors import (
    CapacityError,
    DeadlineExceeded,
    DecodeCancelled,
    EverwarmError,
    InvalidParameter,
    InvalidRequest,
    ModelNotFound,
    PlatformError,
    PodFailed,
    RegistryUnavailable,
    Unauthorized,
    UnsupportedLanguage,
    UploadTooSlow,
    http_error,
)
from everwarm_core.openai_errors import error_body

Make = Callable[[EverwarmError, str], APIError]


def livekit_error(error: EverwarmError, *, request_id: str) -> APIError:
    """What livekit-agents is told of *error*: the entry of its nearest ancestor in `LIVEKIT_ERRORS`."""
    make = next(LIVEKIT_ERRORS[cls] for cls in type(error).__mro__ if cls in LIVEKIT_ERRORS)
    return make(error, request_id)


def concerns_all(error: EverwarmError) -> bool:
    """Whether *error* would befall every utterance of the stream, whatever is said in it."""
    return isinstance(error, Unauthorized | ModelNotFound | UnsupportedLanguage | InvalidParameter)


def _status(*, retryable: bool) -> Make:
    def make(error: EverwarmError, request_id: str) -> APIError:
        return APIStatusError(
            str(error),
            status_code=http_error(error).status,
            request_id=request_id,
            body=error_body(error),
            retryable=retryable,
        )

    return make


def _connection(error: EverwarmError, _: str) -> APIError:
    return APIConnectionError(str(error), retryable=True)


def _timeout(error: EverwarmError, _: str) -> APIError:
    return APITimeoutError(str(error), retryable=True)


LIVEKIT_ERRORS: Final[Mapping[type[EverwarmError], Make]] = {
    InvalidRequest: _status(retryable=False),
    UploadTooSlow: _status(retryable=True),  # the network's fault, not the utterance's
    CapacityError: _status(
        retryable=True
    ),  # full, draining, not warm yet, or enough for now: a place may be free by then
    DeadlineExceeded: _timeout,
    DecodeCancelled: _status(retryable=True),
    PodFailed: _connection,
    RegistryUnavailable: _connection,
    PlatformError: _connection,  # the local pod cannot be had; a pod elsewhere may be by then
    EverwarmError: _status(retryable=False),  # a defect, met on two pods already: a third would show it too
}
