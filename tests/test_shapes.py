"""The suite's checker of shapes: what it keeps still refuses what it should."""

from typing import Literal

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from tests.shapes import checked, checks


def maker(kind):
    """A local function, made and checked anew at every call, as the hook does it."""

    @jaxtyped(typechecker=checked)
    def added(x: Float[Tensor, " n"], y: kind) -> Float[Tensor, " n"]:
        return x + y

    return added


def test_each_copy_of_a_local_function_is_checked_and_is_itself():
    same, other = torch.zeros(3), torch.zeros(2)
    for _ in range(3):
        assert maker(Float[Tensor, " n"])(same, same) is not same
        with pytest.raises(TypeCheckError):
            maker(Float[Tensor, " n"])(same, other)


def test_other_annotations_under_one_name_are_other_checks():
    x, column = torch.zeros(3), torch.zeros(3, 1)
    assert maker(Float[Tensor, " n"])(x, x).shape == (3,)
    assert maker(float)(x, 1.0).shape == (3,)
    with pytest.raises(TypeCheckError):
        maker(float)(x, x)
    with pytest.raises(TypeCheckError):  # what comes back is checked too
        maker(Float[Tensor, "n 1"])(x, column)


def test_it_is_made_once():
    def made(default):
        def local(n: int = default) -> int:
            return n

        return local

    assert checks(made(1)) is checks(made(1))
    assert checks(made(2)) is not checks(made(1))


def test_a_default_without_a_hash_is_checked_all_the_same():
    @jaxtyped(typechecker=checked)
    def length(values: list[int] = []) -> int:  # noqa: B006
        return len(values)

    assert length() == 0 and length([1]) == 1
    with pytest.raises(TypeCheckError):
        length(3)


def test_only_a_call_that_looks_the_same_in_everything_is_not_checked_again():
    @jaxtyped(typechecker=checked)
    def picked(
        x: Float[Tensor, " n"],
        y: Float[Tensor, " n"],
        how: Literal["first", "last"],
        more: list[int],
    ) -> Float[Tensor, " n"]:
        return x if how == "first" else y

    x = torch.zeros(3)
    for _ in range(2):
        picked(x, x, "first", more=[1])
        for wrong in (
            (x, torch.zeros(4), "first", [1]),
            (x, x.int(), "first", [1]),
            (x, x, "other", [1]),
            (x, x, "first", ["1"]),
        ):
            with pytest.raises(TypeCheckError):
                picked(*wrong)


def test_another_value_of_a_call_that_passed_is_checked():
    values = [torch.zeros(3), torch.zeros(3), torch.zeros(4)]

    @jaxtyped(typechecker=checked)
    def next_one(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return values.pop(0)

    next_one(torch.zeros(3)), next_one(torch.ones(3))
    with pytest.raises(TypeCheckError):
        next_one(torch.zeros(3))
