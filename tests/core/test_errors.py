"""The tree of errors and its table for HTTP: complete, drawn as it is, and with what each handler needs."""

import inspect
import re

import pytest

from everwarm_core import errors
from everwarm_core.errors import HTTP_ERRORS, EverwarmError, http_error

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, EverwarmError)]


def test_docstring_draws_every_class_below_its_parent() -> None:
    """Whoever adds an error sees the tree, and so does whoever looks for one."""
    drawn: dict[str, str | None] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^    ([│ ]*)(├── |└── )?([A-Z]\w+)", line):
            depth = 0 if not found[2] else 1 + len(found[1]) // 4
            branch[depth:] = [found[3]]
            drawn[found[3]] = branch[depth - 1] if depth else None
    assert drawn == {
        cls.__name__: None if cls is EverwarmError else cls.__mro__[1].__name__ for cls in CLASSES
    }


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_says_in_a_docstring_when_it_happens(cls: type[EverwarmError]) -> None:
    assert cls.__doc__


def test_table_maps_every_status_to_its_family() -> None:
    for cls, wire in HTTP_ERRORS.items():
        caller_is_at_fault = issubclass(cls, errors.InvalidRequest)
        # Nobody reads the answer to who left; and 429 is about other requests than this one, which may come again.
        is_apart = cls in (errors.DecodeCancelled, errors.RateLimited)
        assert caller_is_at_fault == (400 <= wire.status < 500 and not is_apart), cls
        assert wire.type in {
            "invalid_request_error",
            "authentication_error",
            "rate_limit_error",
            "server_error",
        }


def test_codes_are_unique_so_that_a_client_can_tell_errors_apart() -> None:
    codes = [wire.code for wire in HTTP_ERRORS.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidAudio("no audio"), 400),
        (errors.UnsupportedLanguage("tlh"), 400),
        (errors.Unauthorized(), 401),
        (errors.ModelNotFound("x"), 404),
        (errors.UploadTooSlow(30), 408),
        (errors.UploadTooLarge(1), 413),
        (errors.AudioTooLong(1), 413),
        (errors.RateLimited("4 utterances at a time"), 429),
        (errors.PodFull(slots=1, queue=4), 503),
        (errors.PodDraining(), 503),
        (errors.ModelNotWarm("x"), 503),
        (errors.RegistryUnavailable("refused"), 503),
        (errors.DeadlineExceeded(deadline_s=1, waiting_for="a pod"), 504),
        (errors.InternalError("defect"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, EverwarmError) else str(value),
)
def test_error_has_the_status_of_the_contract(error: EverwarmError, status: int) -> None:
    assert http_error(error).status == status


def test_error_without_an_entry_takes_its_nearest_ancestors() -> None:
    class StrangeAudio(errors.InvalidAudio):
        pass

    assert http_error(StrangeAudio("odd")) == HTTP_ERRORS[errors.InvalidAudio]
    assert http_error(errors.WarmupFailed("tiny", "timed out")) == HTTP_ERRORS[EverwarmError]


def test_capacity_errors_name_a_time_to_come_back() -> None:
    assert errors.PodDraining().retry_after_s is not None
    assert errors.PodFull(slots=1, queue=0, retry_after_s=2.5).retry_after_s == 2.5
    assert errors.RateLimited("60 s of audio a minute", retry_after_s=41.0).retry_after_s == 41.0
    assert errors.InvalidAudio("x").retry_after_s is None


def test_registry_error_keeps_what_the_connection_said() -> None:
    assert errors.RegistryUnavailable("refused").reason == "refused"


def test_spec_error_lists_every_problem_with_its_path() -> None:
    error = errors.SpecError("a.yaml", (("spec.slots", "too many"), ("spec.model", "is required")))
    assert str(error) == (
        "a.yaml is not a valid WhisperModel:\n  spec.slots: too many\n  spec.model: is required"
    )
