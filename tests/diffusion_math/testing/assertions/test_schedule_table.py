"""`assert_table`: tables as people compute them pass in both precisions, and mistakes are named."""

import pytest
import torch
from torch import Tensor

from diffusion_math.schedule import Discrete
from diffusion_math.testing import MistakeError, assert_table
from diffusion_math.testing.assertions.schedule_table import TABLES

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

SCHEDULES = {
    "SD": Discrete.scaled_linear().betas,
    "cosine": Discrete.cosine(100).betas,
    "short": Discrete.linear(7, 1e-3, 0.2).betas,
}


def plain(betas: Tensor) -> dict[str, Tensor]:
    """The tables of `TABLES` as DDPM's code has them, in the dtype of the betas."""
    abar = torch.cumprod(1 - betas, 0)
    prev = torch.cat([abar.new_ones(1), abar[:-1]])
    variance = betas * (1 - prev) / (1 - abar)
    return {
        "betas": betas,
        "alphas": 1 - betas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": prev,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "one_minus_alphas_cumprod": 1 - abar,
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas": (1 / (1 - betas)).sqrt(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": torch.cat([variance[1:2], variance[1:]]).log(),
        "posterior_mean_coef1": betas * prev.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - prev) * (1 - betas).sqrt() / (1 - abar),
        "half_log_snr": (abar.log() - (1 - abar).log()) / 2,
        "snr": abar / (1 - abar),
        "sigmas": ((1 - abar) / abar).sqrt(),
    }


def levels_of(betas: Tensor):
    abar = torch.cumprod(1 - betas, 0)
    return lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt())


@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", TABLES)
def test_plain_tables_pass_and_one_percent_fails(name: str, dtype: torch.dtype) -> None:
    for betas in SCHEDULES.values():
        own = betas.to(dtype)
        table, levels, times = plain(own)[name], levels_of(own), range(len(own))
        assert_table(table, levels, times, name)
        with pytest.raises(MistakeError, match=f"the {name} differs"):
            assert_table(1.01 * table, levels, times, name)
    assert_table(table.tolist() if dtype == torch.float64 else table.numpy(), levels, times, name)


def test_the_first_variance_is_one_of_those_in_use() -> None:
    betas = SCHEDULES["short"]
    levels, times = levels_of(betas), range(7)
    variance = plain(betas)["posterior_variance"]
    for first in (0.0, 1e-20, float(variance[1])):
        variance[0] = first
        assert_table(variance, levels, times, "posterior_variance")
        assert_table(variance.log(), levels, times, "posterior_log_variance_clipped")
    variance[0] = betas[0]
    with pytest.raises(MistakeError, match="differs at 1 of 7 indices, most at t = 0"):
        assert_table(variance, levels, times, "posterior_variance")
    assert_table([0.0], levels, [0], "posterior_variance")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("alphas_cumprod_prev", lambda b, a: torch.cat([a[:1], a[:-1]]), "with the first level"),
        ("posterior_variance", lambda b, a: b, "the posterior_variance is beta"),
        ("sqrt_one_minus_alphas_cumprod", lambda b, a: 1 - a, "is (its right value)^2"),
        ("sqrt_recip_alphas", lambda b, a: 1 / (1 - b), "is (its right value)^2"),
        ("snr", lambda b, a: (a / (1 - a)).sqrt(), "the snr is sqrt(its right value)"),
        ("betas", lambda b, a: b.flip(0), "of the index counted from the other end"),
    ],
)
def test_a_wrong_table_is_named(name: str, wrong, said: str, dtype: torch.dtype) -> None:
    betas = Discrete.linear(50, 1e-3, 0.1).betas.to(dtype)
    table = wrong(betas, torch.cumprod(1 - betas, 0))
    with pytest.raises(MistakeError) as caught:
        assert_table(table, levels_of(betas), range(50), name)
    assert said in caught.value.mistakes[0].name


def test_bad_arguments_are_told_in_one_line() -> None:
    levels = levels_of(SCHEDULES["short"])
    with pytest.raises(ValueError, match=r"^name: wanted one of betas, .*, got beta$"):
        assert_table([0.1], levels, [0], "beta")
    with pytest.raises(
        AssertionError, match=r"^betas: wanted a result of shape \(7, 1\), got \(3,\)$"
    ):
        assert_table([0.1, 0.2, 0.3], levels, range(7), "betas")
