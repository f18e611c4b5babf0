"""SDEs of other conventions, as what `assert_schedule` takes."""

from typing import Any

import pytest
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math.testing import adaptors, assert_schedule

TIMES = [0.05, 0.1, 0.3, 0.5, 0.7, 0.9]


class VPSDE:
    """As in score_sde, Song et al. (arXiv:2011.13456)."""

    beta_0, beta_1 = 0.1, 20.0

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def sde(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        beta_t = self.beta_0 + t * (self.beta_1 - self.beta_0)
        return -0.5 * beta_t[:, None] * x, self.factor * torch.sqrt(beta_t)

    def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        log_mean = -0.25 * t**2 * (self.beta_1 - self.beta_0) - 0.5 * t * self.beta_0
        return torch.exp(log_mean)[:, None] * x, torch.sqrt(1 - torch.exp(2 * log_mean))


def test_a_process_of_songs_is_checked() -> None:
    mine = VPSDE()
    drift, g2 = adaptors.rates_of_sde(mine.sde)
    levels = adaptors.levels_of_marginal(mine.marginal_prob)
    assert_schedule(levels, TIMES, path="variance-preserving", drift=drift, g2=g2)
    alpha, sigma = dm.VPLinear()(0.3)
    assert levels(0.3) == pytest.approx((alpha.item(), sigma.item()), rel=1e-13)
    wrong = adaptors.rates_of_sde(VPSDE(2**0.5).sde)[1]
    with pytest.raises(AssertionError, match="g\\^2"):
        assert_schedule(levels, TIMES, drift=drift, g2=wrong)


def test_two_functions_of_plain_numbers_and_arrays() -> None:
    drift, g2 = adaptors.rates_of_sde(lambda x, t: ((-2 * t * x).numpy(), 3.0))
    assert (drift(0.25), g2(0.25)) == (-0.5, 9.0)
    full = adaptors.rates_of_sde(lambda x, t: (0 * x, 2 * torch.ones_like(x)))[1]
    assert full(0.1) == 4.0


WRONG: dict[str, tuple[Any, int, str]] = {
    "an offset": (lambda x, t: (x + 1, t), 0, "wanted a drift that is a multiple of x"),
    "a square": (lambda x, t: (x**2, t), 0, "does not act entry by entry|a sum of multiples"),
    "g of x": (lambda x, t: (x, x), 1, "wanted a diffusion that is a function of t alone"),
    "one result": (lambda x, t: x, 0, "wanted 2 results"),
    "an error": (lambda x, t: 1 / 0, 1, "raised ZeroDivisionError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_sde_is_told(name: str) -> None:
    sde, place, message = WRONG[name]
    with pytest.raises(AssertionError, match=message):
        adaptors.rates_of_sde(sde)[place](0.5)
