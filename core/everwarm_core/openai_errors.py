"""Errors as OpenAI clients read them, and back again.

Pods and the gateway write every failure as `{"error": {"message", "type", "param", "code"}}` with the status of
`everwarm_core.errors.HTTP_ERRORS`; agents turn such an answer into the same class again, so the caller's `except`
does not change with the distance. Only the message, `param` and `Retry-After` travel: an error read back has its
class and these three, not the numbers its constructor was given. Pure; sending is left to the servers.

Format: https://platform.openai.com/docs/guides/error-codes, and what `openai`'s Python client reads of it.
"""

import json
import math
from collections.abc import Mapping
from typing import Final

from typing_extensions import (
    TypedDict,
)  # pydantic, which describes the body in OpenAPI, wants this one before 3.12

from everwarm_core.errors import (
    HTTP_ERRORS,
    CapacityError,
    EverwarmError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    PodFailed,
    RateLimited,
    Unauthorized,
    UploadTooLarge,
    UploadTooSlow,
    http_error,
)
from everwarm_core.http.headers import POD_HEADER

MAX_MESSAGE_CHARS: Final = 2000  # what is kept of somebody else's error page
MAX_RETRY_AFTER_S: Final = 3600.0  # a guess; a longer pause is no answer an utterance can wait for


class ErrorFields(TypedDict):
    """The four fields OpenAI's clients expect; `param` and `code` may be null, none may be missing."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """The JSON body of every answer that is an error."""

    error: ErrorFields


def error_body(error: EverwarmError) -> ErrorBody:
    """The JSON body that tells *error*."""
    wire = http_error(error)
    return {"error": {"message": str(error), "type": wire.type, "param": error.param, "code": wire.code}}


def error_json(error: EverwarmError) -> bytes:
    """`error_body`, encoded; characters outside ASCII are escaped, so lone surrogates in a message cannot break it."""
    return json.dumps(error_body(error)).encode()


def error_headers(error: EverwarmError) -> dict[str, str]:
    """Headers that belong to *error*, names in lower case: `retry-after` in whole seconds, rounded up, at least 1."""
    headers = {}
    is_worth_retrying = isinstance(error, CapacityError) or http_error(error).status >= 500
    if is_worth_retrying and error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return headers


def error_from_response(status: int, body: bytes, headers: Mapping[str, str]) -> EverwarmError:
    """The error that an answer with *status* (not 2xx) tells.

    body: at most what the caller chose to read; it may be cut short or no JSON at all (a proxy's page).
    headers: names in lower case, or a case-insensitive mapping. Our own codes come back as their class; anything
    else by status: 4xx as InvalidRequest, 429 as RateLimited, 503 as CapacityError, the rest as PodFailed (worth another pod).
    """
    fields = _error_fields(body)
    code = fields.get("code")
    error_class = _BY_CODE.get(code) if isinstance(code, str) else None
    if error_class is None or http_error_status(error_class) != status:
        error_class = _class_of(status, fields)
    message = fields.get("message")
    if not isinstance(message, str) or not message:
        message = f"answered HTTP {status} without an error message"
    if error_class is PodFailed and code != HTTP_ERRORS[PodFailed].code:
        pod = headers.get(POD_HEADER, "(unnamed)")
        error: EverwarmError = PodFailed(pod, f"HTTP {status}: {message[:MAX_MESSAGE_CHARS]}")
    else:
        error = _read_back(error_class, message[:MAX_MESSAGE_CHARS])
        if isinstance(param := fields.get("param"), str):
            error.param = param
    if (seconds := _seconds(headers.get("retry-after"))) is not None:
        error.retry_after_s = seconds
    return error


def http_error_status(error_class: type[EverwarmError]) -> int:
    """The status that errors of *error_class* are answered with."""
    return next(HTTP_ERRORS[cls].status for cls in error_class.__mro__ if cls in HTTP_ERRORS)


# HTTP_ERRORS names the root for whatever has no entry of its own; read back, that is a defect of the other side.
_BY_CODE: Final[Mapping[str, type[EverwarmError]]] = {
    wire.code: InternalError if cls is EverwarmError else cls for cls, wire in HTTP_ERRORS.items()
}

_BY_STATUS: Final[Mapping[int, type[EverwarmError]]] = {
    401: Unauthorized,
    403: Unauthorized,
    408: UploadTooSlow,
    413: UploadTooLarge,
    429: RateLimited,
    503: CapacityError,
}


def _class_of(status: int, fields: Mapping[str, object]) -> type[EverwarmError]:
    """The class for an error that is not one of ours, such as another vendor's or a proxy's."""
    if status == 404 and fields.get("param") == "model":
        return ModelNotFound
    return _BY_STATUS.get(status) or (InvalidRequest if 400 <= status < 500 else PodFailed)


def _read_back(error_class: type[EverwarmError], message: str) -> EverwarmError:
    """An error of *error_class* that says *message*, past its constructor, which would want the data behind it."""
    error = error_class.__new__(error_class)
    EverwarmError.__init__(error, message)
    return error


def _error_fields(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # ValueError covers damaged UTF-8 too
        return {}
    fields = document.get("error") if isinstance(document, dict) else None
    return fields if isinstance(fields, dict) else {}


def _seconds(text: str | None) -> float | None:
    """Seconds in a `Retry-After`; None when absent or a date, which our own servers never send."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_S) if math.isfinite(seconds) and seconds >= 0 else None
