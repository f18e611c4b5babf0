"""Quadratic forms by products and by differences, against a hundred digits and each other."""

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import _batching
from diffusion_math.densities._quadratic_forms import ACCURACY, Differences, Means, Products, forms
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VPLinear
from tests.support.mixtures import FORMS, mixture, normal, seeded

EPS = torch.finfo(torch.float64).eps


def exact(alpha, means, precision, x, r):
    """Energies and pulls of diagonal forms in a hundred digits."""
    with mpmath.workdps(100):
        a = mpmath.mpf(alpha.item())
        P = [[mpmath.mpf(one) for one in row] for row in precision.expand_as(means).tolist()]
        m = [[mpmath.mpf(one) for one in row] for row in means.tolist()]
        energies, pulls = [], []
        for point, weights in zip(x.tolist(), r.tolist(), strict=True):
            apart = [
                [mpmath.mpf(p) - a * q for p, q in zip(point, mean, strict=True)] for mean in m
            ]
            energies.append(
                [
                    float(sum(u * d * d for u, d in zip(p, row, strict=True)) / 2)
                    for p, row in zip(P, apart, strict=True)
                ]
            )
            pull = [
                -sum(mpmath.mpf(w) * P[k][d] * apart[k][d] for k, w in enumerate(weights))
                for d in range(len(point))
            ]
            pulls.append([float(one) for one in pull])
    return torch.tensor(energies, dtype=torch.float64), torch.tensor(pulls, dtype=torch.float64)


@given(
    seed=st.integers(0, 10_000),
    K=st.integers(1, 4),
    D=st.integers(1, 4),
    isotropic=st.booleans(),
    reach=st.sampled_from([0.0, 1.0, 100.0, 1e6]),
    offset=st.sampled_from([0.0, 10.0, 1e6]),
    std=st.sampled_from([1e-4, 0.01, 1.0, 100.0]),
    far=st.sampled_from([0.0, 1.0, 1e3, 1e8]),
)
def test_errors_stay_below_what_is_promised(seed, K, D, isotropic, reach, offset, std, far):
    """Whatever the way: energies to ACCURACY a dimension, or to it relatively; pulls likewise.

    Points lie from the middle of a mode to 1e8 standard deviations away.
    """
    g = seeded(seed)
    means = offset + reach * normal(g, K, D)
    alpha = torch.rand((), generator=g, dtype=torch.float64)
    precision = torch.exp(normal(g, K, 1 if isotropic else D)) / std**2
    x = alpha * means[:1] + std * torch.tensor([[0.0], [1.0], [far]]) * normal(g, 3, D)
    r = normal(g, 3, K).softmax(1)
    way = forms(alpha, Means(means), precision)
    energy, pull = exact(alpha, means, precision, x, r)
    assert ((way.energy(x) - energy).abs() <= 2 * ACCURACY * (D + energy)).all()
    # The largest term of a pull is known to a few EPS by differences, to ACCURACY by products.
    largest = (precision.amax(0) * (alpha * means.mean(0) - x).abs()).amax(1, keepdim=True)
    scale = precision.amax().sqrt() + largest
    apart = (precision[:, None] * (x - alpha * means[:, None]).abs()).amax(0).amax(1, keepdim=True)
    assert ((way.pull(r, x) - pull).abs() <= 2 * ACCURACY * (scale + apart)).all()


def test_each_way_is_taken_where_it_should_be():
    """Products for modes within 200 standard deviations; differences far apart or far from zero."""
    one, means = torch.ones((), dtype=torch.float64), normal(seeded(0), 5, 3)
    unit = torch.ones(5, 1, dtype=torch.float64)
    assert isinstance(forms(one, Means(means), unit), Products)
    assert isinstance(forms(one, Means(1e3 + means), unit), Products)
    assert isinstance(forms(one, Means(1e6 * means), unit), Differences)
    assert isinstance(forms(one, Means(1e6 + means), unit), Differences)
    assert isinstance(forms(one, Means(means), 1e8 * unit), Differences)
    eye = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    assert isinstance(forms(one, Means(means), unit.expand(5, 3), eye), Differences)


@pytest.mark.parametrize(
    ("middles", "reaches", "precisions", "products"),
    [
        ((0.0,), (1e3,), (1.0,), False),  # 5 P reach^2: not 5 P
        ((0.0,), (1.0,), (8e3,), True),  # 5, not 6
        ((30023.0,), (0.5,), (1.0,), False),  # sqrt(P) (|c| + reach): not less reach
        ((0.0, 0.0), (1e-3, 1e3), (1e4, 1e-4), True),  # dimension by dimension
    ],
)
def test_the_loss_is_weighed_by_its_formula(middles, reaches, precisions, products):
    """eps (P r (5 r + |c|) + sqrt(P) (|c| + r)) against ACCURACY, at the mean over dimensions."""
    centre, reach = (torch.tensor(part, dtype=torch.float64) for part in (middles, reaches))
    means = torch.stack([centre - reach, centre + reach])
    precision = torch.tensor(precisions, dtype=torch.float64).expand(2, len(precisions))
    found = forms(torch.ones((), dtype=torch.float64), Means(means), precision)
    assert isinstance(found, Products) == products


def test_the_plain_square_would_break_the_promise():
    """Wrong version: the square expanded about 0, whatever its size, is off by a nat and more."""
    means = torch.tensor([[1e6, 0.0], [1e6, 1.0]], dtype=torch.float64)
    precision, alpha = torch.full((2, 1), 1e4, dtype=torch.float64), torch.tensor(1.0).double()
    x = means[:1] + torch.tensor([[0.01, -0.02]], dtype=torch.float64)
    energy, _ = exact(alpha, means, precision, x, torch.full((1, 2), 0.5).double())
    squares = x.square().sum(1, keepdim=True) - 2 * x @ means.mT + means.square().sum(1)
    assert (squares * 1e4 / 2 - energy).abs().max() > 0.1
    energies = forms(alpha, Means(means), precision).energy(x)
    assert (energies - energy).abs().max() < 1e-9 * energy.max()


# torch.func.jacfwd warns of a part of torch that torch itself still uses.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("apart", [1.0, 1e6])
def test_derivatives_of_every_kind(form, apart):
    """Reverse, forward, second order and vmap agree, on both ways of the forms.

    (A distance by torch.cdist would be silently wrong under vmap of its backward.)
    """
    data, schedule, t = mixture(form, (2,), 3, seed=1, apart=apart), VPLinear(), 0.3
    x = schedule(t)[0] * data.means + normal(seeded(2), 3, 2)

    def log_q(one):
        return data.log_density(schedule, one[None], t)[0]

    score = data.score(schedule, x, t)
    close = {"rtol": 1e-8, "atol": 1e-8 * max(1, apart / 1e3)}
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(log_q))(x), score, **close)
    torch.testing.assert_close(torch.func.vmap(log_q)(x), data.log_density(schedule, x, t), **close)
    by_reverse = torch.stack([torch.func.jacrev(torch.func.grad(log_q))(one) for one in x])
    by_forward = torch.stack([torch.func.jacfwd(torch.func.grad(log_q))(one) for one in x])
    of_score = torch.stack(
        [torch.func.jacrev(lambda y: data.score(schedule, y[None], t)[0])(one) for one in x]
    )
    torch.testing.assert_close(by_reverse, by_forward, **close)
    torch.testing.assert_close(of_score, by_forward, **close)


def test_blocks_change_nothing(monkeypatch):
    """One row a block gives what one block gives, and no row is lost at a seam."""
    data, schedule = mixture("diagonal", (2,), 5), VPLinear()
    x = normal(seeded(0), 23, 2)
    methods = (data.log_density, data.score, data.posterior_mean, data.responsibilities)
    whole = [f(schedule, x, 0.4) for f in methods]
    for block in (1, 10, 64):
        monkeypatch.setattr(_batching, "BLOCK", block)
        for f, wanted in zip(methods, whole, strict=True):
            torch.testing.assert_close(f(schedule, x, 0.4), wanted, rtol=1e-13, atol=1e-13)


def test_memory_does_not_grow_with_rows_times_components():
    """The largest tensor of 3000 rows and 1000 components is a block, a part of their product."""
    from tests.support.largest_tensor import Largest

    K, B = 1000, 3000
    data = GaussianMixture(torch.zeros(K), 3 * normal(seeded(0), K, 2), torch.full((K,), 0.1))
    x = normal(seeded(1), B, 2)
    for f in (data.log_density, data.score, data.posterior_mean):
        with Largest() as seen:
            f(VPLinear(), x, 0.5)
        assert seen.numel <= _batching.BLOCK < B * K / 11
