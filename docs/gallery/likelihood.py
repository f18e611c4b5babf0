"""The log-likelihood, and the terms of its bound."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math import testing

from .schedule import TIMES, VARIANCES, at, levels
from .subject import Program, Subject


def likelihood(run: Program, unit: Any = "nats") -> None:
    flow = dm.RectifiedFlow()

    def log_density(network: Any, x: Tensor) -> Tensor:
        (alpha, sigma), (a, s) = flow(0.01), flow(1.0)
        grown = (a**2 * 0.64 + s**2) / (alpha**2 * 0.64 + sigma**2)
        z = a * 0.3 + grown.sqrt() * (x - alpha * 0.3)
        divergence = 2 * log_of(grown) * torch.ones(len(x)).double()
        return run(z=z, divergence=divergence, D=4, r=2.0, pi=math.pi, ln=math.log)["log_p"]

    log_of = torch.log
    testing.assert_likelihood(log_density, flow, 0.01, 1.0, prior=2.0, unit=unit)


def bound(run: Program, variance: str = "beta") -> None:
    def term(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        given = at(t)
        x_t = given["alpha"] * x0 + given["sigma"] * noise
        error = (network(x_t, t) - x0).square().sum(1)
        beta, abar, prev = (given[name][:, 0] for name in ("beta", "abar", "prev"))
        given = {"beta": beta, "beta_tilde": VARIANCES[t], "D": 4, "error": error}
        return run(**given, c=prev.sqrt() * beta / (1 - abar))["kl"]

    testing.assert_bound(term, levels, TIMES, predicts="x0", variance=variance)


def prior(run: Program, unit: str = "nats") -> None:
    def term(x0: Tensor) -> Tensor:
        given = {"alpha": torch.tensor(0.5).double(), "sigma": torch.tensor(0.75).double().sqrt()}
        return run(**given, x0=x0, D=4, ln2=math.log(2))["kl"]

    testing.assert_prior_term(term, 0.5, 0.75**0.5, unit=unit)


def decoder(run: Program, quantized: bool = True) -> None:
    def log_probability(x0: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        given = {"x0": x0, "mean": mean, "log_std": log_std, "sigmoid": torch.sigmoid}
        special = {"Phi": torch.special.ndtr, "Normal": torch.distributions.Normal, "ln": math.log}
        exact = {"bin_of": bin_of, "pi": math.pi, "tanh": torch.tanh}
        return run(**given, **special, **exact)["log_p"]

    testing.assert_decoder(log_probability, quantized=quantized)


def bin_of(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Our log-probability of a bin, entry by entry."""
    flat = [each.reshape(-1, 1) for each in (x, mean, std)]
    gaussian = dm.gaussian.Gaussian(flat[1], flat[2] ** 2)
    return dm.elbo.quantized_log_probability(gaussian, flat[0]).reshape(x.shape)


KL = "c**2 * error / (2 * v) + D / 2 * (beta_tilde / v - 1 - log(beta_tilde / v))"

SUBJECTS = (
    Subject(
        "Log-likelihood",
        "assert_likelihood",
        "By the probability flow, whose end is z of prior N(0, r^2), by",
        (
            "prior = -(z**2).sum(1) / (2 * r**2) - D / 2 * ln(2 * pi) - D * ln(r)",
            "log_p = prior + divergence",
        ),
        (
            "log_p = prior",
            "log_p = prior - divergence",
            "log_p = prior + 2 * divergence",
            "log_p = prior + divergence / 2",
            "log_p = prior + divergence / D",
            "prior = -(z**2).sum(1) / (2 * r**2) - D * ln(r)",
            "prior = -(z**2).sum(1) / (2 * r**2) - D / 2 * ln(2 * pi)",
            "prior = -(z**2).sum(1) / 2 - D / 2 * ln(2 * pi)",
            "log_p = divergence",
            "log_p = (prior + divergence) / D",
            "log_p = (prior + divergence) / D / ln(2)",
            "log_p = (prior + divergence) / ln(2)",
        ),
        likelihood,
    ),
    Subject(
        "Bits per dimension",
        "assert_likelihood",
        'The same with `unit="bits/dim"`, by',
        (
            "prior = -(z**2).sum(1) / (2 * r**2) - D / 2 * ln(2 * pi) - D * ln(r)",
            "log_p = -(prior + divergence) / D / ln(2)",
        ),
        (
            "log_p = -(prior + divergence)",
            "log_p = -(prior + divergence) / D",
            "log_p = -(prior + divergence) / D * ln(2)",
            "log_p = (prior + divergence) / D / ln(2)",
            "log_p = -(prior + divergence) / D / ln(2) + 1",
        ),
        partial(likelihood, unit="bits/dim"),
    ),
    Subject(
        "Terms of the bound",
        "assert_bound",
        "KL(q(x_s | x_t, x_0), p(x_s | x_t)) with c the posterior's coefficient of x_0, by",
        ("v = beta", f"kl = {KL}"),
        (
            "v = beta_tilde",
            f"kl = 2 * ({KL})",
            "kl = c**2 * error / (2 * v) + 1 / 2 * (beta_tilde / v - 1 - log(beta_tilde / v))",
            "kl = c**2 * error / (2 * v)",
            "kl = c**2 * error / (2 * beta_tilde) + D / 2 * (v / beta_tilde - 1 - log(v / beta_tilde))",
            "c = 1",
        ),
        bound,
    ),
    Subject(
        "Terms of the bound, the small variance",
        "assert_bound",
        'The same with `variance="beta~"`, by',
        ("v = beta_tilde", f"kl = {KL}"),
        ("v = beta",),
        partial(bound, variance="beta~"),
    ),
    Subject(
        "First term of the bound",
        "assert_prior_term",
        "KL(q(x_T | x_0), N(0, I)), by",
        ("kl = (alpha**2 * x0**2 + sigma**2 - 1 - log(sigma**2)).sum(1) / 2",),
        (
            "kl = (alpha**2 * x0**2).sum(1) / 2",
            "kl = (alpha**2 * (x0**2).sum(1) + sigma**2 - 1 - log(sigma**2)) / 2",
            "kl = ((alpha * x0 / sigma)**2 + sigma**-2 - 1 + 2 * log(sigma)).sum(1) / 2",
            "kl = (x0**2 + sigma**2 - 1 - log(sigma**2)).sum(1) / 2",
            "kl = (alpha**4 * x0**2 + sigma**2 - 1 - log(sigma**2)).sum(1) / 2",
            "kl = (alpha**2 * x0**2 + sigma - 1 - log(sigma)).sum(1) / 2",
        ),
        prior,
    ),
    Subject(
        "Last term of the bound",
        "assert_decoder",
        "The log-probability of 8-bit data, by",
        (
            "std = log_std.exp()",
            "half, phi, open_ends = 1 / 255, Phi, True",
            "low, high = phi((x0 - half - mean) / std), phi((x0 + half - mean) / std)",
            "low = torch.where((x0 < -0.999) & open_ends, 0.0, low)",
            "high = torch.where((x0 > 0.999) & open_ends, 1.0, high)",
            "log_p = log(high - low)",
        ),
        (
            "log_p = Normal(mean, std).log_prob(x0)",
            "half, phi, open_ends = 1 / 255, Phi, False",
            "half, phi, open_ends = 1 / 510, Phi, True",
            "half, phi, open_ends = 2 / 255, Phi, True",
            "half, phi, open_ends = 1 / 255, sigmoid, True",
            "half, phi, open_ends = 1 / 256, Phi, True",
            "half, phi, open_ends = 1 / 255, lambda x: (1 + tanh((2 / pi)**0.5 * (x + 0.044715 * x**3))) / 2, True",
            "std = (log_std / 2).exp()",
        ),
        decoder,
    ),
    Subject(
        "Density of continuous data",
        "assert_decoder",
        "The same with `quantized=False`, by",
        ("std = log_std.exp()", "log_p = -((x0 - mean) / std)**2 / 2 - log_std - ln(2 * pi) / 2"),
        ("log_p = bin_of(x0, mean, std)", "log_p = -((x0 - mean) / std)**2 / 2 - log_std"),
        partial(decoder, quantized=False),
    ),
)
