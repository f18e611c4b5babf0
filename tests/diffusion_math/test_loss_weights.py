"""The weights of the losses (C17-C19) by their definitions, and the draws of the times (E5)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math.loss import (
    WEIGHTS,
    min_snr,
    snr,
    stratified_times,
    training_loss,
    uniform_times,
    variational,
    x0_weight,
)
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.testing.strategies import betas
from tests.support.chance import Count, Distance, Mean, pinned, rare
from tests.support.distribution import uniform
from tests.support.measuring import Measured
from tests.support.mixtures import SCHEDULES, normal, seeded, time_at
from tests.support.schedules import continuous
from tests.support.scores import saying, tensor

EPS = torch.finfo(torch.float64).eps
numbers = st.lists(st.floats(-5, 5), min_size=2, max_size=2).map(lambda v: tensor(v))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_weights_by_their_definitions(schedule: Schedule) -> None:
    """Each weight as a function of the plain losses in x_0, eps and v, an example at a time."""
    n = 9
    x0, eps, x0_hat = (normal(seeded(i), n, 2) for i in range(3))
    parts = [0.1, 0.15, 0.2, 0.3, 0.45, 0.5, 0.7, 0.8, 0.9]
    t = torch.tensor([time_at(schedule, p) for p in parts], dtype=torch.float64)
    plain = {
        kind: training_loss(schedule, saying(schedule, kind, x0_hat, t), kind, x0, eps, t)
        for kind in ("x0", "eps", "v")
    }

    def weighted(name: str) -> Tensor:
        network = saying(schedule, "v", x0_hat, t)
        return training_loss(schedule, network, "v", x0, eps, t, WEIGHTS[name])

    known = {
        "uniform": plain["x0"],
        "snr": plain["eps"],
        "truncated_snr": torch.maximum(plain["x0"], plain["eps"]),
        "snr_plus_one": plain["x0"] + plain["eps"],
        "min_snr": torch.minimum(5 * plain["x0"], plain["eps"]),
    }
    for name, value in known.items():
        torch.testing.assert_close(weighted(name), value, rtol=1e-11, atol=0)
    alpha_t, sigma_t = schedule(t)
    if torch.allclose(alpha_t.square() + sigma_t.square(), torch.ones(n).double()):
        torch.testing.assert_close(weighted("snr_plus_one"), plain["v"], rtol=1e-11, atol=0)
    # Hang et al. state min-SNR per target.
    ratio = snr(schedule, t)
    of_eps = min_snr(5.0)(schedule, t) / x0_weight(schedule, "eps", t)
    torch.testing.assert_close(of_eps, torch.clamp(5 / ratio, max=1), rtol=1e-12, atol=0)
    assert bool((ratio > 5).any()) or bool((ratio < 1).any())


@given(
    values=betas(steps=(1, 12), values=(1e-4, 0.9)), data=st.data(),
    x0=numbers, eps=numbers, x0_hat=numbers,
)  # fmt: skip
def test_the_variational_weight_is_the_kl_of_the_step(
    values: Tensor, data: st.DataObject, x0: Tensor, eps: Tensor, x0_hat: Tensor
) -> None:
    """C17, C18: KL(q(x_{t-1} | x_t, x_0) || N(mu_theta, beta_t)) less its value at x0_hat = x_0.

    At t = 1 it is the Gaussian L_0. The KL is a small difference: rounding relative to its
    constant, which is of the size of log(beta_hat / beta). The weight a step off is rejected.
    """
    schedule = Discrete(values)
    t = data.draw(st.integers(1, len(values)))
    beta = schedule.betas[t - 1]
    x_t = gaussian.marginal(schedule, x0, t).sample(eps)
    q, p, best = (
        gaussian.Gaussian(gaussian.posterior(schedule, x_t, x, t, t - 1).mean, variance)
        for x, variance in (
            (x0, gaussian.posterior(schedule, x_t, x0, t, t - 1).variance),
            (x0_hat, beta),
            (x0, beta),
        )
    )
    if t == 1:
        exact = (best.log_density(q.mean) - p.log_density(q.mean)).item()
    else:
        exact = (gaussian.kl(q, p) - gaussian.kl(q, best)).item()
    time = tensor(t)[0]
    network = saying(schedule, "x0", x0_hat, time)
    got = training_loss(schedule, network, "x0", x0, eps, time, variational).item()
    alpha_t, sigma_t = schedule(t)
    size = 10 * (1 + 100 / beta.item()) * (1 + (sigma_t / alpha_t).item() ** 2)
    assert got == pytest.approx(exact, rel=1e-9, abs=64 * EPS * size)
    half_lost, next_beta = 2 * got, got * beta.item() / 0.95
    assume(exact > 1e-6 * size)
    assert all(abs(wrong / exact - 1) > 0.01 for wrong in (half_lost, next_beta))


@given(schedule=continuous, share=st.floats(1e-3, 0.98), stretch=st.floats(1.1, 2))
def test_the_continuous_weight_integrates_to_the_snr(
    schedule: Schedule, share: float, stretch: float
) -> None:
    """The integral of w over [s, t] is (SNR(s) - SNR(t)) / 2: Gauss-Legendre with 60 nodes.

    Over a doubling of t, SNR is analytic and falls by no more than e^-90 (beta_max = 120), which
    60 nodes integrate to rounding. t = T, where alpha_T may be 0, is among the ends.
    """
    s = share * schedule.T
    t = min(stretch * s, schedule.T)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(60))
    middle, half = (t + s) / 2, (t - s) / 2
    inner = variational(schedule, middle + half * nodes)
    integral = (half * (weights @ inner)).item()
    above, below = (snr(schedule, u).item() for u in (s, t))
    scale = above * (1 + abs(math.log(above))) if above > 0 else 1.0
    assert integral == pytest.approx((above - below) / 2, rel=1e-11, abs=256 * EPS * scale)
    assert variational(schedule, schedule.T).isfinite()


@pytest.mark.chance(2e-8, "a time drawn a fifth oftener than the others")
@pytest.mark.claim("E5", "diffusion_math.loss.uniform_times")
def test_discrete_times_are_uniform_on_1_to_T(measured: Measured) -> None:
    """C19, E5: 1 and T occur, 0 does not, and each as often, by the binomial law.

    Off by one fails the support; the printed Uniform(0, 1) has no place in the table at all.
    """
    n = 20_000
    for steps in (1, 2, 5):
        schedule = Discrete.linear(steps)
        t = uniform_times(schedule, seeded(steps), n)
        assert set(t.tolist()) == set(range(1, steps + 1))
        share = 1 / steps
        for k in range(1, steps + 1) if steps > 1 else ():
            off = abs((t == k).sum().item() - n * share) / math.sqrt(n * share * (1 - share))
            measured(off, 6.5, "standard deviations between a time's count and T's share: 1e-10")
            bound = Count(n, share, 1e-9)
            assert bound.holds(int((t == k).sum()))
            assert rare(bound.misses(1.2 * share))
    again = uniform_times(schedule, seeded(0), 4)
    assert again.equal(uniform_times(schedule, seeded(0), 4)) and again.dtype == torch.float64
    with pytest.raises(ValueError, match="nothing between 0 and 1"):
        schedule(torch.rand(3, generator=seeded(0)))


@pytest.mark.chance(1.2e-8, "uniform on t^2, or on the first nine tenths")
@pytest.mark.parametrize("schedule", [VPLinear(), VE(), RectifiedFlow()], ids=lambda s: f"{s}"[:5])
def test_continuous_times_are_uniform(schedule: Schedule) -> None:
    """On [t_min, t_max]: the mean, and the whole distribution (of t^2 it is 1/4 off at 1/4)."""
    n, low, high = 20_000, schedule.t_min, schedule.t_max
    t = uniform_times(schedule, seeded(0), n)
    assert bool(((t >= low) & (t <= high)).all())
    u = (t - low) / (high - low)
    middle, whole = Mean(uniform(), n, 1e-9), Distance(n, 1e-9)
    assert middle.holds(u.mean()) and whole.holds(u)
    assert rare(middle.misses(uniform(0, 0.9))) and rare(whole.misses(0.25))
    assert not middle.holds(0.9 * u.mean()) and not whole.holds(u.square())


@pytest.mark.parametrize(
    "schedule", [VPLinear(), VPCosine(), VE(), RectifiedFlow()], ids=lambda s: f"{s}"[:6]
)
def test_stratified_times_cover_every_schedule_s_range(schedule: Schedule) -> None:
    """The least of many is t_min and the most t_max, to the width of one stratum: of all, exactly.

    Sorted, time i of n lies in stratum i of [t_min, t_max]; the marginal is uniform for that.
    """
    n, low, high = 1000, schedule.t_min, schedule.t_max
    t = stratified_times(schedule, pinned(3), n).sort().values
    places = (t - low) / (high - low) * n
    assert bool(((places.floor() - torch.arange(n)).abs() <= 1).all())
    assert bool((places.diff() - 1).abs().max() < 1e-8)
    assert bool(((t >= low) & (t <= high)).all())


def test_stratified_times_of_a_table_are_each_as_often() -> None:
    """Over all draws of u each of T times is met batch / T times on average; here of T = 7.

    By u on a fine grid in the draw's place: 4 of the 7 times each call.
    """
    counts = torch.zeros(7)
    with pytest.MonkeyPatch.context() as patch:
        for k in range(700):
            u = torch.tensor((k + 0.5) / 700, dtype=torch.float64)
            patch.setattr(torch, "rand", lambda *args, u=u, **kwargs: u)
            for t in stratified_times(Discrete.linear(7), pinned(0), 4).tolist():
                counts[int(t) - 1] += 1
    assert counts.tolist() == [400.0] * 7


@pytest.mark.chance(1.6e-8, "a first time on the first four fifths alone, or of t^2")
@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_stratified_times_are_evenly_spread(batch: int) -> None:
    """Continuous: gaps of exactly 1 / batch. Discrete: one in each of T / k runs of k times.

    Independent draws fail. The first of them is uniform, over 2000 batches.
    """
    schedule = VPCosine()
    width = schedule.t_max - schedule.t_min

    def gaps(t: Tensor) -> Tensor:
        return (t.sort().values.diff() / width - 1 / batch).abs()

    assert bool((gaps(stratified_times(schedule, seeded(batch), batch)) < 8 * EPS).all())
    assert batch == 1 or bool((gaps(uniform_times(schedule, seeded(0), batch)) > 1e-3).any())
    table = Discrete.linear(3 * batch)
    t = stratified_times(table, seeded(batch), batch)
    assert set(((t - 1) // 3).tolist()) == set(range(batch)) and bool((t.frac() == 0).all())
    g, n = seeded(5), 2000
    firsts = torch.stack([stratified_times(schedule, g, batch)[0] for _ in range(n)])
    u = (firsts - schedule.t_min) / width
    middle, whole = Mean(uniform(), n, 1e-9), Distance(n, 1e-9)
    assert middle.holds(u.mean()) and whole.holds(u)
    assert rare(middle.misses(uniform(0, 0.8))) and rare(whole.misses(0.25))
    assert set(stratified_times(Discrete.linear(1), g, batch).tolist()) == {1.0}
