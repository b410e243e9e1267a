"""How our programs read their environment: lists in a variable, and what is said when a variable is wrong.

Each program has its own settings; that they speak of the same `EVERWARM_*` in the same words is seen to here.
"""

from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from everwarm_core.errors import SettingsError

PREFIX: Final = "EVERWARM_"


def split_list(value: object) -> object:
    """`a, b` as ("a", "b"); a validator to run before a field's own. Lists that are lists already stay as they are."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def environment_error(program: str, error: ValidationError) -> SettingsError:
    """What is wrong with the environment of *program* ("this pod"), by variable.

    A rule over several settings names the one to change itself, before a colon, as field or as variable.
    """
    return SettingsError(program, tuple(_problems(error)))


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    for problem in error.errors(include_url=False):
        reason = "not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            name = str(problem["loc"][0])
        else:
            name, _, reason = reason.partition(": ")
        yield PREFIX + name.upper().removeprefix(PREFIX), reason
