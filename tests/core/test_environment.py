"""How a wrong environment is told: by variable, in the same words for every program."""

from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PositiveInt, ValidationError, model_validator

from everwarm_core.environment import environment_error, split_list


class Settings(BaseModel):
    """As a program's."""

    port: PositiveInt
    first: str = ""
    second: str = ""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.first and not self.second:
            raise ValueError("second: needed beside first")
        return self


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, ("EVERWARM_PORT", "not set")),
        ({"port": -1}, ("EVERWARM_PORT", "Input should be greater than 0")),
        ({"port": 1, "first": "x"}, ("EVERWARM_SECOND", "needed beside first")),
    ],
    ids=["missing", "wrong", "a rule over two"],
)
def test_a_wrong_setting_is_told_by_its_variable(given: dict[str, object], problem: tuple[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given)
    assert environment_error("this test", caught.value).problems == (problem,)


@given(parts=st.lists(st.text("abc.-_", min_size=1)), gap=st.sampled_from([",", ", ", " ,", ",,"]))
def test_a_list_is_what_stands_between_commas(parts: list[str], gap: str) -> None:
    assert split_list(gap.join(parts)) == tuple(parts)
    assert split_list(tuple(parts)) == tuple(parts)
