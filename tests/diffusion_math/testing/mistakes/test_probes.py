"""Coefficients read off by vectors, and what code under test may return or raise."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math.testing.mistakes.probes import (
    VECTORS,
    coefficients,
    events,
    guarded,
    name_of,
    one_by_one,
    parts,
    tensor,
    time_batch,
)

A, B = torch.tensor([2.0, 0.0, -3.0])[:, None], torch.tensor([0.5, 1.0, 0.0])[:, None]


def read(call, dtype: torch.dtype = torch.float64):  # type: ignore[no-untyped-def]
    return coefficients("mine", call, ("x", "z"), 3, dtype)


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float64, 2.0**-52), (torch.float32, 2.0**-23)])
def test_coefficients_are_read_off_in_each_row(dtype: torch.dtype, eps: float) -> None:
    def call(given: Mapping[str, Tensor]) -> Tensor:
        assert given["x"].dtype == dtype and given["x"].shape == (3, len(VECTORS))
        return A.to(dtype) * given["x"] + B.to(dtype) * given["z"]

    found, its = read(call, dtype)
    assert its == eps and found.keys() == {"x", "z"}
    assert torch.equal(found["x"], A[:, 0].double()) and torch.equal(found["z"], B[:, 0].double())


def test_an_offset_is_a_field() -> None:
    found, _ = read(lambda given: A * given["x"] + B * given["z"] + 7)
    assert torch.equal(found["offset"], torch.full((3,), 7.0, dtype=torch.float64))
    assert torch.equal(found["x"], A[:, 0].double())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g["x"] + g["z"].flip(1), "z does not act entry by entry: an event of"),
        (lambda g: g["x"].sum(1, keepdim=True) + g["z"], "x does not act entry by entry"),
        (lambda g: g["x"].clamp(-1, 1) + g["z"], "x does not act entry by entry"),
        (lambda g: g["x"] * (1 + g["z"]), "wanted a sum of multiples of x, z"),
        (lambda g: g["x"][:, :2], r"wanted a result of shape \(3, 4\), got \(3, 2\)"),
        (lambda g: g["x"][:, :, None], r"wanted a result of shape \(3, 4\), got \(3, 4, 1\)"),
        (lambda g: None, "wanted an array, got NoneType"),
        (lambda g: "text", "wanted an array, got str"),
        (lambda g: [g["x"], g["x"][:1]], "wanted an array, got list of 2"),
        (lambda g: g["x"] * 1j, "wanted real numbers, got torch.complex128"),
    ],
)
def test_what_is_no_sum_of_multiples_is_told(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssertionError, match=f"^mine: {message}"):
        read(call)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_cancellation_leaves_is_no_mixture(dtype: torch.dtype) -> None:
    def eps_from_v(given: Mapping[str, Tensor]) -> Tensor:
        """v's noise at sigma = 0.01, by way of x0."""
        sigma = torch.tensor(0.01, dtype=dtype)
        alpha = (1 - sigma**2).sqrt()
        x0 = alpha * given["x"] - sigma * given["v"]
        return (given["x"] - alpha * x0) / sigma

    found, eps = coefficients("mine", eps_from_v, ("x", "v"), 3, dtype)
    assert torch.allclose(found["x"], torch.tensor(0.01).double(), atol=64 * eps)


def test_a_mixture_is_told_beside_rows_that_are_not_finite() -> None:
    def call(given: Mapping[str, Tensor]) -> Tensor:
        result = given["x"] + given["z"].flip(1)
        result[0] = torch.nan
        return result

    with pytest.raises(AssertionError, match="z does not act entry by entry"):
        read(call)


def test_nan_is_a_coefficient() -> None:
    def call(given: Mapping[str, Tensor]) -> Tensor:
        result = given["x"] + given["z"]
        result[1] = torch.nan
        return result

    assert read(call)[0]["x"].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("value", "wanted", "eps"),
    [
        (2, 2.0, 2.0**-52),
        (2.5, 2.5, 2.0**-52),
        (np.float32(2.5), 2.5, 2.0**-23),
        (np.full((3, 1), 2.5), 2.5, 2.0**-52),
        (torch.full((3,), 2.5), 2.5, 2.0**-23),
        ([[2.5] * 4] * 3, 2.5, 2.0**-52),
        (torch.full((3, 4), 2.5, requires_grad=True), 2.5, 2.0**-23),
    ],
)
def test_any_array_becomes_a_tensor(value: object, wanted: float, eps: float) -> None:
    found, its = tensor("mine", value, torch.zeros(3, 4))
    assert torch.equal(found, torch.full((3, 4), wanted, dtype=torch.float64)) and its == eps


def test_a_coarser_array_is_refused() -> None:
    half = torch.full((1, 4), 2.5, dtype=torch.bfloat16)
    for rounding, like in ((0.0, half), (2.0**-7, torch.zeros(1, 4))):
        assert tensor("mine", half, like, rounding)[1] == 2.0**-7
    for like in (torch.zeros(1, 4), half.half()):
        with pytest.raises(
            AssertionError, match=r"^mine: wanted a result in float.., got bfloat16"
        ):
            tensor("mine", half, like)


def test_rows_have_events_of_their_own() -> None:
    rows = [tuple(row) for row in events(48).tolist()]
    assert len(set(rows)) == 48 and {tuple(sorted(map(abs, row))) for row in rows} == {
        tuple(sorted(map(abs, VECTORS)))
    }


def test_a_read_only_array_is_taken_without_a_warning() -> None:
    array = np.ones((3, 4))
    array.flags.writeable = False
    assert tensor("mine", array, torch.zeros(3, 4))[0].sum() == 12


@pytest.mark.parametrize("error", [KeyError("t"), IndexError("9"), AssertionError("no"), OSError()])
def test_an_exception_of_code_under_test_names_it(error: Exception) -> None:
    def broken(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(AssertionError, match=f"^mine: raised {type(error).__name__}") as caught:
        guarded("mine", broken)(torch.zeros(1))
    assert caught.value.__cause__ is error


def test_the_first_results_of_several() -> None:
    assert parts("mine", (1, 2, 3), 2) == (1, 2)
    with pytest.raises(AssertionError, match="mine: wanted 2 results, got tuple of 1"):
        parts("mine", (1,), 2)
    with pytest.raises(AssertionError, match="mine: wanted 2 results, got Tensor"):
        parts("mine", torch.zeros(2), 2)


def test_a_function_of_one_time_is_called_once_a_row() -> None:
    seen = []

    def one(x: Tensor, t: int) -> tuple[Tensor, float]:
        seen.append((t, tuple(x.shape)))
        return t * x, t / 2

    x = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    mean, spread = one_by_one("mine", one)(x, torch.tensor([5, 6, 7]))
    assert seen == [(5, (1, 4)), (6, (1, 4)), (7, (1, 4))]
    assert torch.equal(mean, x * torch.tensor([[5.0], [6.0], [7.0]]))
    assert torch.equal(spread, torch.tensor([2.5, 3.0, 3.5]).double()[:, None].expand(3, 4))
    single = one_by_one("mine", lambda x, t: one(x, t)[0])(x, torch.tensor([5.0, 6.0, 7.0]))
    assert torch.equal(single, mean) and single.dtype == torch.float32
    assert type(seen[-1][0]) is float


def test_results_of_one_time_that_do_not_fit_are_told() -> None:
    x, t = torch.zeros(3, 4), torch.arange(3)
    with pytest.raises(
        AssertionError, match=r"mine: wanted a result of shape \(1, 4\), got \(2,\)"
    ):
        one_by_one("mine", lambda x, t: torch.zeros(2))(x, t)
    with pytest.raises(AssertionError, match="mine: wanted 2 results, got tuple of 1"):
        one_by_one("mine", lambda x, t: (x, x) if t == 0 else (x,))(x, t)


def test_names_in_messages() -> None:
    assert name_of(read, "otherwise") == "read"
    assert name_of(lambda: 1, "otherwise") == "otherwise"
    assert name_of(partial(read), "otherwise") == "otherwise"


def test_times_are_whole_or_real() -> None:
    assert time_batch([1, 2]).dtype == torch.int64
    assert time_batch([1, 2.5]).tolist() == [1.0, 2.5]
    with pytest.raises(ValueError, match="times: wanted times of their own, got clean data"):
        time_batch([None, 1])
