"""Everything that can go wrong, as one tree, and the one table that says how HTTP tells it.

The families say who must act::

    EverwarmError
    ├── InvalidRequest            the caller: another try with the same input fails again
    │   ├── InvalidAudio          bytes that hold no decodable, finite audio
    │   ├── InvalidParameter      one field of the request is wrong; `param` names it
    │   ├── UnsupportedLanguage   the language is unknown, or the model does not speak it
    │   ├── UploadTooLarge        more bytes than `limits.uploadBytes`
    │   ├── AudioTooLong          more decoded seconds than `limits.audioSeconds`
    │   ├── UploadTooSlow         the body did not arrive in time
    │   ├── Unauthorized          the internal token is missing or wrong
    │   ├── ModelNotFound         no resource serves this name
    │   ├── InvalidEvent          a realtime event that is none, or that cannot be honoured
    │   ├── NothingToCommit       a realtime commit without audio
    │   ├── UtteranceTooLong      realtime audio that is never committed
    │   ├── SessionOver           a realtime session was idle, or lasted, too long
    │   ├── RouteNotFound         no such path
    │   ├── UpgradeRequired       the path speaks WebSocket
    │   └── MethodNotAllowed      the path exists, not for this method
    ├── CapacityError             another pod, or a later try: nothing was decoded
    │   ├── PodFull               all slots and queue places are taken
    │   ├── NoIdleSlot            the request wanted a slot that is free now, and none is
    │   ├── PodDraining           the pod is shutting down
    │   ├── GatewayFull           the gateway holds all the requests, or bytes, that it may
    │   ├── RateLimited           this API key has all that it may have for now; others may call
    │   ├── TooManySessions       the process holds all the realtime sessions that it may
    │   ├── ModelNotWarm          the name is known, no pod holds it warm yet
    │   └── DeadlineExceeded      the caller's deadline ran out first
    ├── DecodeCancelled           nobody: the caller left, its decode was ended early
    ├── PodFailed                 a pod died, hung or answered nonsense; another pod may do it
    │   └── PodUnreachable        no connection came about, so nothing of the request got there
    ├── RegistryUnavailable       Redis cannot be reached
    ├── SpecError                 a WhisperModel that cannot be used; `path` names the field
    ├── SettingsError             a program's environment is wrong; `problems` names the variables
    ├── WeightsUnavailable        the model's files cannot be found, fetched or trusted
    ├── WarmupFailed              the model loaded but did not prove itself warm in time
    ├── PlatformError             the local platform cannot start or lost a part for good
    └── InternalError             ours: a defect

Each error carries the data its handler needs, not only a sentence. `HTTP_ERRORS` is the only place that
maps classes to statuses and codes; pods answer by it and agents read answers back by it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class EverwarmError(Exception):
    """Root of the tree; never raised itself."""

    retry_after_s: float | None = None
    """Seconds after which another try makes sense; None when it does not or nobody knows."""

    param: str | None = None
    """Name of the request field at fault, as the caller wrote it."""


class InvalidRequest(EverwarmError):
    """The request cannot be served as it is, by any pod."""


class InvalidAudio(InvalidRequest):
    """The bytes are empty, damaged, in no supported format, or hold non-finite samples."""

    param = "file"


class InvalidParameter(InvalidRequest):
    """The field *param* of the request is wrong; *reason* says why and what is accepted."""

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(f"{param}: {reason}")
        self.param = param


class UnsupportedLanguage(InvalidRequest):
    """*language* is no Whisper language, or *model* knows English only."""

    param = "language"

    def __init__(self, language: str, *, model: str | None = None) -> None:
        reason = (
            f"model {model!r} knows English only"
            if model
            else "not a language this Whisper model knows; use an ISO 639-1 code such as 'en'"
        )
        super().__init__(f"language {language!r}: {reason}")
        self.language, self.model = language, model


class UploadTooLarge(InvalidRequest):
    """The body has more than *limit_bytes* bytes."""

    param = "file"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the upload is larger than the limit of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class AudioTooLong(InvalidRequest):
    """The audio decodes to more than *limit_s* seconds."""

    param = "file"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the audio is longer than the limit of {limit_s:g} s")
        self.limit_s = limit_s


class UploadTooSlow(InvalidRequest):
    """The body did not arrive whole within *limit_s* seconds."""

    param = "file"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the upload did not arrive within {limit_s:g} s")
        self.limit_s = limit_s


class Unauthorized(InvalidRequest):
    """The `Authorization: Bearer` token is missing or wrong."""

    def __init__(self) -> None:
        super().__init__("missing or wrong bearer token; send `Authorization: Bearer <token>`")


class ModelNotFound(InvalidRequest):
    """No pod has announced the name *model*; *known* lists the names that exist."""

    param = "model"

    def __init__(self, model: str, *, known: tuple[str, ...] = ()) -> None:
        served = ", ".join(known) if known else "none"
        super().__init__(f"model {model!r} does not exist here; served models: {served}")
        self.model, self.known = model, known


class InvalidEvent(InvalidRequest):
    """A realtime event that is none, or that cannot be honoured; *event_id* is what the client called it."""

    def __init__(self, message: str, *, event_id: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.event_id, self.param = event_id, param


class NothingToCommit(InvalidRequest):
    """A realtime commit without any audio since the last one."""

    param = "input_audio_buffer"

    def __init__(self) -> None:
        super().__init__("there is no audio to commit; append some first")


class UtteranceTooLong(InvalidRequest):
    """More than *limit_s* seconds of realtime audio and no commit; what came before can still be committed."""

    param = "input_audio_buffer"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"there are {limit_s:g} s of audio without a commit; commit or clear before more")
        self.limit_s = limit_s


class SessionOver(InvalidRequest):
    """A realtime session ended by a limit; *what* says which, such as `nothing was sent for 900 s`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the session is over: {what}; open a new one")
        self.what = what


class RouteNotFound(InvalidRequest):
    """There is nothing at *path*."""

    def __init__(self, path: str) -> None:
        super().__init__(f"there is nothing at {path!r}; see /openapi.json for what there is")
        self.path = path


class UpgradeRequired(InvalidRequest):
    """The path speaks WebSocket, and the request is plain HTTP."""

    def __init__(self) -> None:
        super().__init__("this path speaks WebSocket; connect with a realtime client")


class MethodNotAllowed(InvalidRequest):
    """*path* does not answer to *method*."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"{path!r} does not answer to {method!r}; see /openapi.json for what it does")
        self.method, self.path = method, path


class CapacityError(EverwarmError):
    """Nothing was decoded; another pod or a later try may serve the same request."""

    retry_after_s: float | None = 1.0


class PodFull(CapacityError):
    """The pod's *slots* are busy and its *queue* places are taken."""

    def __init__(self, *, slots: int, queue: int, retry_after_s: float = 1.0) -> None:
        super().__init__(f"all {slots} slots are busy and {queue} requests are waiting already")
        self.slots, self.queue, self.retry_after_s = slots, queue, retry_after_s


class NoIdleSlot(CapacityError):
    """The request asked for a slot that nobody else wants now, and there is none."""

    def __init__(self) -> None:
        super().__init__("no slot is idle now, and the request did not want to wait for one")


class PodDraining(CapacityError):
    """The pod finishes what it holds and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("this pod is shutting down; ask another one")


class GatewayFull(CapacityError):
    """The gateway holds as much as it may; *what* says of which thing, such as `256 requests`."""

    def __init__(self, what: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(f"the gateway holds {what} already; try again in {retry_after_s:.0f} s")
        self.what, self.retry_after_s = what, retry_after_s


class RateLimited(CapacityError):
    """This API key has what it may have for now; *what* says of which thing, such as `4 utterances at a time`."""

    def __init__(self, what: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(f"this API key may have {what}; try again in {math.ceil(retry_after_s)} s")
        self.what, self.retry_after_s = what, retry_after_s


class TooManySessions(CapacityError):
    """*limit* realtime sessions are open already."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} realtime sessions are open already; try again in 1 s")
        self.limit = limit


class ModelNotWarm(CapacityError):
    """*model* exists, but no pod holds it warm for now."""

    param = "model"

    def __init__(self, model: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(f"no pod holds model {model!r} warm yet; try again in {retry_after_s:.0f} s")
        self.model, self.retry_after_s = model, retry_after_s


class DeadlineExceeded(CapacityError):
    """The caller's deadline of *deadline_s* seconds ran out while *waiting_for* was awaited."""

    def __init__(self, *, deadline_s: float, waiting_for: str) -> None:
        super().__init__(f"the deadline of {deadline_s:.1f} s ran out while waiting for {waiting_for}")
        self.deadline_s, self.waiting_for = deadline_s, waiting_for


class DecodeCancelled(EverwarmError):
    """The decode was ended early because nobody waits for its result any more."""

    def __init__(self) -> None:
        super().__init__("the request was cancelled before its decode ended")


class PodFailed(EverwarmError):
    """*pod* died, could not be reached, or answered something that is no answer."""

    retry_after_s: float | None = 1.0

    def __init__(self, pod: str, reason: str) -> None:
        super().__init__(f"pod {pod!r} failed: {reason}")
        self.pod, self.reason = pod, reason


class PodUnreachable(PodFailed):
    """No connection to *pod* came about: whatever is wrong there, the request has not caused it."""


class RegistryUnavailable(EverwarmError):
    """Redis cannot be reached; *reason* is what the connection said."""

    retry_after_s: float | None = 1.0

    def __init__(self, reason: str) -> None:
        super().__init__(f"the registry cannot be reached: {reason}; check the Redis URL and that Redis runs")
        self.reason = reason


class SpecError(EverwarmError):
    """A WhisperModel resource cannot be used.

    source: where it was read (a file name, or the resource's name); path: the field, as `spec.decode.beamSize`.
    """

    def __init__(self, source: str, problems: tuple[tuple[str, str], ...]) -> None:
        lines = "\n".join(f"  {path}: {reason}" for path, reason in problems)
        super().__init__(f"{source} is not a valid WhisperModel:\n{lines}")
        self.source, self.problems = source, problems


class SettingsError(EverwarmError):
    """A program's environment cannot be used; each of *problems* is (variable, what is wrong with it)."""

    def __init__(self, program: str, problems: tuple[tuple[str, str], ...]) -> None:
        lines = "\n".join(f"  {variable}: {reason}" for variable, reason in problems)
        super().__init__(f"the environment of {program} cannot be used:\n{lines}")
        self.problems = problems


class WeightsUnavailable(EverwarmError):
    """The weights of *model* cannot be had; the message says where they were looked for."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"weights of model {model!r}: {reason}")
        self.model = model


class WarmupFailed(EverwarmError):
    """*model* did not prove itself warm; *reason* says at which step."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"model {model!r} did not become warm: {reason}")
        self.model = model


class PlatformError(EverwarmError):
    """The local platform cannot start, or lost a part that it cannot bring back."""


class InternalError(EverwarmError):
    """A defect of ours; the request id leads to the log."""


@dataclass(frozen=True, slots=True)
class HttpError:
    """How one class of error looks on the wire: `{"error": {message, type, param, code}}` with *status*."""

    status: int
    type: str
    code: str


HTTP_ERRORS: Final[Mapping[type[EverwarmError], HttpError]] = {
    InvalidAudio: HttpError(400, "invalid_request_error", "invalid_audio"),
    InvalidParameter: HttpError(400, "invalid_request_error", "invalid_parameter"),
    UnsupportedLanguage: HttpError(400, "invalid_request_error", "unsupported_language"),
    Unauthorized: HttpError(401, "authentication_error", "invalid_api_key"),
    ModelNotFound: HttpError(404, "invalid_request_error", "model_not_found"),
    InvalidEvent: HttpError(400, "invalid_request_error", "invalid_event"),
    NothingToCommit: HttpError(400, "invalid_request_error", "input_audio_buffer_commit_empty"),
    UtteranceTooLong: HttpError(413, "invalid_request_error", "utterance_too_long"),
    SessionOver: HttpError(408, "invalid_request_error", "session_expired"),
    RouteNotFound: HttpError(404, "invalid_request_error", "route_not_found"),
    UpgradeRequired: HttpError(426, "invalid_request_error", "upgrade_required"),
    MethodNotAllowed: HttpError(405, "invalid_request_error", "method_not_allowed"),
    UploadTooSlow: HttpError(408, "invalid_request_error", "upload_too_slow"),
    UploadTooLarge: HttpError(413, "invalid_request_error", "upload_too_large"),
    AudioTooLong: HttpError(413, "invalid_request_error", "audio_too_long"),
    InvalidRequest: HttpError(400, "invalid_request_error", "invalid_request"),
    RateLimited: HttpError(429, "rate_limit_error", "rate_limit_exceeded"),
    PodFull: HttpError(503, "server_error", "pod_full"),
    NoIdleSlot: HttpError(503, "server_error", "no_idle_slot"),
    PodDraining: HttpError(503, "server_error", "pod_draining"),
    GatewayFull: HttpError(503, "server_error", "gateway_full"),
    TooManySessions: HttpError(503, "server_error", "too_many_sessions"),
    ModelNotWarm: HttpError(503, "server_error", "model_not_warm"),
    CapacityError: HttpError(
        503, "server_error", "no_capacity"
    ),  # said by a proxy before a pod, not by a pod
    DecodeCancelled: HttpError(499, "server_error", "cancelled"),  # nginx's code for a client that left
    RegistryUnavailable: HttpError(503, "server_error", "registry_unavailable"),
    PodFailed: HttpError(502, "server_error", "pod_failed"),
    DeadlineExceeded: HttpError(504, "server_error", "deadline_exceeded"),
    EverwarmError: HttpError(500, "server_error", "internal_error"),
}


def http_error(error: EverwarmError) -> HttpError:
    """The wire form of *error*: the entry of its nearest ancestor in `HTTP_ERRORS`."""
    return next(HTTP_ERRORS[cls] for cls in type(error).__mro__ if cls in HTTP_ERRORS)
