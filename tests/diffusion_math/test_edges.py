"""Ends, memories and tolerances that the change of one sign or index would break unseen."""

import math

import pytest
import torch

from diffusion_math import elbo, loss, metrics, score_matching
from diffusion_math.densities import multivariate
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.multivariate import Multivariate
from diffusion_math.densities.reverse_kernel import sample_clean, sample_reverse
from diffusion_math.grid import leading, linspace
from diffusion_math.langevin import Particles, baoab, chain, mala
from diffusion_math.noise import BrownianPath, from_seeds, zeros
from diffusion_math.schedule import Discrete, Schedule, VPLinear
from tests.support.chance import pinned
from tests.support.mixtures import mixture, normal

EYE = torch.eye(2, dtype=torch.float64)


def lopsided(size, by):
    """size times the identity, one side of it off by `by`."""
    matrix = size * EYE
    return matrix + torch.tensor([[0, by], [0, 0]], dtype=torch.float64)


@pytest.mark.usefixtures("unchecked")
def test_symmetry_and_sign_are_measured_against_the_matrix_itself():
    """Rounding is relative: legal at 1e6 what is illegal at 1e-6, each matrix of a batch alone."""
    mean = torch.zeros(2, dtype=torch.float64)
    Multivariate(mean, lopsided(1e6, 1e-7))
    for matrix in (lopsided(1e-6, 1e-10), torch.stack([1e6 * EYE, lopsided(1e-6, 1e-8)])):
        with pytest.raises(ValueError, match="a symmetric matrix"):
            Multivariate(mean.expand(matrix.shape[:-1]), matrix)
    Multivariate(mean, torch.diag(torch.tensor([1e6, -1e-7], dtype=torch.float64)))
    small = torch.diag(torch.tensor([1e-6, -1e-10], dtype=torch.float64))
    for matrix in (small, torch.stack([1e6 * EYE, small])):
        with pytest.raises(ValueError, match="no negative eigenvalue"):
            Multivariate(mean.expand(matrix.shape[:-1]), matrix)


def test_a_draw_is_the_mean_plus_the_symmetric_root():
    spread = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    q = Multivariate(torch.tensor([5.0, 7.0], dtype=torch.float64), spread)
    one = q.sample(torch.tensor([1.0, 0.0], dtype=torch.float64))
    root = (math.sqrt(3) + 1) / 2, (math.sqrt(3) - 1) / 2  # eigenvalues 3 and 1
    wanted = torch.tensor([5 + root[0], 7 + root[1]], dtype=torch.float64)
    torch.testing.assert_close(one, wanted)


@pytest.mark.usefixtures("unchecked")
def test_at_least_one_entry_is_known():
    q = Multivariate(torch.zeros(2, dtype=torch.float64), EYE)
    with pytest.raises(ValueError, match="known: wanted distinct entries"):
        multivariate.condition(q, [], torch.zeros(0, dtype=torch.float64))


def test_dtypes_of_what_is_asked_about():
    """Answers are like x, but what is drawn from the truth is float64."""
    x = torch.zeros(3, 2)
    schedule = VPLinear()
    assert Checkerboard().posterior_mean(schedule, x, 0.5).dtype == torch.float32
    for draw in (sample_clean, sample_reverse):
        drawn = draw(mixture("diagonal"), pinned(0), schedule, x, 0.5)
        assert drawn.dtype == torch.float64


def test_reverse_draws_go_to_clean_data_by_default():
    x, schedule = normal(pinned(1), 5, 2), VPLinear()
    default = sample_reverse(mixture("diagonal"), pinned(2), schedule, x, 0.5)
    clean = sample_reverse(mixture("diagonal"), pinned(2), schedule, x, 0.5, 0)
    assert torch.equal(default, clean)


def test_one_sample_has_a_fisher_divergence():
    x = torch.ones(1, 2)
    assert score_matching.fisher_divergence(lambda x: x, lambda x: 3 * x, x) == 8


def test_implicit_score_matching_uses_its_probes():
    """v = (1, 1) sees all of a Jacobian, the trace its diagonal alone."""
    x, slope = torch.zeros(1, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    probes = torch.ones(1, 1, 2)
    assert score_matching.implicit(lambda x: x @ slope.mT, x).item() == 5
    assert score_matching.implicit(lambda x: x @ slope.mT, x, probes).item() == 10


def test_the_error_of_an_energy_distance_is_that_of_each_sample_s_part():
    """Hoeffding's projection written out, point by point."""
    x, y = normal(pinned(1), 5, 2), 2 + normal(pinned(2), 7, 2)

    def mean_distance(one, others):
        return (one - others).norm(dim=-1).mean()

    def parts(own, other):
        for i, one in enumerate(own):
            rest = torch.cat([own[:i], own[i + 1 :]])
            yield 2 * (mean_distance(one, other) - mean_distance(one, rest))

    variance = sum(
        torch.stack(list(parts(a, b))).var() / len(a) for a, b in ((x, y), (y, x))
    ).item()
    assert metrics.energy_distance(x, y).error == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_a_table_says_its_ends():
    assert repr(Discrete.linear(3)) == "Discrete(T=3, betas 0.0001 to 0.02)"


@pytest.mark.usefixtures("unchecked")
def test_density_and_score_of_no_points():
    """No rows at a time each: any legal time stands for them."""
    empty, times = torch.zeros(0, 2), torch.zeros(0, dtype=torch.float64)
    log_q, score = mixture("diagonal").log_density_and_score(VPLinear(), empty, times)
    assert (log_q.shape, score.shape) == ((0,), (0, 2))


@pytest.mark.usefixtures("unchecked")
def test_level_256_is_none():
    p = elbo.Gaussian(torch.zeros(1, 1), torch.ones(1, 1))
    with pytest.raises(ValueError, match=r"x0 in levels from 0: wanted every entry in \[0, 255\]"):
        elbo.quantized_log_probability(p, torch.full((1, 1), 256 / 127.5 - 1))


@pytest.mark.usefixtures("unchecked")
def test_messages_name_the_denoiser_and_the_legal_steps():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"^denoise's result: wanted shape \(2, 3\), got"):
        elbo.continuous_integrand(VPLinear(), lambda x, t: x[:, :2], x, x, 0.0)
    with pytest.raises(ValueError, match=r"steps: wanted at most .* = 500, got 900"):
        leading(VPLinear(), 900, start=0.75, end=0.25)
    with pytest.raises(ValueError, match=r"start: wanted more than end \+ t_min = 0.001"):
        linspace(VPLinear(), 2, start=1e-3)
    with pytest.raises(ValueError, match=r"delta: wanted a positive finite number, got -3"):
        mala(lambda x: (x, x), -3)

    class Unknown(Schedule):
        T, t_min = 1.0, 1e-3
        log_snr, time = VPLinear().log_snr, VPLinear().time

        def __call__(self, t):
            return VPLinear()(t)

        def __repr__(self):
            return "Unknown()"

    wanted = "schedule: wanted Discrete, VPLinear, VPCosine, VE or RectifiedFlow, got Unknown"
    with pytest.raises(ValueError, match=f"^{wanted}"):
        loss.variational(Unknown(), 0.5)


def test_mala_computes_what_is_missing_and_asks_for_noise_by_its_clock():
    """Half of its memory is none; the normals of move k are those of (-k, -k - 1) and half way."""
    asked = []

    def target(x):
        return -x.square().sum(1) / 2, -x

    def noise(x, t, s):
        asked.append((float(t), float(s)))
        return torch.zeros_like(x)

    x = torch.ones(3, 2, dtype=torch.float64)
    partly = Particles(x, log_density=target(x)[0])
    *_, end = chain(mala(target, 0.1), partly, 2, noise)
    assert asked == [(0, -1), (-0.5, -1), (-1, -2), (-1.5, -2)]
    assert end.accepted is not None
    assert end.accepted.dtype == torch.int64
    torch.testing.assert_close(end.score, -end.x)


def test_baoab_remembers_its_force_and_adds_its_noise():
    calls = []

    def score(x):
        calls.append(x)
        return -x

    x, v = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    start = Particles(x, velocity=v)
    *_, end = chain(baoab(score, 0.5, 1.0), start, 3, zeros)
    assert len(calls) == 4  # one to begin with, then one a move
    torch.testing.assert_close(end.score, -end.x)
    # No force, and a noise of 1: v = sqrt(1 - e^-1), and half a step of it.
    *_, moved = chain(baoab(torch.zeros_like, 0.5, 1.0), start, 1, lambda x, t, s: x)
    assert moved.x.item() == pytest.approx(1 + 0.25 * math.sqrt(1 - math.exp(-1)), rel=1e-14)


@pytest.mark.usefixtures("unchecked")
def test_seeds_of_a_path_are_kept_and_a_number_is_no_batch():
    assert BrownianPath([3, 4], T=1.0).seeds == (3, 4)
    with pytest.raises(ValueError, match=r"x: wanted a batch of 1, one per seed, got shape \(\)"):
        from_seeds([1])(torch.zeros(()), torch.tensor(1.0), torch.tensor(0.5))


def test_min_snr_caps_below_one_too():
    t = torch.tensor([1e-3, 0.9], dtype=torch.float64)
    assert loss.min_snr(0.5)(VPLinear(), t).max() == 0.5
