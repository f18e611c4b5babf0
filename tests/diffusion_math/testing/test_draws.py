"""Draws of noise that a given noise replaces, in torch and numpy, and nothing else that changes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math.testing.draws import Draws, drawn

NOISE = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 1.0]], dtype=torch.float64)
X = torch.zeros(3, 2, dtype=torch.float64)
RNG = torch.Generator()

TORCH: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "randn": (lambda x: torch.randn(3, 2), 0, 1),
    "randn of a shape": (lambda x: torch.randn(x.shape, dtype=x.dtype, generator=RNG), 0, 1),
    "randn_like": (torch.randn_like, 0, 1),
    "normal of tensors": (lambda x: torch.normal(x + 5, x + 2), 5, 2),
    "normal of a tensor": (lambda x: torch.normal(x + 5, 2.0), 5, 2),
    "normal of a mean alone": (lambda x: torch.normal(x + 5), 5, 1),
    "normal of a deviation": (lambda x: torch.normal(5.0, x + 2), 5, 2),
    "normal of a size": (lambda x: torch.normal(5.0, 2.0, size=x.shape, generator=RNG), 5, 2),
    "normal_": (lambda x: torch.empty_like(x).normal_(5, std=2), 5, 2),
    "normal_ as it is": (lambda x: x.clone().normal_(generator=RNG), 0, 1),
    "init": (lambda x: torch.nn.init.normal_(torch.empty_like(x), 5, 2), 5, 2),
    "a distribution": (lambda x: torch.distributions.Normal(x + 5, x + 2).rsample(), 5, 2),
    "randn of the other size": (lambda x: torch.randn(6).reshape(3, 2), 0, 1),
    "numpy.random.randn": (lambda x: torch.tensor(np.random.randn(3, 2)), 0, 1),  # noqa: NPY002
    "numpy.random.normal": (
        lambda x: torch.tensor(np.random.normal(5, 2, (3, 2))),  # noqa: NPY002
        5,
        2,
    ),
    "numpy.random.standard_normal": (
        lambda x: torch.tensor(np.random.standard_normal((3, 2))),  # noqa: NPY002
        0,
        1,
    ),
    "default_rng": (
        lambda x: torch.tensor(np.random.default_rng(0).normal(x.numpy() + 5, 2)),
        5,
        2,
    ),
}


@pytest.mark.parametrize("way", TORCH)
def test_each_way_of_drawing_gives_the_noise(way: str) -> None:
    draw, mean, deviation = TORCH[way]
    found = drawn(draw)(X, NOISE)
    assert torch.equal(found.double(), mean + deviation * NOISE)


def test_a_generator_of_numpy_is_given_by_its_keyword() -> None:
    def add(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x + rng.standard_normal(x.shape, dtype=np.float32)

    found = drawn(add, generator="rng")(np.zeros((3, 2)), NOISE)
    assert np.array_equal(found, NOISE.numpy())
    out = np.empty((3, 2))
    assert Draws(NOISE).standard_normal(out=out) is not None and np.array_equal(out, NOISE)


def test_no_random_state_is_touched() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    normal, rng = np.random.normal, np.random.default_rng
    for draw, _, _ in TORCH.values():
        drawn(draw)(X, NOISE)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert np.random.normal is normal and np.random.default_rng is rng


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "wanted one draw of a normal, got 0"),
        (lambda x: torch.rand_like(x), "wanted one draw of a normal, got 0"),
        (lambda x: torch.randn_like(x) + torch.randn_like(x), "wanted one draw of a normal, got 2"),
        (lambda x: torch.randn(3, 1), r"wanted a normal of shape \(3, 2\), got \(3, 1\)"),
        (lambda x: torch.randn(()), r"wanted a normal of shape \(3, 2\), got \(\)"),
    ],
)
def test_another_count_or_size_is_told(function: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        drawn(function)(X, NOISE)


def test_what_is_no_draw_is_left_alone() -> None:
    found = drawn(lambda x: torch.randn_like(x) + torch.ones(2).cumsum(0))(X, NOISE)
    assert torch.equal(found, NOISE + torch.tensor([1.0, 2.0]))
