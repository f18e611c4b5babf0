"""C12 where no chain is Gaussian: the oracle's denoiser for a mixture, by quadrature on a line.

All integrals are trapezoid rules on a fifth of the least standard deviation or less, over smooth
functions that end below e^-30: exact far below the tolerances.
"""

import math

import pytest
import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.elbo import bound, reverse_step
from diffusion_math.gaussian import Gaussian, forward_step, kl, transition
from diffusion_math.grid import trailing
from diffusion_math.schedule import Discrete
from diffusion_math.variance import large_variance, optimal_variance

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SCHEDULE = Discrete(torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64))
TIMES = range(1, 5)
DATA = GaussianMixture(
    torch.tensor([0.3, 0.7]).log(), torch.tensor([-1.0, 0.8]), torch.tensor([0.05, 0.2])
)
DENOISE = DATA.denoiser(SCHEDULE)
LINE = torch.linspace(-9, 9, 901, dtype=torch.float64)
Z = torch.linspace(-8, 8, 161, dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)
WEIGHT = torch.exp(-Z.square() / 2) * (Z[1] - Z[0]) / math.sqrt(2 * math.pi)


def integral(values, dim=-1):
    return torch.trapezoid(values, LINE, dim=dim)


def normal(x, mean, variance):
    """log N(x; mean, variance), broadcast."""
    return -((x - mean).square() / variance + torch.log(2 * math.pi * variance)) / 2


def nats(x0, variance):
    """-ELBO(x_0) for each of x0, its draws averaged over z."""
    grid, repeated = trailing(SCHEDULE, 4), x0.repeat_interleave(len(Z))
    got = bound(
        SCHEDULE,
        DENOISE,
        repeated,
        grid,
        lambda x, t, s: Z.repeat(len(x0)),
        variance,
        variance,
        Gaussian.log_density,
    )
    return got.nats.reshape(len(x0), len(Z)) @ WEIGHT


def log_kernel(t, variance):
    """log p(x_{t-1} = row | x_t = column) on the line."""
    step = reverse_step(SCHEDULE, DENOISE, LINE, t, t - 1, variance)
    return normal(LINE[:, None], step.mean, step.variance)


def log_marginals(variance):
    """log p(x_t) on the line for t = 4, ..., 0: each kernel integrated against the last."""
    found = {4: normal(LINE, 0 * LINE, ONE)}
    width = math.log(LINE[1] - LINE[0])
    for t in reversed(TIMES):
        found[t - 1] = (log_kernel(t, variance) + found[t]).logsumexp(1) + width
    return found


@pytest.mark.parametrize("variance", [large_variance, optimal_variance(0.2)], ids=["large", "0.2"])
def test_c12_the_gap_is_the_kl_of_paths(variance):
    """log p(x_0) - ELBO is KL(q(x_{1:T} | x_0), p(x_{1:T} | x_0)), counted forward in time:

        sum_t E KL(q(x_t | x_{t-1}), p(x_t | x_{t-1})),  p(x_t | x_{t-1}) by Bayes' rule

    Nothing of the bound's own terms, which go backward and know no marginal of p. Turned round,
    KL(p, q) of a step is off by more than 1e-3 of a nat.
    """
    log_p = log_marginals(variance)
    index = [300, 410, 450, 480]
    x0 = LINE[index]
    gap, wrong = torch.zeros(4).double(), torch.zeros(4).double()
    for t in TIMES:
        q = forward_step(SCHEDULE, LINE, t)
        log_q = normal(LINE[:, None], q.mean, q.variance)  # [x_t, x_{t-1}]
        bayes = log_kernel(t, variance).T + log_p[t][:, None] - log_p[t - 1]
        each = integral(log_q.exp() * (log_q - bayes), dim=0)  # of x_{t-1}
        turned = integral(bayes.exp() * (bayes - log_q), dim=0)
        if t == 1:
            gap, wrong = gap + each[index], wrong + turned[index]
            continue
        link = transition(SCHEDULE, x0, 0, t - 1)
        at = normal(LINE, link.mean[:, None], link.variance).exp()
        gap, wrong = gap + integral(at * each), wrong + integral(at * turned)
    assert integral(log_p[0].exp()).item() == pytest.approx(1, abs=1e-10)
    exact = log_p[0][index] + nats(x0, variance)
    torch.testing.assert_close(exact, gap, rtol=0, atol=1e-9)
    assert (exact > 0).all()
    assert ((exact - wrong).abs() > 1e-3).all()


@pytest.mark.parametrize("variance", [large_variance, optimal_variance(0.2)], ids=["large", "0.2"])
def test_over_the_data_it_is_what_gaussian_steps_lose_on_the_true_reverse(variance):
    """E -ELBO - entropy = KL(q(x_T), N(0, 1)) + sum_t E KL(q(x_{t-1} | x_t), p(x_{t-1} | x_t)).

    The kernels q(x_{t-1} | x_t) are the oracle's, mixtures themselves: with them in place of the
    Gaussian steps, and q(x_T) of N(0, 1), nothing would be lost.
    """
    near = LINE[LINE.abs() < 4.5]
    log_q0 = DATA.log_density(SCHEDULE, near, 0)
    left = torch.trapezoid(log_q0.exp() * (nats(near, variance) + log_q0), near).item()

    at_T = DATA.log_density(SCHEDULE, LINE, 4)
    terms = [integral(at_T.exp() * (at_T - normal(LINE, 0 * LINE, ONE))).item()]
    coarse = torch.linspace(-6, 6, 121, dtype=torch.float64)
    for t in TIMES:
        step = reverse_step(SCHEDULE, DENOISE, coarse, t, t - 1, variance)
        lost = []
        for x_t, mean in zip(coarse, step.mean, strict=True):
            log_q = DATA.reverse(SCHEDULE, x_t, t, t - 1).log_density(SCHEDULE, LINE, 0)
            lost.append(integral(log_q.exp() * (log_q - normal(LINE, mean, step.variance))))
        at_t = DATA.log_density(SCHEDULE, coarse, t).exp()
        terms.append(torch.trapezoid(at_t * torch.stack(lost), coarse).item())
    assert min(terms) > 0
    assert left == pytest.approx(sum(terms), abs=1e-9)
    for i in range(len(terms)):
        assert abs(left - sum(terms) + terms[i]) > 1e-4, f"term {i} is not seen"


def test_the_prior_mismatch_is_the_kl_at_the_last_time():
    """E L_T splits into KL(q(x_T), N(0, 1)) and the information x_T has of x_0."""
    near = LINE[LINE.abs() < 4.5]
    link = transition(SCHEDULE, near, 0, 4)
    weight = DATA.log_density(SCHEDULE, near, 0).exp()
    log_q = normal(LINE, link.mean[:, None], link.variance)
    log_T = DATA.log_density(SCHEDULE, LINE, 4)
    information = torch.trapezoid(weight * integral(log_q.exp() * (log_q - log_T)), near)
    mismatch = integral(log_T.exp() * (log_T - normal(LINE, 0 * LINE, ONE)))
    average = torch.trapezoid(weight * kl(link, Gaussian(0 * near, ONE)), near)
    assert average.item() == pytest.approx((information + mismatch).item(), abs=1e-12)
    assert information > 1e-3
