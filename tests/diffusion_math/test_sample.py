"""The loop: which states it yields, in what order, and what a sample may depend on."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_math import noise
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.grid import GRIDS
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.one_step import ddim, ddpm
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State
from tests.support.chance import Distance, rare, seeded

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SCHEDULES = [
    Discrete.scaled_linear(20),
    Discrete.linear(1),
    VPLinear(),
    VPCosine(),
    VE(),
    RectifiedFlow(),
]
DATA = GaussianMixture(
    torch.tensor([0.4, 0.6]).log(), torch.tensor([[1.0], [-0.5]]), torch.tensor([0.1, 0.3])
)


def recorder(calls):
    def step(denoise, state, t, s, noise):
        calls.append((state.t.item(), t.item(), s.item()))
        return State(state.x + 1, s)

    return step


def test_the_start_comes_first_then_one_state_a_step():
    """Each step is handed both of its ends; the last state is at the grid's last node."""
    calls, x = [], torch.zeros(2, 3)
    grid = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    states = list(trajectory(recorder(calls), lambda x, t: x, x, grid))
    assert states[0].x is x
    assert [state.t.item() for state in states] == [1.0, 0.5, 0.2]
    assert [state.x[0, 0].item() for state in states] == [0, 1, 2]
    assert calls == [(1.0, 1.0, 0.5), (0.5, 0.5, 0.2)]


def test_it_is_lazy():
    """A state is computed when it is asked for."""
    calls = []
    grid = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    states = trajectory(recorder(calls), lambda x, t: x, torch.zeros(1), grid)
    assert calls == []
    next(states)
    next(states)
    assert len(calls) == 1


def test_one_node_is_no_step():
    """A walk of no steps is where it starts."""
    grid = torch.tensor([0.3], dtype=torch.float64)
    (only,) = trajectory(recorder([]), lambda x, t: x, torch.zeros(1), grid)
    assert only.t == 0.3


@pytest.mark.parametrize("nodes", [[0.2, 0.5], [0.5, 0.5], [], [0.5, float("nan")]])
def test_a_bad_grid_fails_at_the_call(nodes):
    """Not at the first step: the generator is checked before it is made."""
    with pytest.raises(ValueError, match="grid: wanted a non-empty, strictly decreasing"):
        trajectory(
            recorder([]), lambda x, t: x, torch.zeros(1), torch.tensor(nodes, dtype=torch.float64)
        )


def ended(name, schedule, grid, seeds, dtype=torch.float64, event=(1,)):
    _, sigma = schedule(grid[0])
    x = noise.start_noise(seeds, event, dtype) * sigma
    step = ddim(schedule, 0.7) if name == "ddim(0.7)" else SOLVERS[name](schedule)
    *_, end = trajectory(step, DATA.denoiser(schedule), x, grid, noise.from_seeds(seeds))
    return end


@pytest.mark.parametrize("name", [*SOLVERS, "ddim(0.7)"])
@settings(max_examples=10)
@given(
    schedule=st.sampled_from(SCHEDULES),
    seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=4),
    spacing=st.sampled_from(["trailing", "uniform_log_snr"]),
    steps=st.sampled_from([1, 2, 5]),
)
def test_a_sample_does_not_depend_on_its_batch(name, schedule, seeds, spacing, steps):
    """C20: each sample of a batch is the sample drawn alone from its seed; all are finite.

    Tolerance: a matrix product may sum in another order for another batch; noise is bit for bit.
    """
    steps = min(steps, int(schedule.T)) if isinstance(schedule, Discrete) else steps
    grid = GRIDS[spacing](schedule, steps)
    together = ended(name, schedule, grid, seeds)
    assert together.t == 0
    assert together.x.isfinite().all()
    for i, seed in enumerate(seeds):
        alone = ended(name, schedule, grid, [seed])
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_an_empty_batch_and_float32(name):
    """No samples are no error, and float64 coefficients leave float32 as it is."""
    schedule = VPLinear()
    grid = GRIDS["uniform_log_snr"](schedule, 4)
    assert ended(name, schedule, grid, []).x.shape == (0, 1)
    assert ended(name, schedule, grid, [1, 2], dtype=torch.float32).x.dtype == torch.float32


def cdf(x):
    """The data's distribution function."""
    each = (x[:, None] - DATA.means[:, 0]) / DATA.covariances.sqrt()
    return torch.special.ndtr(each) @ DATA.log_weights.exp()


def apart(end, weights):
    """Kolmogorov's distance from the data of points with weights, but for the largest weight."""
    end, order = end[:, 0].sort()
    largest = weights.max().item()
    return (weights[order].cumsum(0) - cdf(end)).abs().max().item(), largest


def law_of_ddpm(schedule, grid):
    """Points and weights of the last state's law, its Gaussian steps pushed over a grid.

    600 nodes 0.015 apart: the narrowest step's std is 0.018, of which the rule is exact to e^-28,
    and 1e-5 of N(0, 1) lies beyond.
    """
    x = torch.linspace(-4.5, 4.5, 600, dtype=torch.float64)[:, None]
    weights, step = (-x[:, 0].square() / 2).softmax(0), ddpm(schedule)
    for t, s in pairwise(grid):
        mean, one = (
            step(DATA.denoiser(schedule), State(x, t), t, s, lambda x, t, s, z=z: z + 0 * x).x
            for z in (0.0, 1.0)
        )
        if s == 0:
            return mean, weights
        spread = (x[:, 0] - mean) / (one - mean)
        weights = weights @ (-spread.square() / 2).softmax(1)


@pytest.mark.claim("C20", "diffusion_math.sample.trajectory")
def test_c20_the_chain_is_the_product_of_its_kernels(measured):
    """C20 without chance: on Gaussian data every step is affine, and unit vectors in the noise's
    place read off the mean and variance of each x_t. They are those of x_T ~ N(0, 1) carried down
    by DDPM's eq. 7 and beta_hat, written out of the betas, t = 1000..1.

    Tolerance: 1e3 steps of a few roundings each, on quantities near 1.
    """
    schedule, m, c = Discrete.scaled_linear(), 0.7, 0.3
    betas = schedule.betas.tolist()
    numbers = (torch.tensor(value, dtype=torch.float64) for value in ([0.0], [[m]], [c]))
    data = GaussianMixture(*numbers)
    grid = torch.arange(1000, -1, -1, dtype=torch.float64)
    basis = noise.UnitNoise(grid, (1,))
    start = basis.start(torch.zeros(1, dtype=torch.float64), 1.0)
    abar = torch.cat([torch.ones(1).double(), (1 - schedule.betas).cumprod(0)]).tolist()
    mean, variance = 0.0, 1.0
    states = trajectory(ddpm(schedule), data.denoiser(schedule), start, grid, basis)
    for t, state in zip(range(1000, -1, -1), states, strict=True):
        off = (
            abs(basis.mean(state.x).item() - mean),
            abs(basis.covariance(state.x).item() - variance),
        )
        measured(max(off), 1e-11, "error of mean and variance of every x_t: rounding of 1000 steps")
        if t == 0:
            break
        beta, before, after = betas[t - 1], abar[t - 1], abar[t]
        of_x0 = math.sqrt(before) * beta / (1 - after)
        of_x = math.sqrt(1 - beta) * (1 - before) / (1 - after)
        # E[x_0 | x_t] = g x_t + h for Gaussian data
        g = math.sqrt(after) * c / (after * c + 1 - after)
        h = m - g * math.sqrt(after) * m
        mean = (of_x + of_x0 * g) * mean + of_x0 * h
        variance = (of_x + of_x0 * g) ** 2 * variance + (1 - before) / (1 - after) * beta
    assert abs(mean - m) < 0.01 and abs(variance - c) < 0.01


@pytest.mark.chance(2e-9, "no noise added in the steps")
@pytest.mark.claim("C20", "diffusion_math.sample.trajectory")
def test_c20_ancestral_sampling_draws_the_data(measured):
    """C20: x_T ~ N(0, I), then x_{t-1} ~ P(. | x_t) for t = T..1, draws a two-mode mixture.

    4000 draws through 200 steps: 0.052 for chance (Massart), and for the steps what quadrature of
    their Gaussians finds, less than 0.02.
    """
    schedule, n = Discrete.linear(200, 5e-4, 0.1), 4000
    x = torch.randn(n, 1, generator=seeded(0), dtype=torch.float64)
    grid = torch.arange(200, -1, -1, dtype=torch.float64)

    def ends(x, source):
        end = final(ddpm(schedule), DATA.denoiser(schedule), x, grid, source)
        return end

    drawn = Distance.between(cdf(ends(x, noise.from_generator(seeded(1)))[:, 0]))
    measured(drawn, 0.072, "Kolmogorov distance of 4000 samples to the data: chance, 200 steps")
    bias, jump = apart(*law_of_ddpm(schedule, grid))
    assert Distance(n, 1e-9).limit + bias + jump <= 0.072

    z = torch.linspace(-9, 9, 1801, dtype=torch.float64)[:, None]
    wrong, jump = apart(ends(z, noise.zeros), (-z[:, 0].square() / 2).softmax(0))
    assert rare(2 * math.exp(-2 * n * (wrong - jump - 0.072) ** 2))
    assert Distance.between(cdf(ends(x, noise.zeros)[:, 0])) > 0.072
