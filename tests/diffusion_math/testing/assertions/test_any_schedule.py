"""Any schedule, in float64 and float32: right code passes, and 1% of any coefficient fails."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffusion_math.testing.assertions.forward import assert_forward
from diffusion_math.testing.assertions.posterior import assert_posterior
from diffusion_math.testing.assertions.prediction_maps import assert_prediction_maps
from diffusion_math.testing.assertions.transition import assert_transition
from diffusion_math.testing.mistakes.diagnosis import MistakeError
from diffusion_math.testing.strategies import betas

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own


class Process:
    """Tables of alpha and sigma in one dtype, index 0 the first, and code as people write it."""

    def __init__(self, alpha: Tensor, sigma: Tensor) -> None:
        self.alpha, self.sigma = alpha, sigma
        self.off = dict.fromkeys(("x0", "x_t", "noise", "x", "variance", "given"), 1.0)

    def levels(self, i: int) -> tuple[Tensor, Tensor]:
        return self.alpha[i], self.sigma[i]

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha[t, None], self.sigma[t, None]

    def before(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.at(t - 1)
        first = (t == 0)[:, None]
        return torch.where(first, 1, alpha), torch.where(first, 0, sigma)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = self.at(t)
        return self.off["x0"] * alpha * x0 + self.off["noise"] * sigma * noise

    def q(self, x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.at(t), self.at(s)
        ratio = alpha_t / alpha_s
        deviation = (sigma_t**2 - (ratio * sigma_s) ** 2).sqrt()
        return self.off["x"] * ratio * x + self.off["noise"] * deviation * noise

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.at(t), self.before(t)
        ratio = alpha_t / alpha_s
        between = sigma_t**2 - (ratio * sigma_s) ** 2
        mean = self.off["x0"] * alpha_s * between / sigma_t**2 * x0
        mean = mean + self.off["x_t"] * ratio * (sigma_s / sigma_t) ** 2 * x_t
        return mean, self.off["variance"] * between * (sigma_s / sigma_t) ** 2

    def x0_from_eps(self, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.at(t)
        return (self.off["x_t"] * x_t - self.off["given"] * sigma * eps) / alpha

    def eps_from_x0(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.at(t)
        return (x_t - alpha * x0) / sigma

    def check(self, what: str, dtype: torch.dtype) -> None:
        times = range(len(self.alpha))
        if what == "forward":
            assert_forward(self.q_sample, self.levels, times, dtype=dtype)
        elif what == "transition":
            assert_transition(self.q, self.levels, times, dtype=dtype)
        elif what == "posterior":
            assert_posterior(self.posterior, self.levels, times, dtype=dtype)
        else:
            maps = {"x0_from_eps": self.x0_from_eps, "eps_from_x0": self.eps_from_x0}
            assert_prediction_maps(maps, self.levels, times, dtype=dtype)


def preserving(betas: Tensor, dtype: torch.dtype) -> Process:
    abar = torch.cumprod(1 - betas.to(dtype), 0)
    return Process(abar.sqrt(), (1 - abar).sqrt())


def exploding(steps: Tensor, dtype: torch.dtype) -> Process:
    sigma = 0.01 * torch.cumprod(1 + 2 * steps.to(dtype), 0)
    return Process(torch.ones_like(sigma), sigma)


def straight(steps: Tensor, dtype: torch.dtype) -> Process:
    sigma = torch.cumsum(steps.to(dtype), 0)
    sigma = 0.98 * sigma / sigma[-1]
    return Process(1 - sigma, sigma)


CHECKS = {
    "forward": ("x0", "noise"),
    "transition": ("x", "noise"),
    "posterior": ("x0", "x_t", "variance"),
    "maps": ("x_t", "given"),
}


@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("path", [preserving, exploding, straight])
@settings(max_examples=10)
@given(
    steps=betas(steps=(3, 12), values=(1e-3, 0.3)),
    wrong=st.sampled_from([(what, each) for what, all_ in CHECKS.items() for each in all_]),
    factor=st.sampled_from([1.01, 0.99]),
)
def test_right_code_passes_and_one_percent_fails(
    path: Callable[..., Process],
    dtype: torch.dtype,
    steps: Tensor,
    wrong: tuple[str, str],
    factor: float,
) -> None:
    process = path(steps, dtype)
    for what in CHECKS:
        process.check(what, dtype)
    what, coefficient = wrong
    process.off[coefficient] = factor
    with pytest.raises(MistakeError):
        process.check(what, dtype)


@pytest.mark.parametrize("what", CHECKS)
def test_one_percent_of_a_narrow_process_fails_in_float32(what: str) -> None:
    """All sigma below 0.03 and alpha = 1: alpha^2 + sigma^2 is 1 to 1e-3, but no claim."""
    for coefficient in CHECKS[what]:
        process = exploding(torch.tensor([0.25, 0.125, 0.25]), torch.float32)
        process.off[coefficient] = 1.01
        with pytest.raises(MistakeError):
            process.check(what, torch.float32)


def test_one_percent_at_one_index_of_a_thousand_fails() -> None:
    process = preserving(torch.linspace(1e-4, 0.02, 1000), torch.float32)
    right = process.q_sample

    def wrong(x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        factor = torch.where(t == 500, 1.01, 1.0).float()[:, None]
        return right(x0, t, factor * noise)

    with pytest.raises(MistakeError, match="differs at 1 of 1000 indices, most at t = 500"):
        assert_forward(wrong, process.levels, range(1000), dtype=torch.float32)
