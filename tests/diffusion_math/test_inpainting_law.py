"""The exact conditional of mixtures, and the densities of replacement and RePaint."""

import math

import pytest
import torch

from diffusion_math import guidance_law
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.inpainting_law import conditional, log_density
from tests.support.inpainted import (
    CORRELATED,
    COVARIANCE,
    MASK,
    MODES,
    SCHEDULE,
    grid_to,
    of_gaussian,
)
from tests.support.mixtures import FORMS, mixture
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

GRID = grid_to(0.2, 8)


@pytest.mark.parametrize("form", FORMS)
def test_the_conditional_is_the_joint_over_its_integral(form):
    """Bayes' rule by quadrature: p(k, u) / integral of p(k, u) du, at 400 nodes of u."""
    data = mixture(form, (2,), K=3, seed=1)
    known = f64(0.4, 9.0)  # the second entry has no effect
    nodes = guidance_law.box([-12.0], [12.0], 400)
    plane = torch.cat([torch.full_like(nodes.x, 0.4), nodes.x], 1)
    joint = data.log_density(SCHEDULE, plane, 0)
    wanted = joint - math.log(nodes.integral(joint.exp()))
    got = conditional(data, known, MASK).log_density(SCHEDULE, nodes.x, 0)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    # The weights count: with those of the data it is another density.
    plain = GaussianMixture(data.log_weights, *parts(conditional(data, known, MASK)))
    assert (plain.log_density(SCHEDULE, nodes.x, 0) - wanted).abs().max() > 1e-2


def parts(data):
    return data.means, data.covariances


def test_the_others_keep_their_order_in_an_image():
    """An event (2, 3) with two known entries against the Gaussian's own formula."""
    C = torch.cov(torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).double())
    m = torch.arange(6.0).double()
    data = GaussianMixture(f64(0.0), m.reshape(1, 2, 3), C[None])
    known = f64([0.0, 7.0, 0.0], [-1.0, 0.0, 0.0])
    mask = torch.tensor([[False, True, False], [True, False, False]])
    b, a = [1, 3], [0, 2, 4, 5]
    gain = C[a][:, b] @ torch.linalg.inv(C[b][:, b])
    given = conditional(data, known, mask)
    torch.testing.assert_close(given.means[0], m[a] + gain @ (f64(7.0, -1.0) - m[b]))
    torch.testing.assert_close(given.covariances[0], C[a][:, a] - gain @ C[b][:, a])


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_one_gaussian_has_the_closed_form(repeats):
    """(inpainting.11): log-densities within 5 deviations, to 1e-6 nats.

    The target itself is wrong by more than 0.05.
    """
    nodes, (got,) = log_density(CORRELATED, 1.0, SCHEDULE, GRID, (repeats,))
    exact = of_gaussian(1.0, GRID, repeats)
    near = (nodes.x[:, 0] - exact.mean).abs() < 5 * exact.variance.sqrt()
    x = nodes.x[near]
    wanted = Gaussian(exact.mean.expand_as(x), exact.variance).log_density(x)
    torch.testing.assert_close(got[near], wanted, rtol=0, atol=1e-6)
    target = conditional(CORRELATED, f64(1.0, 0.0), MASK).log_density(SCHEDULE, x, GRID[-1])
    assert (target - wanted).abs().max() > 0.05


def test_independent_coordinates_make_replacement_exact():
    """C_uk = 0: u's step needs no k, and every U gives the target, from a start off by alpha_T."""
    data = GaussianMixture(f64(0.4, 0.6).log(), f64([0.5, -1.0], [0.5, 1.0]), f64(0.2, 0.2))
    nodes, found = log_density(data, 2.0, SCHEDULE, GRID, (1, 3))
    target = conditional(data, f64(2.0, 0.0), MASK).log_density(SCHEDULE, nodes.x, GRID[-1])
    near = target > -15
    for log_p in found:
        torch.testing.assert_close(log_p[near], target[near], rtol=0, atol=1e-4)


def test_kl_falls_with_repetitions_not_with_steps():
    """RePaint's U lowers the KL to the target; more steps do not remove replacement's.

    Gaussian data of correlation 0.8: for U = 1, 2, 5, 20 the KL falls each time; with 3 times the
    steps replacement keeps above half of it.
    """
    target = conditional(CORRELATED, f64(1.0, 0.0), MASK)

    def kl(repeats, grid):
        nodes, found = log_density(CORRELATED, 1.0, SCHEDULE, grid, repeats, 200)
        exact = target.log_density(SCHEDULE, nodes.x, grid[-1])
        return [guidance_law.kl(nodes, log_p, exact) for log_p in found]

    few = kl((1, 2, 5, 20), GRID)
    assert few == sorted(few, reverse=True) and few[-1] < few[0] / 5
    (many,) = kl((1,), grid_to(0.2, 24))
    assert few[0] / 2 < many < few[0]


def test_many_steps_do_not_help():
    """(inpainting.12): with 1000 steps and 2000 the variance is one, a fifth above the target's."""
    grid = grid_to(0.2, 1000)
    found, finer = of_gaussian(1.0, grid, 1), of_gaussian(1.0, grid_to(0.2, 2000), 1)
    assert abs(found.variance / finer.variance - 1) < 2e-3  # it has settled
    alpha, sigma = SCHEDULE(grid[-1])
    exact = conditional(CORRELATED, f64(1.0, 0.0), MASK)
    variance = alpha**2 * exact.covariances[0, 0, 0] + sigma**2
    assert found.variance > 1.2 * variance
    assert found.mean < 0.9 * alpha * exact.means[0, 0]
    S = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2).double()
    assert torch.linalg.inv(S)[1, 1] < 1 / variance  # the inequality itself, at the last time


def test_every_node_set_gives_one_density():
    """Twice the nodes: interpolated values agree to 1e-6, masses are 1."""
    coarse, (few,) = log_density(MODES, 1.0, SCHEDULE, GRID, (2,), 100)
    fine, (many,) = log_density(MODES, 1.0, SCHEDULE, GRID, (2,), 300)  # every third node is one
    torch.testing.assert_close(fine.x[1::3], coarse.x)
    torch.testing.assert_close(many[1::3].exp(), few.exp(), rtol=0, atol=1e-7)
    assert abs(coarse.integral(few.exp()) - 1) < 1e-7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conditional(MODES, f64(1.0), MASK), r"known: wanted shape \(2,\)"),
        (lambda: conditional(MODES, f64(1.0, 0.0), MASK[:1]), r"mask: wanted shape \(2,\)"),
        (lambda: conditional(MODES, f64(1.0, 0.0), MASK.double()), "mask: wanted booleans"),
        (lambda: conditional(MODES, f64(1.0, 0.0), MASK & False), "mask: wanted some.*, got 0"),
        (lambda: conditional(MODES, f64(1.0, 0.0), MASK | True), "mask: wanted some.*, got 2"),
        (
            lambda: conditional(
                GaussianMixture(f64(0.0), f64([0.0, 0.0]), f64([0.0, 1.0])), f64(1.0, 0.0), MASK
            ),
            "singular",
        ),
        (
            lambda: log_density(mixture("full", (3,)), 1.0, SCHEDULE, GRID),
            r"mixture: wanted events of shape \(2,\), got shape \(3,\)",
        ),
        (lambda: log_density(MODES, 1.0, SCHEDULE, GRID.flip(0)), "grid: "),
        (
            lambda: log_density(MODES, 1.0, SCHEDULE, f64(1.0, 0.0)),
            "grid: wanted a last node above 0, got 0.0",
        ),
        (lambda: log_density(MODES, 1.0, SCHEDULE, GRID, (0,)), "repeats: .*at least 1, got 0"),
        (lambda: log_density(MODES, 1.0, SCHEDULE, GRID, (1,), 1), "count: .*at least 2, got 1"),
        (
            lambda: log_density(MODES, 1.0, SCHEDULE, GRID, (1,), 20),
            "count: wanted at least [0-9]+ for this grid, got 20",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
