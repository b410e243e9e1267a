"""What Pipecat is told of each of our errors."""

import pytest
from pipecat.utils.errors import ErrorCategory

from everwarm.pipecat.faults import PIPECAT_ERRORS, error_frame
from everwarm_core.errors import (
    HTTP_ERRORS,
    AudioTooLong,
    DeadlineExceeded,
    EverwarmError,
    GatewayFull,
    InternalError,
    InvalidAudio,
    InvalidParameter,
    ModelNotFound,
    ModelNotWarm,
    PodDraining,
    PodFailed,
    PodFull,
    RateLimited,
    RegistryUnavailable,
    Unauthorized,
    UnsupportedLanguage,
    UploadTooSlow,
)

LASTING: list[EverwarmError] = [
    Unauthorized(),
    ModelNotFound("huge", known=("tiny.en",)),
    UnsupportedLanguage("fr", model="tiny.en"),
    InvalidParameter("temperature", "is 7; give 0 to 1"),
]
PASSING: list[EverwarmError] = [
    InvalidAudio("no sound"),
    AudioTooLong(30.0),
    UploadTooSlow(60.0),
    RateLimited("1 utterance at a time"),
    PodFull(slots=1, queue=4),
    PodDraining(),
    GatewayFull("256 requests"),
    ModelNotWarm("tiny.en"),
    DeadlineExceeded(deadline_s=30.0, waiting_for="a place"),
    PodFailed("pod-1", "it died"),
    RegistryUnavailable("connection refused"),
    InternalError("a defect"),
]


@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_only_what_new_settings_would_mend_ends_the_service(error: EverwarmError) -> None:
    frame = error_frame(error)
    assert frame.category is not None
    assert frame.category.is_permanent


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_is_wrong_with_one_utterance_or_one_moment_does_not_end_the_service(
    error: EverwarmError,
) -> None:
    frame = error_frame(error)
    assert frame.category not in (None, ErrorCategory.UNKNOWN)
    assert not frame.category.is_permanent


@pytest.mark.parametrize("error", LASTING + PASSING, ids=lambda error: type(error).__name__)
def test_a_frame_says_what_happened_and_what_to_do(error: EverwarmError) -> None:
    frame = error_frame(error)
    assert frame.exception is error
    assert str(error).partition(";")[0] in frame.error  # Pipecat masks what comes after "Bearer"
    assert any(frame.error.endswith(fault.advice) for fault in PIPECAT_ERRORS.values())


def test_every_error_that_http_knows_is_known_here() -> None:
    assert all(any(cls in PIPECAT_ERRORS for cls in known.__mro__) for known in HTTP_ERRORS)
