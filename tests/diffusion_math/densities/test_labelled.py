"""Labelled mixtures: Bayes' rule ties the conditionals to the whole, at every noise level."""

import pytest
import torch

from diffusion_math.densities.labelled import Labelled
from diffusion_math.guidance import cfg
from diffusion_math.schedule import VPLinear
from tests.support.mixtures import FORMS, cases, mixture, normal, seeded, time_at

LABELS = torch.tensor([1, 0, 1, 2])


@cases(components=(4, 4))
def test_conditionals_average_to_the_whole(data, schedule, part, seed):
    """Total probability, total expectation, and a classifier that sums to one; K is always 4."""
    t, event = time_at(schedule, part), data.means.shape[1:]
    data = Labelled(data, LABELS)
    x = sum(schedule(t)) * normal(seeded(seed), 3, *event)
    log_p = data.log_posterior(schedule, x, t)
    torch.testing.assert_close(log_p.logsumexp(1), torch.zeros(3).double(), rtol=0, atol=1e-10)
    each = torch.stack([data.given(y).posterior_mean(schedule, x, t) for y in range(3)], dim=1)
    average = torch.einsum("by,by...->b...", log_p.exp(), each)
    whole = data.mixture.posterior_mean(schedule, x, t)
    torch.testing.assert_close(average, whole, rtol=1e-9, atol=1e-9)
    r = data.mixture.responsibilities(schedule, x, t)
    by_label = torch.stack([r[:, y == LABELS].sum(1) for y in range(3)], dim=1)
    torch.testing.assert_close(log_p.exp(), by_label, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_classifiers_gradient_is_the_difference_of_scores(form):
    """grad log P(y | x_t) = S(x | y) - S(x): what guidance adds to the score, by autograd."""
    data, schedule, t = Labelled(mixture(form, (2,), 4, 3), LABELS), VPLinear(), 0.4
    x = normal(seeded(1), 5, 2).requires_grad_()
    for y in range(data.count):
        log_p = data.log_posterior(schedule, x, t)[:, y]
        (gradient,) = torch.autograd.grad(log_p.sum(), x)
        wanted = data.given(y).score(schedule, x, t) - data.mixture.score(schedule, x, t)
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(gradient, -wanted, atol=1e-3)
        # C29: guidance at w moves the score by w - 1 times that gradient beyond S(x | y).
        conditional, whole = data.given(y).denoiser(schedule), data.mixture.denoiser(schedule)
        time = torch.tensor(t, dtype=torch.float64)
        guided = cfg(conditional, whole, 3.0)(x, time)
        alpha_t, sigma_t = schedule(t)
        score = (alpha_t * guided - x) / sigma_t.square()
        expected = data.given(y).score(schedule, x, t) + 2 * gradient
        torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9)


def test_priors():
    """log P(y) sums to one over the labels, by the components' weights."""
    data = Labelled(mixture("isotropic", (2,), 4), LABELS)
    weights = data.mixture.log_weights.exp()
    wanted = torch.stack([weights[1], weights[0] + weights[2], weights[3]])
    torch.testing.assert_close(data.log_prior.exp(), wanted, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "labels: wanted shape"), ([0, 2, 2, 0], "labels: wanted 0..L-1, each")],
)
def test_bad_labels(labels, message):
    """One label a component, counted from 0, none left out."""
    with pytest.raises(ValueError, match=message):
        Labelled(mixture("isotropic", (2,), 4), torch.tensor(labels))


def test_a_label_that_is_not_there():
    """Labels run from 0 to L - 1."""
    with pytest.raises(ValueError, match=r"label: wanted one of 0..2, got 3"):
        Labelled(mixture("isotropic", (2,), 4), LABELS).given(3)
