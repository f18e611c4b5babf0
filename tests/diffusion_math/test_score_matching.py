"""Score matching an example at a time: traces, probes, derivatives, C26, and Tweedie's formulas."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.loss import training_loss
from diffusion_math.schedule import Schedule
from diffusion_math.score_matching import (
    denoising,
    divergence,
    explicit,
    fisher_divergence,
    implicit,
    jacobian,
    rademacher,
    sliced,
    tweedie_covariance,
    tweedie_mean,
)
from tests.support.chance import Count, rare
from tests.support.measuring import Measured
from tests.support.mixtures import EVENTS, FORMS, SCHEDULES, mixture, normal, seeded, time_at
from tests.support.scores import mlp, tensor, weights_of

EPS = torch.finfo(torch.float64).eps


@pytest.mark.claim("C26", "diffusion_math.score_matching.denoising")
@pytest.mark.claim("E8", "diffusion_math.prediction.eps_from_score")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("t_is", ["scalar", "batch"])
def test_denoising_is_the_ddpm_loss(measured: Measured, schedule: Schedule, t_is: str) -> None:
    """C26: sigma_t^2 denoising(S) = norm(eps - eps_theta)^2 at eps_theta = -sigma_t S, an example
    at a time: at alpha_t x_0 for the data. Without E8's sign or scale it does not hold.
    """
    x0, eps = normal(seeded(3), 4, 2, 2), normal(seeded(4), 4, 2, 2)
    parts = tensor(0.1, 0.5, 0.9, 0.5)
    times = torch.stack([tensor(time_at(schedule, p))[0] for p in parts.tolist()])
    t = times if t_is == "batch" else times[1]
    alpha_t, sigma_t = (c.reshape(-1, 1, 1) for c in schedule(t))
    parameters = [p.detach() for p in weights_of(4)]

    def S(x: Tensor) -> Tensor:
        return mlp(x, *parameters)

    def network(x_t: Tensor, time: Tensor) -> Tensor:
        return prediction.eps_from_score(schedule, x_t, S(x_t), t)

    ddpm = training_loss(schedule, network, "eps", x0, eps, t)
    noise_level = sigma_t.flatten() if t_is == "batch" else sigma_t.reshape(())
    per_example = denoising(S, alpha_t * x0, eps, noise_level)
    matched = noise_level.square() * per_example
    off = (matched / ddpm - 1).abs().max().item()
    measured(off, 64 * EPS, "relative difference of the losses, example by example: rounding")
    for wrong in (lambda x: -S(x), lambda x: S(x) / sigma_t if t_is == "batch" else 2 * S(x)):
        off = noise_level.square() * denoising(wrong, alpha_t * x0, eps, noise_level)
        assert ((off - ddpm).abs() > 1e-3 * ddpm).any()


@pytest.mark.parametrize("event", EVENTS)
def test_traces_and_jacobians(event: tuple[int, ...]) -> None:
    """Against torch's Jacobian, an example at a time, on a field that is no gradient."""
    size = math.prod(event)
    parameters = [p.detach() for p in weights_of(size)]
    x = normal(seeded(5), 4, *event)

    def field(x: Tensor) -> Tensor:
        return mlp(x, *parameters)

    exact = torch.stack(
        [torch.autograd.functional.jacobian(field, one[None]).reshape(size, size) for one in x]
    )
    slope = jacobian(field, x)
    torch.testing.assert_close(slope, exact, rtol=0, atol=64 * EPS * size)
    assert size == 1 or (slope.mT - exact).abs().max() > 1e-2
    trace = exact.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(divergence(field, x), trace, rtol=0, atol=64 * EPS * size)
    value = field(x).reshape(4, -1).square().sum(1)
    torch.testing.assert_close(implicit(field, x), trace + value / 2, rtol=0, atol=1e-13)

    assert implicit(field, x[:0]).shape == (0,)
    alone = torch.cat([implicit(field, x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(implicit(field, x), alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("event", [(), (2,), (2, 2)])
def test_the_mean_over_all_signs_is_exact(event: tuple[int, ...]) -> None:
    """Hutchinson and slices are unbiased: over all 2^D sign vectors they average to the exact.

    The variance over them is sum_{i<j} (J_ij + J_ji)^2. Wrong probes (halves of those vectors, or
    signs of twice the size) are rejected.
    """
    size = math.prod(event)
    parameters = [p.detach() for p in weights_of(size)]
    x = normal(seeded(6), 3, *event)

    def field(x: Tensor) -> Tensor:
        return mlp(x, *parameters)

    signs = tensor(*itertools.product([-1.0, 1.0], repeat=size)).reshape(-1, 1, *event)
    probes = signs.expand(-1, *x.shape)
    exact = divergence(field, x)
    torch.testing.assert_close(divergence(field, x, probes), exact, rtol=0, atol=1e-13)
    for estimate in (implicit(field, x, probes), sliced(field, x, probes)):
        torch.testing.assert_close(estimate, implicit(field, x), rtol=0, atol=1e-13)
    each = torch.stack([divergence(field, x, p[None]) for p in probes])
    off = (jacobian(field, x) + jacobian(field, x).mT).triu(1)
    theory = off.square().sum((1, 2))
    torch.testing.assert_close(each.var(0, correction=0), theory, rtol=0, atol=1e-12)
    assert (divergence(field, x, 2 * probes) - exact).abs().max() > 0.05
    assert size == 1 or (divergence(field, x, probes[:1]) - exact).abs().max() > 0.05
    assert size == 1 or (sliced(field, x, probes[:1]) - sliced(field, x, probes)).abs().max() > 0.05


@pytest.mark.chance(3e-9, "heads at 0.55, or neighbours alike as often")
def test_rademacher_probes() -> None:
    """Fair, independent signs from the generator alone: 40000, and whether neighbours agree.

    Neighbours agree or not as independently as signs are drawn. Standard normals are no signs.
    """
    x = torch.zeros(100, 4, 10, dtype=torch.float32)
    v = rademacher(seeded(0), x, 10)
    assert v.shape == (10, 100, 4, 10) and v.dtype == torch.float32
    assert bool((v.abs() == 1).all()) and v.equal(rademacher(seeded(0), x, 10))
    assert not v.equal(rademacher(seeded(1), x, 10))
    flat = v.flatten()
    for signs in (flat, flat[1:] * flat[:-1]):
        bound = Count(len(signs), 0.5, 1e-9)
        assert bound.holds(int((signs > 0).sum()))
        assert rare(bound.misses(0.55))


def test_differentiable_twice_in_the_parameters() -> None:
    """First and second derivatives of every objective, by finite differences (gradcheck)."""
    x, eps, probes = (normal(seeded(i), 2, 2) for i in (0, 1, 2))
    parameters = tuple(weights_of(2, hidden=2))

    def objectives(*parameters: Tensor) -> tuple[Tensor, ...]:
        def model(x: Tensor) -> Tensor:
            return mlp(x, *parameters)

        return (
            explicit(model, torch.neg, x),
            implicit(model, x),
            implicit(model, x, probes[None]),
            sliced(model, x, probes[None]),
            denoising(model, x, eps, 0.7),
        )

    assert torch.autograd.gradcheck(objectives, parameters)
    assert torch.autograd.gradgradcheck(objectives, parameters)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_tweedie_to_second_order(schedule: Schedule, form: str, part: float) -> None:
    """Mean and covariance of alpha_t x_0 given x_t, against the oracle's reverse kernel.

    Rounding: sigma^2 times the score's and its slope's (below 1e3 EPS each, relative to
    sigma^-2): 1e-12 sigma^2. Wrong powers of sigma and a wrong sign are rejected.
    """
    data, t = mixture(form, (2, 2), seed=3), time_at(schedule, part)
    alpha_t, sigma_t = schedule(t)
    x = data.sample(seeded(1), 3) * alpha_t + sigma_t * normal(seeded(2), 3, 2, 2)

    def score(x: Tensor) -> Tensor:
        return data.score(schedule, x, t)

    exact = [data.reverse(schedule, one, t).moments() for one in x]
    mean = alpha_t * torch.stack([m for m, _ in exact])
    covariance = alpha_t.square() * torch.stack([c for _, c in exact])
    scale = (1 + sigma_t.square()).item() * (1 + x.abs().max().item())
    got = tweedie_covariance(score, x, sigma_t)
    torch.testing.assert_close(tweedie_mean(score, x, sigma_t), mean, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(got, covariance, rtol=0, atol=1e-12 * scale)
    eye, slope = torch.eye(4, dtype=torch.float64), jacobian(score, x)
    s = sigma_t.square()
    for wrong in (s * eye, s * eye - s**2 * slope, s * (eye + slope), eye + s * slope):
        assert sigma_t == 1 or (wrong - covariance).abs().max() > 1e-11 * scale


def test_a_level_for_each_sample() -> None:
    """sigma of shape (batch,): each example's own; float32 stays float32."""
    x, eps = normal(seeded(0), 3, 2), normal(seeded(1), 3, 2)
    sigma = tensor(0.5, 1.0, 2.0)
    for function in (
        lambda x, eps, s: denoising(torch.tanh, x, eps, s),
        lambda x, eps, s: tweedie_mean(torch.tanh, x, s),
        lambda x, eps, s: tweedie_covariance(torch.tanh, x, s),
    ):
        together = function(x, eps, sigma)
        for i in range(3):
            torch.testing.assert_close(
                together[i : i + 1], function(x[i : i + 1], eps[i : i + 1], sigma[i].item())
            )
        assert function(x.float(), eps.float(), 0.5).dtype == torch.float32


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named() -> None:
    x = torch.ones(3, 2)
    cases = [
        (lambda: denoising(torch.neg, x, x, 0.0), r"^sigma: wanted positive and finite, got 0"),
        (lambda: denoising(torch.neg, x, x, math.nan), r"^sigma: wanted positive"),
        (lambda: tweedie_mean(torch.neg, x, math.inf), r"^sigma: wanted positive"),
        (
            lambda: tweedie_covariance(torch.neg, x, torch.ones(2)),
            r"^t or a coefficient: wanted shape",
        ),
        (lambda: denoising(torch.neg, x, x[0], 1.0), r"^eps: wanted shape \(3, 2\), got"),
        (lambda: explicit(torch.neg, lambda x: x[0], x), r"^the model's output: wanted shape"),
        (lambda: implicit(lambda x: x[:, :1], x), r"^the model's output: wanted shape"),
        (lambda: sliced(torch.neg, x, x), r"^probes: wanted shape \(at least one, \*\(3, 2\)\)"),
        (lambda: divergence(torch.neg, x, x[None][:0]), r"^probes: wanted shape \(at least one"),
        (lambda: fisher_divergence(torch.neg, torch.neg, x[:0]), r"^x: wanted at least one"),
        (lambda: rademacher(seeded(0), x, 0), r"^count: wanted a whole number of at least 1"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_model_is_asked_in_the_dtype_of_the_data(dtype: torch.dtype) -> None:
    """x_hat is computed in float32 at least, and is the data's again where the model sees it."""
    asked = []

    def model(x: Tensor) -> Tensor:
        asked.append(x.dtype)
        return -x

    x = tensor([[1.0, -2.0]]).to(dtype)
    denoising(model, x, x, 0.5)
    assert asked == [dtype]
