"""Score matching's objectives in exact expectation: C21, C24, C25, E8."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.score_matching import (
    Score,
    denoising,
    divergence,
    explicit,
    fisher_divergence,
    implicit,
)
from tests.support.measuring import Measured
from tests.support.mixtures import normal, seeded
from tests.support.scores import (
    LINE,
    PLANE,
    mlp,
    noisy_samples,
    samples,
    score_of,
    tensor,
    weights_of,
)

EPS = torch.finfo(torch.float64).eps
SIGMAS = [0.3, 1.0, 2.0]


def models(data: GaussianMixture, sigma: float = 0.0) -> dict[str, Score]:
    """Scores right and wrong, at the noise level sigma."""
    right, parameters = score_of(data, sigma), weights_of(data.means[0].numel())
    return {
        "right": right,
        "wrong scale": lambda x: 1.3 * right(x),
        "shifted": lambda x: right(x - 0.4),
        "zero": torch.zeros_like,
        "network": lambda x: mlp(x, *(p.detach() for p in parameters)),
    }


@pytest.mark.claim("C24", "diffusion_math.score_matching.implicit")
@pytest.mark.parametrize("data", [LINE, PLANE], ids=["line", "plane"])
def test_explicit_and_implicit_differ_by_a_constant(
    measured: Measured, data: GaussianMixture
) -> None:
    """C24: E explicit / 2 - E implicit = E norm(S)^2 / 2 = -E tr grad S / 2, whatever the model.

    The second form of the constant is that of `right`: 0 - E implicit.
    """
    x, w = samples(data)
    right = score_of(data)
    theory = (w @ right(x).reshape(len(x), -1).square().sum(1)) / 2
    assert w.sum().item() == pytest.approx(1, abs=1e-11)
    wrong: dict[str, list[float]] = {"sign": [], "half lost": [], "factor 2 lost": []}
    for model in models(data).values():
        constant = w @ (explicit(model, right, x) / 2 - implicit(model, x))
        off = abs(constant.item() - theory.item())
        measured(off, 1e-9, "error of the constant between the objectives, by quadrature")
        trace = w @ divergence(model, x)
        square = w @ model(x).reshape(len(x), -1).square().sum(1)
        known = w @ explicit(model, right, x) / 2
        wrong["sign"].append((known - (square / 2 - trace)).item())
        wrong["half lost"].append((known - (square + trace)).item())
        wrong["factor 2 lost"].append((2 * known - (square / 2 + trace)).item())
    for constants in wrong.values():
        assert max(constants) - min(constants) > 0.1
    assert fisher_divergence(right, right, x).item() == 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_affine_models_of_gaussian_data_in_closed_form(size: int) -> None:
    """C24, C25 on N(m, C) and S_theta = A x + b, events (1, D): all integrands are quadratics.

    Gauss-Hermite with two nodes is exact for these, so the constants hold to rounding:
    tr C^-1 / 2, and D / sigma^2 - tr (C + sigma^2 I)^-1.
    """
    g = seeded(size)
    root = normal(g, size, size) + torch.eye(size, dtype=torch.float64)
    C, m = root @ root.mT + 0.1 * torch.eye(size, dtype=torch.float64), normal(g, size)
    A, b, eye = normal(g, size, size), normal(g, size), torch.eye(size, dtype=torch.float64)
    nodes, node_weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(2))
    z = torch.cartesian_prod(*[nodes] * (2 * size))
    w = (node_weights / node_weights.sum())[0] ** (2 * size) * torch.ones(len(z)).double()
    L = torch.linalg.cholesky(C)
    x, eps = ((y @ r.mT + c)[:, None] for y, r, c in ((z[:, :size], L, m), (z[:, size:], eye, 0)))

    def model(x: Tensor) -> Tensor:
        return x @ A.mT + b

    def gaussian_score(precision: Tensor) -> Score:
        return lambda x: -(x - m) @ precision

    right = gaussian_score(C.inverse())
    size_of = C.inverse().trace().item() + 1
    known = torch.trace(A) + ((A @ C @ A.mT).trace() + (A @ m + b).square().sum()) / 2
    assert (w @ implicit(model, x)).item() == pytest.approx(known.item(), rel=1e-12)
    gap = A + C.inverse()  # S_theta - S = gap (x - m) + A m + b
    apart = (gap @ C @ gap.mT).trace() + (A @ m + b).square().sum()
    assert fisher_divergence(right, model, x).item() == pytest.approx(apart.item(), rel=1e-12)
    constant = w @ (explicit(model, right, x) / 2 - implicit(model, x))
    assert constant.item() == pytest.approx(C.inverse().trace().item() / 2, abs=1e-12 * size_of)
    for sigma in SIGMAS:
        noisy = gaussian_score((C + sigma**2 * eye).inverse())
        x_hat = x + sigma * eps
        got = w @ (denoising(model, x, eps, sigma) - explicit(model, noisy, x_hat))
        theory = size / sigma**2 - (C + sigma**2 * eye).inverse().trace()
        assert got.item() == pytest.approx(theory.item(), abs=1e-11 * (1 + size / sigma**2))


PRINTED = "E8: x - x_hat called eps"
WRONG_TARGETS = {
    "sign": lambda eps, sigma: eps / sigma,
    "variance for deviation": lambda eps, sigma: -eps / sigma**2,
    "not divided": lambda eps, sigma: -eps,
    PRINTED: lambda eps, sigma: eps / sigma**2,  # (x - x_hat) / sigma^2 with eps in its place
}


@pytest.mark.claim("C25", "diffusion_math.score_matching.denoising")
@pytest.mark.parametrize("sigma", SIGMAS)
def test_denoising_and_explicit_differ_by_a_constant(measured: Measured, sigma: float) -> None:
    """C25: the constant is 1 / sigma^2 - E S_sigma^2, for every model; not so for wrong targets."""
    x, eps, w = noisy_samples(LINE)
    x_hat, noisy = x + sigma * eps, score_of(LINE, sigma)
    theory = 1 / sigma**2 - (w @ noisy(x_hat).square()).item()
    wrong: dict[str, list[float]] = {name: [] for name in WRONG_TARGETS}
    for model in models(LINE, sigma).values():
        known = w @ explicit(model, noisy, x_hat)
        got = (w @ denoising(model, x, eps, sigma) - known).item()
        off = abs(got - theory) / (1 + 1 / sigma**2)
        measured(off, 1e-9, "error of the constant between the objectives, by quadrature")
        for name, target in WRONG_TARGETS.items():
            squares = (model(x_hat) - target(eps, sigma)).square()
            wrong[name].append((w @ squares - known).item())
    for name, constants in wrong.items():
        same = sigma == 1 and name in ("variance for deviation", "not divided")
        assert (
            (max(constants) - min(constants) < 1e-9)
            if same
            else (max(constants) - min(constants) > 0.05)
        )


def test_one_minimiser() -> None:
    """C24, C25: the three objectives have one gradient in a network's parameters, term by term.

    Explicit (halved) and implicit on the plane; explicit at the noisy score and denoising on the
    line. Hence the same minimisers; at the truth all vanish (the scale c of c S at c = 1).
    """
    parameters = weights_of(2)
    x, w = samples(PLANE)

    def gradients(value: Tensor, of: list[Tensor]) -> Tensor:
        return torch.cat([p.flatten() for p in torch.autograd.grad(value, of)])

    def network(x: Tensor) -> Tensor:
        return mlp(x, *parameters)

    known = gradients(w @ explicit(network, score_of(PLANE), x) / 2, parameters)
    torch.testing.assert_close(
        gradients(w @ implicit(network, x), parameters), known, rtol=0, atol=1e-9
    )
    assert known.abs().max() > 0.1

    x, eps, w = noisy_samples(LINE)
    parameters = weights_of(1)
    known = gradients(w @ explicit(network, score_of(LINE, 0.5), x + 0.5 * eps), parameters)
    got = gradients(w @ denoising(network, x, eps, 0.5), parameters)
    torch.testing.assert_close(got, known, rtol=0, atol=1e-9)
    assert known.abs().max() > 0.1

    c = tensor(1.0)[0].requires_grad_()
    clean, noisy = score_of(LINE), score_of(LINE, 0.5)
    line, line_weights = samples(LINE)
    for value in (
        line_weights @ implicit(lambda x: c * clean(x), line),
        w @ denoising(lambda x: c * noisy(x), x, eps, 0.5),
    ):
        assert abs(torch.autograd.grad(value, c)[0].item()) < 1e-9


@pytest.mark.claim("E8", "diffusion_math.score_matching.denoising")
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_printed_target_is_wrong_at_the_truth(measured: Measured, sigma: float) -> None:
    """E8: x - x_hat = -sigma eps. Taken for eps, the target has a wrong sign and a wrong scale.

    At data of one point the truth S = -(x_hat - x) / sigma^2 leaves no error at all, yet the
    printed form leaves (1 + 1 / sigma)^2 norm(eps)^2 / sigma^2. On a mixture, the printed objective
    falls along c S at c = 1 with slope 2 (1 + 1 / sigma) E S^2: least at c = -1 / sigma.
    """
    point, noise = normal(seeded(0), 1, 3).expand(5, 3), normal(seeded(1), 5, 3)
    left = denoising(lambda x: -(x - point) / sigma**2, point, noise, sigma)
    # x_hat - x has the rounding of x_hat, which is divided by sigma^2, and the error is squared.
    units = left.max().sqrt() / (math.sqrt(3) * 4 * (3 + 3 * sigma) / sigma**2)
    measured(units.item(), EPS, "loss left at the truth, as an error of x_hat: rounding")
    squared = noise.square().sum(1)
    x_hat = point + sigma * noise
    printed = (-(x_hat - point) / sigma**2 - noise / sigma**2).square().sum(1)
    torch.testing.assert_close(printed, (1 + 1 / sigma) ** 2 * squared / sigma**2)
    assert printed.min() > 1e-9 > 1e9 * left.max()

    x, eps, w = noisy_samples(LINE)
    S = score_of(LINE, sigma)(x + sigma * eps)
    fisher = (w @ S.square()).item()
    slope = 2 * (w @ (S * (S - WRONG_TARGETS[PRINTED](eps, sigma)))).item()
    assert slope == pytest.approx(2 * (1 + 1 / sigma) * fisher, rel=1e-9)
    assert abs(2 * (w @ (S * (S + eps / sigma))).item()) < 1e-9  # the true target's slope
