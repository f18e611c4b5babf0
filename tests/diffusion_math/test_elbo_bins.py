"""C15: the probability of an 8-bit level, against 60 digits, far into the tails."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.elbo import quantized_log_probability
from diffusion_math.gaussian import Gaussian

EPS = torch.finfo(torch.float64).eps
LEVELS = 2 * torch.arange(256, dtype=torch.float64) / 255 - 1

means = st.floats(-3, 3)
stds = st.floats(-4, 3).map(lambda exponent: 10.0**exponent)


def every_level(mean, std, dtype=torch.float64):
    """log P of the 256 levels, as 256 examples of one entry."""
    p = Gaussian(torch.full((256, 1), mean, dtype=dtype), torch.tensor(std**2, dtype=dtype))
    return quantized_log_probability(p, LEVELS.to(dtype)[:, None])


def exactly(k, mean, std, digits=60):
    """log P of level k, and the distance of its nearer edge in standard deviations."""
    with mpmath.workdps(digits):
        centre, variance = mpf(2 * k) / 255 - 1 - mpf(mean), mpf(std**2)
        low, high = ((centre + side * mpf(1) / 255) / mpmath.sqrt(2 * variance) for side in (-1, 1))
        below = mpf(2) if k == 0 else mpmath.erfc(low)
        above = mpf(0) if k == 255 else mpmath.erfc(high)
        if low + high < 0 and k > 0:  # the other tail: erfc near 2 would lose the digits
            below, above = (mpf(2) if k == 255 else mpmath.erfc(-high)), mpmath.erfc(-low)
        elif k == 0:
            below, above = mpmath.erfc(-high), mpf(0)
        reach = math.sqrt(2) * min(abs(float(low)), abs(float(high)))
        return float(mpmath.log((below - above) / 2)), reach


@given(means, stds)
def test_all_levels_sum_to_one(mean, std):
    """Wherever the Gaussian lies and however wide: neighbours share an edge, the ends are open.

    Tolerance: 256 probabilities, each within EPS (1 + std / bin) of its size.
    """
    total = every_level(mean, std).exp().sum().item()
    assert total == pytest.approx(1, abs=64 * EPS * (1 + 255 * std))


@pytest.mark.claim("C15", "diffusion_math.elbo.quantized_log_probability")
@settings(max_examples=200)
@given(st.integers(0, 255), means, stds)
def test_against_sixty_digits(measured, k, mean, std):
    """Every level, up to 4e4 standard deviations away, where log P is -8e8.

    Tolerance: an edge at a standard deviations is known to EPS (a + 4 / std), the logarithm falls
    at a rate of 1 + a, and a thin bin's probability cancels to EPS std / bin.
    """
    got = every_level(mean, std)[k].item()
    wanted, reach = exactly(k, mean, std)
    slack = (1 + reach) * (1 + reach + 4 / std) + 255 * std
    assert math.isfinite(got)
    measured(abs(got - wanted) / slack, 16 * EPS, "error of log P, over its edges' conditioning")


def test_hundreds_of_deviations_off():
    """A mean 300 and 30 000 deviations from the level: finite, exact, and with a slope."""
    for mean, std in ((-1.0, 0.005), (0.5, 5e-5), (3.0, 0.01)):
        for k in (0, 1, 128, 254, 255):
            got = every_level(mean, std)[k].item()
            assert got == pytest.approx(exactly(k, mean, std)[0], rel=1e-12, abs=1e-290)
    assert every_level(-1.0, 0.005)[255].item() < -75_000
    naive = torch.special.ndtr(torch.tensor(400.0)) - torch.special.ndtr(torch.tensor(398.4))
    assert naive == 0  # what a plain difference of CDFs would take the logarithm of


@settings(max_examples=30)
@given(means, stds)
def test_slopes_are_those_of_the_integral(mean, std):
    """d log P / d mean = (phi(low) - phi(high)) / (std P), by autograd, and finite everywhere."""
    m = torch.full((256, 1), mean, dtype=torch.float64, requires_grad=True)
    v = torch.full((256, 1), std**2, dtype=torch.float64, requires_grad=True)
    log_p = quantized_log_probability(Gaussian(m, v), LEVELS[:, None])
    by_mean, by_variance = torch.autograd.grad(log_p.sum(), (m, v))
    assert bool(by_mean.isfinite().all() & by_variance.isfinite().all())
    low, high = ((LEVELS + side / 255 - mean) / std for side in (-1, 1))
    low[0], high[255] = -math.inf, math.inf
    phi = [
        torch.exp(-edge.square() / 2 - log_p.detach()) / math.sqrt(2 * math.pi)
        for edge in (low, high)
    ]
    near = torch.minimum(low.abs(), high.abs()) < 5
    wanted = ((phi[0] - phi[1]) / std)[near]
    atol = 1e-12 / std * (1 + 255 * std + 1 / std)
    torch.testing.assert_close(by_mean[near, 0], wanted, rtol=1e-9, atol=atol)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 150), (torch.float32, 18)])
def test_slopes_hold_to_the_end_of_the_range(dtype, most):
    """d log P / d mean -> z / std for the nearer edge, z deviations off: to 1e150, 1e18 in float32.

    torch's log_ndtr takes exp(-(log Phi + z^2 / 2)) / sqrt(2 pi) for it, which is wrong from 1e8 on
    and NaN at 1e18.
    """
    far = torch.logspace(3, most, 300, dtype=torch.float64)
    std = (0.5 - 1 / 255) / far
    mean = torch.full((300, 1), 0.5, dtype=dtype, requires_grad=True)
    x0 = torch.full_like(mean, 1.0).detach()
    p = Gaussian(mean, std.square().to(dtype)[:, None])
    (slope,) = torch.autograd.grad(quantized_log_probability(p, x0).sum(), mean)
    wanted = (far / std)[:, None]
    torch.testing.assert_close(slope.double(), wanted, rtol=3e-6, atol=0)


def test_a_variance_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"^p.variance: wanted above 0, got 0\.0"):
        quantized_log_probability(Gaussian(torch.zeros(1, 1), torch.zeros(())), torch.ones(1, 1))


def test_a_thin_bin_is_a_density_times_its_width():
    """log P -> log N(x) + log(2 / 255), with an error of h^2 / 24 of the log-density's bend."""
    for std in (0.3, 3.0):
        h = 2 / 255 / std
        p = Gaussian(torch.full((256, 1), 0.1).double(), torch.tensor(std**2).double())
        density = p.log_density(LEVELS[:, None]) + math.log(2 / 255)
        got = quantized_log_probability(p, LEVELS[:, None])
        z = (LEVELS - 0.1) / std
        bend = h**2 / 24 * (z.square() - 1)
        inner = slice(1, 255)
        torch.testing.assert_close(got[inner], (density + bend)[inner], rtol=0, atol=h**3)
        assert (got - density)[inner].abs().max() > h**2 / 30
        assert (got - density)[[0, 255]].min() > 1  # the open bins hold a tail as well


def test_wrong_bins_are_rejected_by_the_sum():
    """Closed ends, bins of half or twice the width: their sums are far from 1."""
    cdf = torch.special.ndtr
    for mean, std in ((0.9, 0.3), (0.0, 1.0)):
        edges = [(LEVELS + side / 255 - mean) / std for side in (-2, -1, -0.5, 0.5, 1, 2)]
        for low, high in ((1, 4), (2, 3), (0, 5)):
            total = (cdf(edges[high]) - cdf(edges[low])).sum().item()
            assert abs(total - 1) > 0.1
        assert every_level(mean, std).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_single_precision_and_events():
    """float32 pictures are near their float64 value; an event's entries are summed."""
    for mean, std in ((0.2, 0.02), (-0.7, 0.3), (0.0, 2.0)):
        narrow, wide = every_level(mean, std, torch.float32), every_level(mean, std)
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-4 * (1 + std))
    x0 = LEVELS.reshape(2, 4, 32)
    p = Gaussian(0.3 * x0, torch.tensor(0.01, dtype=torch.float64))
    each = quantized_log_probability(Gaussian(p.mean.flatten(), p.variance), LEVELS)
    torch.testing.assert_close(
        quantized_log_probability(p, x0), each.reshape(2, -1).sum(1), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("value", [1.01, -1.01, 0.5 / 255, math.nan, math.inf])
def test_what_is_no_level_is_refused(value):
    p = Gaussian(torch.zeros(1, 1), torch.ones(()))
    with pytest.raises(ValueError, match=r"^x0.*: wanted every entry in"):
        quantized_log_probability(p, torch.full((1, 1), value))
    with pytest.raises(ValueError, match=r"^x0: wanted shape"):
        quantized_log_probability(p, torch.zeros(1, 1, 1))
