"""Schedules against their definitions in 50 digits; claim C05, erratum E4.

Tolerances are multiples of float64's rounding, EPS = 2^-52. A coefficient that passes through its
log-SNR carries that number's rounding, so its relative error is some EPS times (1 + |log-SNR|).
"""

import dataclasses
import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.schedule import (
    VE,
    Discrete,
    RectifiedFlow,
    Schedule,
    VPCosine,
    VPLinear,
    coefficients,
    shape_like,
)
from diffusion_math.testing.strategies import betas
from tests.support.schedules import continuous, exact_alpha_sigma, relative

EPS = torch.finfo(torch.float64).eps

FIXED: list[Schedule] = [
    Discrete.linear(),
    Discrete.linear(1),
    Discrete.scaled_linear(),
    Discrete.cosine(),
    Discrete.cosine(1),
    VPLinear(),
    VPCosine(),
    VE(),
    RectifiedFlow(),
]
each_schedule = pytest.mark.parametrize("schedule", FIXED, ids=lambda s: f"{type(s).__name__}")


@given(betas(), st.data())
def test_discrete_coefficients_to_rounding(values: torch.Tensor, data: st.DataObject) -> None:
    """C05's coefficients sqrt(abar_t), sqrt(1 - abar_t), also where abar_t is near 1 or 0."""
    schedule = Discrete(values)
    t = data.draw(st.integers(1, len(values)))
    alpha, sigma = exact_alpha_sigma(schedule, t)
    log_snr = 2 * mpmath.log(alpha / sigma)
    bound = 8 * EPS * (1 + len(values) + abs(float(log_snr)))
    assert relative(schedule(t)[0], alpha) < bound
    assert relative(schedule(t)[1], sigma) < bound
    assert abs(schedule.log_snr(t).item() - float(log_snr)) < 2 * bound


@given(continuous, st.floats(1e-9, 1))
def test_continuous_coefficients_to_rounding(schedule: Schedule, share: float) -> None:
    t = share * schedule.T
    alpha, sigma = exact_alpha_sigma(schedule, t)
    got = schedule(t)
    # exp(-B/2) turns the rounding of B into a relative error of B EPS; nothing else amplifies,
    # but for alpha near T of VPCosine, where the float pi / 2 is not pi / 2: an absolute EPS.
    bound = 8 * EPS * (1 + abs(float(mpmath.log(alpha))) if alpha > 1e-12 else 1)
    assert abs(got[0].item() - float(alpha)) <= bound * float(alpha) + EPS * float(1 - alpha)
    assert relative(got[1], sigma) < bound + 8 * EPS
    if alpha > 1e-3:
        log_snr = float(2 * mpmath.log(alpha / sigma))
        assert abs(schedule.log_snr(t).item() - log_snr) < 100 * EPS * (
            1 + abs(log_snr) + 1 / float(alpha)
        )


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_cosine_betas_to_rounding(steps: int) -> None:
    """1 - f(t)/f(t-1) in 50 digits; the float64 formula as printed loses up to 1/beta_t of EPS."""
    got = Discrete.cosine(steps).betas
    # The float32 of a peer, or the cancelling form, would miss this bound by orders of magnitude.
    for t in range(1, steps + 1):
        f = [
            mpmath.cos((mpf(u) / steps + mpf(0.008)) / (1 + mpf(0.008)) * mpmath.pi / 2) ** 2
            for u in (t - 1, t)
        ]
        exact = min(1 - f[1] / f[0], mpf(0.999))
        # near t = T, f is itself a small number: the angle's rounding over its distance to pi/2
        assert relative(got[t - 1], exact) < 4 * EPS * (2 + steps / (steps - t + 1))


def test_tables_are_the_published_ones() -> None:
    """First and last entries of DDPM section 4, of Stable Diffusion v1, of the clipped cosine."""
    linear, scaled = Discrete.linear(), Discrete.scaled_linear()
    assert linear.betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02], rel=4 * EPS)
    assert scaled.betas[[0, -1]].tolist() == pytest.approx([0.00085, 0.012], rel=4 * EPS)
    assert torch.allclose(linear.betas.diff(), linear.betas.diff()[0], rtol=1e-9, atol=0)
    roots = scaled.betas.sqrt().diff()
    assert torch.allclose(roots, roots[0], rtol=1e-9, atol=0)
    assert Discrete.cosine().betas.max() == 0.999
    assert scaled(1000)[0].item() == pytest.approx(0.0683, abs=5e-5)  # SD does not end in noise


@each_schedule
def test_clean_data_is_exact(schedule: Schedule) -> None:
    """t = 0 is (1, 0) and log-SNR +inf, not about that, and back."""
    assert [c.item() for c in schedule(0)] == [1.0, 0.0]
    assert schedule.log_snr(0).item() == math.inf
    assert schedule.time(math.inf).item() == 0.0
    assert 0 < schedule.t_min <= schedule.t_max <= schedule.T
    assert math.isfinite(schedule.log_snr(schedule.t_min).item())
    assert math.isfinite(schedule.log_snr(schedule.t_max).item())


@each_schedule
def test_log_snr_falls_strictly_and_time_inverts_it(schedule: Schedule) -> None:
    ends = torch.tensor([schedule.T, schedule.t_max, schedule.t_min, 0.0], dtype=torch.float64)
    t = torch.linspace(schedule.t_min, schedule.T, 2001, dtype=torch.float64).unique()
    log_snr = schedule.log_snr(t)
    assert bool((log_snr.diff() < 0).all())
    for times in (t, ends):
        back = schedule.time(schedule.log_snr(times))
        # The rounding of the log-SNR, over its slope: at worst the slope between two times here.
        slope = 1.0 if len(t) < 2 else float((log_snr.diff() / t.diff()).abs().min())
        bound = 8 * EPS * (schedule.T + 20 / slope)
        assert float((back - times).abs().max()) < bound


@given(betas(), st.data())
def test_discrete_time_inverts_log_snr(values: torch.Tensor, data: st.DataObject) -> None:
    schedule = Discrete(values)
    node = torch.arange(len(values) + 1, dtype=torch.float64)
    assert torch.equal(schedule.time(schedule.log_snr(node)), node)  # exact at the nodes
    t = data.draw(st.floats(1, len(values)))
    log_snr = schedule.log_snr(t)
    low = schedule.log_snr(math.floor(t)) - schedule.log_snr(min(math.floor(t) + 1, len(values)))
    bound = 8 * EPS * (len(values) + float(log_snr.abs()) / max(float(low), EPS))
    assert abs(schedule.time(log_snr).item() - t) <= max(bound, 8 * EPS * t)


@given(betas(steps=(2, 80)), st.data())
def test_fractional_times_interpolate_log_snr(values: torch.Tensor, data: st.DataObject) -> None:
    schedule = Discrete(values)
    node = data.draw(st.integers(1, len(schedule.betas) - 1))
    part = data.draw(st.floats(0, 1))
    here, after = schedule.log_snr(node), schedule.log_snr(node + 1)
    exact = (1 - part) * here + part * after
    bound = 8 * EPS * (here.abs() + after.abs() + (here - after) * len(schedule.betas))
    assert (schedule.log_snr(node + part) - exact).abs() <= bound


WRONG = {  # C05's coefficients as one might get them wrong, each from the betas up to t
    "alpha without its root": lambda b: (b.neg().add(1).prod(), None),
    "product of betas": lambda b: (b.prod().sqrt(), None),
    "one step too few": lambda b: ((1 - b[:-1]).prod().sqrt(), None),
    "one step too many": lambda b: ((1 - torch.cat([b, b[-1:]])).prod().sqrt(), None),
    "sigma = sqrt(beta_t)": lambda b: (None, b[-1].sqrt()),  # E4: 1 - alpha_t for 1 - abar_t
    "sigma without its root": lambda b: (None, 1 - (1 - b).prod()),
    "sigma = 1 - alpha": lambda b: (None, 1 - (1 - b).prod().sqrt()),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_coefficients_are_rejected(name: str) -> None:
    """C05, E4: the bound of the test above rejects each by a factor of at least 1e6."""
    schedule = Discrete(torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64))
    right = exact_alpha_sigma(schedule, 3)
    for wrong, exact in zip(WRONG[name](schedule.betas), right, strict=True):
        if wrong is not None:
            assert relative(wrong, exact) > 1e6 * 8 * EPS * 5


@each_schedule
def test_shapes_and_dtypes(schedule: Schedule) -> None:
    for t in (1, 1.0, torch.tensor(1), torch.tensor([1, 0]), torch.ones(0), torch.ones(2, 3)):
        shape = torch.as_tensor(t).shape
        for c in (*schedule(t), schedule.log_snr(t), schedule.time(schedule.log_snr(t))):
            assert c.shape == shape
            assert c.dtype == torch.float64
            assert c.device.type == "cpu"


@each_schedule
@pytest.mark.parametrize("t", [-1e-9, math.nan, math.inf, "beyond"])
def test_illegal_times_are_rejected(schedule: Schedule, t: float | str) -> None:
    time = schedule.T * (1 + 2 * EPS) if t == "beyond" else float(t)
    with pytest.raises(ValueError, match=r"^t: wanted"):
        schedule(time)
    with pytest.raises(ValueError, match=r"^t: wanted"):
        schedule.log_snr(torch.tensor([0.0, time], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^log_snr: wanted"):
        schedule.time(math.nan)
    if math.isfinite(schedule.log_snr(schedule.T)):
        with pytest.raises(ValueError, match=r"^log_snr: wanted"):
            schedule.time(schedule.log_snr(schedule.T) - 1e-6)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_discrete_has_nothing_between_0_and_1(t: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Discrete.linear(10)(t)
    with pytest.raises(ValueError, match=r"^log_snr: wanted at most"):
        Discrete.linear(10).time(Discrete.linear(10).log_snr(1) + max(t, 1e-9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"shape \(T,\)"),
        ([0.0], r"\(0, 1\)"),
        ([1.0], r"\(0, 1\)"),
        ([-0.1], r"\(0, 1\)"),
        ([math.nan], r"\(0, 1\)"),
        ([0.5, 1e-300], "lower the log-SNR"),
        ([0.999] * 200, "normal range"),
    ],
)
def test_illegal_betas_are_rejected(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Discrete(torch.tensor(values, dtype=torch.float64))


def test_illegal_parameters_are_rejected() -> None:
    for low, high in ((0.0, 1.0), (2.0, 1.0), (0.1, 2000.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="beta_min"):
            VPLinear(low, high)
    for sigma_max in (0.002, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma_max"):
            VE(sigma_max)
    for make in (Discrete.linear, Discrete.scaled_linear, Discrete.cosine):
        with pytest.raises(ValueError, match="steps"):
            make(0)


def test_schedules_are_frozen_and_keep_their_own_table() -> None:
    values = torch.tensor([0.1, 0.2], dtype=torch.float64)
    schedule = Discrete(values)
    values[0] = 0.9
    assert schedule.betas[0] == 0.1
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.betas = values  # type: ignore[misc]
    t = torch.tensor(3.0, dtype=torch.float64)
    VE()(t)[1].add_(1)
    assert t == 3.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("event", [(), (3,), (2, 1, 4)])
def test_coefficients_take_the_samples_dtype_and_shape(
    dtype: torch.dtype, event: tuple[int, ...]
) -> None:
    schedule, x = VPCosine(), torch.ones(4, *event, dtype=dtype)
    for t in (0.5, torch.tensor([0.1, 0.2, 0.3, 0.4])):
        for c, exact in zip(coefficients(schedule, t, x), schedule(t), strict=True):
            assert (c * x).dtype == dtype
            assert (c * x).shape == x.shape
            flat = (c * x).reshape(4, -1)[:, 0] if event else c * x
            assert torch.equal(flat, exact.to(dtype).expand(4))
    with pytest.raises(ValueError, match="t or a coefficient: wanted shape"):
        shape_like(torch.ones(3), x)
