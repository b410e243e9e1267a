"""What livekit-agents makes of our errors: which are tried again, and under which class and status."""

import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from everwarm.livekit.faults import concerns_all, livekit_error
from everwarm_core import errors
from everwarm_core.errors import EverwarmError

TABLE = [
    (errors.InvalidAudio("damaged"), APIStatusError, 400, False),
    (errors.UnsupportedLanguage("xx"), APIStatusError, 400, False),
    (errors.Unauthorized(), APIStatusError, 401, False),
    (errors.ModelNotFound("huge"), APIStatusError, 404, False),
    (errors.UploadTooSlow(30), APIStatusError, 408, True),
    (errors.AudioTooLong(1800), APIStatusError, 413, False),
    (errors.PodFull(slots=1, queue=4), APIStatusError, 503, True),
    (errors.PodDraining(), APIStatusError, 503, True),
    (errors.GatewayFull("512 requests"), APIStatusError, 503, True),
    (errors.RateLimited("4 utterances at a time"), APIStatusError, 429, True),
    (errors.ModelNotWarm("base"), APIStatusError, 503, True),
    (errors.DeadlineExceeded(deadline_s=10, waiting_for="a pod"), APITimeoutError, None, True),
    (errors.PodFailed("pod-1", "died"), APIConnectionError, None, True),
    (errors.RegistryUnavailable("refused"), APIConnectionError, None, True),
    (errors.PlatformError("no local pod"), APIConnectionError, None, True),
    (errors.DecodeCancelled(), APIStatusError, 499, True),
    (errors.InternalError("a defect"), APIStatusError, 500, False),
]


@pytest.mark.parametrize(
    ("error", "kind", "status", "retryable"), TABLE, ids=[type(row[0]).__name__ for row in TABLE]
)
def test_an_error_has_its_class_status_and_retryability(
    error: EverwarmError, kind: type[APIError], status: int | None, *, retryable: bool
) -> None:
    told = livekit_error(error, request_id="req_7")
    assert type(told) is kind
    assert told.retryable is retryable
    assert told.message == str(error)
    if isinstance(told, APIStatusError):
        assert (told.status_code, told.request_id) == (status, "req_7")


def test_every_error_of_ours_is_told_as_one_of_livekits() -> None:
    def leaves(cls: type[EverwarmError]) -> list[type[EverwarmError]]:
        return [cls, *(leaf for sub in cls.__subclasses__() for leaf in leaves(sub))]

    for cls in leaves(EverwarmError):
        error = cls.__new__(cls)
        EverwarmError.__init__(error, "what happened")
        assert isinstance(livekit_error(error, request_id="r"), APIError)


@pytest.mark.parametrize(
    ("error", "is_lasting"),
    [
        (errors.Unauthorized(), True),
        (errors.ModelNotFound("huge"), True),
        (errors.UnsupportedLanguage("xx"), True),
        (errors.InvalidAudio("damaged"), False),
        (errors.PodFull(slots=1, queue=4), False),
        (errors.InternalError("met a poisoned utterance"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_is_wrong_with_the_stream_itself_concerns_every_utterance(
    error: EverwarmError, *, is_lasting: bool
) -> None:
    assert concerns_all(error) is is_lasting
