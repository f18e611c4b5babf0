"""`assert_likelihood`, `assert_bound` and `assert_prior_term` pass right code and name mistakes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math.prediction import KINDS
from diffusion_math.schedule import Schedule
from diffusion_math.testing.assertions.bound import assert_bound, assert_prior_term
from diffusion_math.testing.assertions.likelihood import assert_likelihood
from diffusion_math.testing.mistakes.diagnosis import MistakeError

FLOATS = [torch.float32, torch.float64]
D = 4
FLOW = dm.RectifiedFlow()


def euler(
    divergence: float = 1.0,
    normaliser: float = 1.0,
    prior: float = 1.0,
    finish: Callable[[Tensor], Tensor] = lambda nats: nats,
    steps: int = 40,
) -> Callable[..., Tensor]:
    """The flow of rectified flow by Runge and Kutta's steps, with the trace by autograd."""

    def log_density(network: Any, x: Tensor) -> Tensor:
        def slope(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            x = x.detach().requires_grad_()
            velocity = network(x, torch.full((len(x),), t, dtype=torch.float64))
            (trace,) = torch.autograd.grad(velocity.sum(), x)  # each entry is on its own
            return velocity.detach(), trace.sum(1)

        h, total = 0.98 / steps, torch.zeros(len(x), dtype=x.dtype)
        for k in range(steps):
            t = 0.01 + k * h
            first = slope(x, t)
            second = slope(x + h / 2 * first[0], t + h / 2)
            third = slope(x + h / 2 * second[0], t + h / 2)
            fourth = slope(x + h * third[0], t + h)
            mean = [
                (a + 2 * b + 2 * c + d) / 6
                for a, b, c, d in zip(first, second, third, fourth, strict=True)
            ]
            x, total = x + h * mean[0], total + h * mean[1]
        ends = x.square().sum(1) / (2 * prior**2) + D * math.log(prior)
        return finish(divergence * total - ends - normaliser * D * math.log(2 * math.pi) / 2)

    return log_density


def check(log_density: Callable[..., Any], **claims: Any) -> None:
    assert_likelihood(log_density, FLOW, 0.01, 0.99, predicts="flow", **claims)


def named(run: Callable[..., None], *given: Any, **claims: Any) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        run(*given, **claims)
    return [one.name for one in caught.value.mistakes]


@pytest.mark.parametrize("schedule", [dm.VPCosine(), dm.RectifiedFlow(), dm.VE(sigma_max=10.0)])
def test_our_likelihood_passes(schedule: Schedule) -> None:
    first, last = float(schedule.time(torch.tensor(8.0))), float(schedule.T)
    deviation = float(schedule(last)[1])

    def log_density(network: Any, x: Tensor) -> Tensor:
        def prior(z: Tensor) -> Tensor:
            variance = torch.tensor(deviation**2, dtype=torch.float64)
            return dm.gaussian.Gaussian(torch.zeros_like(z), variance).log_density(z)

        return dm.likelihood.flow_log_density(
            schedule, network, x, prior, s=first, rtol=1e-6, atol=1e-6
        ).log_density

    assert_likelihood(log_density, schedule, first, last, prior=deviation, predicts="x0")


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_plain_likelihood_passes_in_each_unit(dtype: torch.dtype) -> None:
    check(euler(), dtype=dtype)
    check(euler(finish=lambda n: -n / D), unit="nats/dim", dtype=dtype)
    check(euler(finish=lambda n: -n / D / math.log(2) + 7), unit="bits/dim", offset=7, dtype=dtype)
    check(euler(prior=2.0), prior=2.0, dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (euler(0.0), "the divergence is left out: the prior's log-density alone"),
        (euler(-1.0), "the divergence has the other sign"),
        (euler(2.0), "the divergence is doubled: g^2 where g^2 / 2 belongs"),
        (euler(0.5), "the divergence is half of what it should be"),
        (euler(0.25), "the divergence is averaged over dimensions, not summed"),
        (euler(normaliser=0.0), "the prior is not normalised: log(2 pi) is left out"),
        (euler(finish=lambda n: n / D), "the unit is nats/dim: nats is wanted"),
        (euler(finish=lambda n: n / math.log(2)), "the unit is bits of an example"),
        (euler(finish=lambda n: -n), "the log-density is -its right value"),
    ],
)
def test_a_wrong_log_density_is_named(
    wrong: Callable[..., Tensor], name: str, dtype: torch.dtype
) -> None:
    assert named(check, wrong, dtype=dtype) == [name]


def test_a_wrong_prior_is_named() -> None:
    assert named(check, euler(), prior=2.0) == ["the prior is a standard normal"]


@pytest.mark.parametrize(
    ("finish", "name"),
    [
        (lambda n: -n / D, "the unit is nats/dim: bits/dim is wanted"),
        (lambda n: -n / D * math.log(2), "it is multiplied by log 2, where it is divided by it"),
        (lambda n: -n / math.log(2), "the unit is bits of an example"),
        (lambda n: -n, "the unit is nats: bits/dim is wanted"),
        (
            lambda n: n / D / math.log(2),
            "its sign is that of a log-likelihood: bits/dim are of the negative one",
        ),
    ],
)
def test_a_wrong_unit_is_named(finish: Callable[[Tensor], Tensor], name: str) -> None:
    assert named(check, euler(finish=finish), unit="bits/dim") == [name]


def test_one_percent_is_an_error_in_float32() -> None:
    assert named(check, euler(1.01), dtype=torch.float32) == []


def test_the_network_has_a_value_on_clean_data() -> None:
    found = []

    def log_density(network: Any, x: Tensor) -> Tensor:
        found.append(network(x, 0.0))
        return x[:, 0]

    with pytest.raises(MistakeError):
        assert_likelihood(log_density, FLOW, 0.0, 1.0)
    assert found[0].eq(0).all()  # no noise is seen where there is none


SCHEDULE = dm.Discrete.linear(25)
TIMES = range(1, 26)
FACTORS = {"nats": 1.0, "nats/dim": 1 / D, "bits/dim": 1 / D / math.log(2)}


def plain(
    variance: str = "beta~",
    kind: str = "eps",
    factor: float = 1.0,
    constant: float = D,
    exchanged: bool = False,
    scaled: bool = True,
    dtype: torch.dtype = torch.float64,
    schedule: dm.Discrete = SCHEDULE,
) -> Callable[..., Tensor]:
    """The term as in DDPM's code: means and log-variances of both, and their divergence."""
    abar = (1 - schedule.betas).cumprod(0)
    abar = torch.cat([torch.ones(1, dtype=abar.dtype), abar])

    def term(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        now, before = abar[t].to(dtype)[:, None], abar[t - 1].to(dtype)[:, None]
        beta = 1 - now / before
        tilde = beta * (1 - before) / (1 - now)
        x_t = now.sqrt() * x0 + (1 - now).sqrt() * noise
        a, b = KINDS[kind](now.sqrt(), (1 - now).sqrt())
        alpha, sigma = now.sqrt(), (1 - now).sqrt()
        guess = (b * x_t - sigma * network(x_t, t)) / (alpha * b - sigma * a)
        v = beta if variance == "beta" else tilde
        c = before.sqrt() * beta / (1 - now) if scaled else torch.ones_like(v)
        p, q = (tilde, v) if exchanged else (v, tilde)
        spread = (q / p - 1 - (q / p).log())[:, 0]
        return (
            factor * ((c * (x0 - guess)).square() / p).sum(1) / 2 + factor * constant * spread / 2
        )

    return term


def bound(term: Callable[..., Any], **claims: Any) -> None:
    assert_bound(term, SCHEDULE, TIMES, **claims)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", ["beta", "beta~"])
def test_our_bound_passes(kind: str, variance: str) -> None:
    ours = dm.variance.large_variance if variance == "beta" else dm.variance.small_variance

    def term(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        def denoise(x_t: Tensor, at: Tensor) -> Tensor:
            if kind == "x0":
                return network(x_t, at)
            convert = getattr(dm.prediction, f"x0_from_{kind}")
            return convert(SCHEDULE, x_t, network(x_t, at), at)

        x_t = dm.gaussian.marginal(SCHEDULE, x0, t).sample(noise)
        return dm.elbo.step_term(SCHEDULE, denoise, x0, x_t, t, t - 1, ours)

    bound(term, variance=variance, predicts=kind)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("unit", FACTORS)
def test_plain_terms_pass(unit: str, dtype: torch.dtype) -> None:
    for variance in ("beta", "beta~"):
        term = plain(variance, factor=FACTORS[unit], dtype=dtype)
        bound(term, variance=variance, unit=unit, dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"variance": "beta~"}, "the model's variance is beta~"),
        ({"factor": 2.0}, "1/2 is left out"),
        ({"constant": 1.0}, "the part of the variances is of one dimension"),
        ({"constant": 0.0}, "the part of the variances is left out"),
        ({"exchanged": True}, "it is the KL divergence the other way round"),
        ({"scaled": False}, "the error is not multiplied by the posterior's coefficient of x0"),
        ({"factor": 1 / D}, "the unit is nats/dim: nats is wanted"),
        ({"factor": 1 / math.log(2)}, "the unit is bits of an example"),
    ],
)
def test_a_wrong_term_is_named(wrong: dict[str, Any], name: str, dtype: torch.dtype) -> None:
    term = plain(**{"variance": "beta", "dtype": dtype, **wrong})
    assert named(bound, term, variance="beta", dtype=dtype) == [name]


def test_a_rounded_term_that_is_as_near_to_a_mistake_is_right() -> None:
    """Where the right term is below its rounding, terms of a mistake lie within it as well."""
    long, unit, dtype = dm.Discrete.linear(1000), "bits/dim", torch.float32
    right = plain("beta", factor=FACTORS[unit], dtype=dtype, schedule=long)

    def term(rounding: float) -> Callable[..., Tensor]:
        return lambda *given: right(*given) + rounding

    for rounding in (-2e-5, 2e-5, 4e-5):
        given = term(rounding), long, range(1, 1001)
        assert_bound(*given, variance="beta", unit=unit, dtype=dtype)


def test_the_state_that_a_term_is_taken_at_is_looked_at() -> None:
    """At another noise level errors in x0 are the same, and the network sees another x_t."""

    def term(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return plain()(network, x0, t, 2 * noise)

    with pytest.raises(MistakeError, match=r"the x_t's coefficient of noise differs at 24 of 24"):
        bound(term)


def test_the_upper_variance_in_the_lower_ones_place_is_named() -> None:
    assert named(bound, plain("beta")) == ["the model's variance is beta"]
    assert named(bound, plain(factor=1.01), dtype=torch.float32) == []


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_prior_term(dtype: torch.dtype) -> None:
    alpha, sigma = 0.3, 0.9

    def term(
        constant: float = D, turned: bool = False, alpha: float = alpha, factor: float = 1.0
    ) -> Callable[..., Tensor]:
        def value(x0: Tensor) -> Tensor:
            v = sigma**-2 if turned else sigma**2
            squares = (alpha * x0).square().sum(1) * (v if turned else 1)
            return factor * (squares + constant * (v - 1 - math.log(v))) / 2

        return value

    def check(wrong: Callable[..., Tensor]) -> list[str]:
        return named(assert_prior_term, wrong, alpha, sigma, dtype=dtype)

    assert_prior_term(term(), alpha, sigma, dtype=dtype)
    assert_prior_term(term(factor=FACTORS["bits/dim"]), alpha, sigma, unit="bits/dim", dtype=dtype)
    assert check(term(0.0)) == ["the variances are left out: alpha^2 norm(x0)^2 / 2 alone"]
    assert check(term(1.0)) == ["the variances' part is of one dimension"]
    assert check(term(turned=True)) == ["it is the KL divergence the other way round"]
    assert check(term(alpha=1.0)) == ["x0 is not scaled by alpha"]
    assert check(term(factor=0.25)) == ["the unit is nats/dim: nats is wanted"]
    assert check(term(factor=2.0)) == ["the term is 2 its right value"]


def test_what_raises_is_one_line() -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("no")

    for run in (check, bound):
        with pytest.raises(AssertionError, match="broken: raised RuntimeError: no"):
            run(broken)


def test_bad_arguments_are_value_errors() -> None:
    match = r"^\w+: wanted .*, got "
    for bad in ({"unit": "bit"}, {"prior": 0}, {"tolerance": 1.0}):
        with pytest.raises(ValueError, match=match):
            check(euler(), **bad)
    for bad in ({"unit": "bit"}, {"variance": "gamma"}, {"predicts": "z"}):
        with pytest.raises(ValueError, match=match):
            bound(plain(), **bad)
    with pytest.raises(ValueError, match=match):
        assert_prior_term(lambda x0: x0, 1.0, 0.0)
