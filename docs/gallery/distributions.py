"""The Gaussians of the forward and the reverse process."""

from functools import partial

from torch import Tensor

from diffusion_math import testing

from .schedule import ABARS, BETAS, TIMES, VARIANCES, at, levels
from .subject import Program, Subject


def forward(run: Program) -> None:
    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return run(**at(t), x0=x0, noise=noise)["x_t"]

    testing.assert_forward(q_sample, levels, TIMES)


def transition(run: Program) -> None:
    def q(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        given = {"alpha_t": at(t)["alpha"], "sigma_t": at(t)["sigma"], "alpha_s": at(s)["alpha"]}
        return run(**given, sigma_s=at(s)["sigma"], x_s=x, noise=noise)["x_t"]

    testing.assert_transition(q, levels, TIMES)


def posterior(run: Program) -> None:
    def q(x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        given = {**at(t), "abars": ABARS[:, None], "variances": VARIANCES[:, None], "t": t}
        given |= {"betas": BETAS[:, None]}
        given.pop("prev")
        done = run(**given, x0=x0, x_t=x_t)
        return done["mean"], done["variance"]

    testing.assert_posterior(q, levels, TIMES)


def learned(run: Program, ends: tuple[int, int] = (-1, 1)) -> None:
    small = VARIANCES.clone()
    small[0] = small[1]

    def variance(v: Tensor, t: Tensor) -> Tensor:
        given = {"beta": BETAS[t, None], "beta_tilde": small[t, None]}
        return run(**given, v=v)["log_variance"]

    testing.assert_learned_variance(variance, levels, TIMES, ends=ends)


SUBJECTS = (
    Subject(
        "Forward process",
        "assert_forward",
        "A sample of q(x_t | x_0), by",
        ("x_t = alpha * x0 + sigma * noise",),
        (
            "x_t = alpha * x0 + sigma**2 * noise",
            "x_t = alpha**2 * x0 + sigma**2 * noise",
            "x_t = sigma * x0 + alpha * noise",
            "x_t = sqrt(1 - beta) * x0 + sqrt(beta) * noise",
            "x_t = x0 + sigma / alpha * noise",
            "x_t = x0 + sigma * noise",
        ),
        forward,
    ),
    Subject(
        "Transition",
        "assert_transition",
        "A sample of q(x_t | x_s), by",
        (
            "ratio = alpha_t / alpha_s",
            "std = sqrt(sigma_t**2 - ratio**2 * sigma_s**2)",
            "x_t = ratio * x_s + std * noise",
        ),
        (
            "std = sigma_t - sigma_s",
            "std = sqrt(sigma_t**2 - sigma_s**2)",
            "std = sqrt(sigma_t**2 - ratio * sigma_s**2)",
            "std = sigma_t**2 - ratio**2 * sigma_s**2",
            "x_t = alpha_t * x_s + sigma_t * noise",
            "x_t = x_s + std * noise",
            "x_t = ratio**2 * x_s + std * noise",
        ),
        transition,
    ),
    Subject(
        "Posterior",
        "assert_posterior",
        "Mean and variance of q(x_s | x_t, x_0), s the time before t, by",
        (
            "prev = F.pad(abars[:-1], (0, 0, 1, 0), value=1.0)[t]",
            "mean = sqrt(prev) * beta / (1 - abar) * x0 + sqrt(1 - beta) * (1 - prev) / (1 - abar) * x_t",
            "variance = beta * (1 - prev) / (1 - abar)",
        ),
        (
            "variance = beta",
            "variance = beta * (1 - prev) / 1 - abar",
            "x0, x_t = x_t, x0",
            "prev = abars[t - 1]",
            "prev = abars[(t - 1).clamp(min=0)]",
            "prev = abar",
            "prev = F.pad(abars[:-2], (0, 0, 2, 0), value=1.0)[t]",
            "beta = betas[(t + 1).clamp(max=len(betas) - 1)]",
            "beta = betas[(t - 1).clamp(min=0)]",
            "beta = betas[t - 1]",
            "variance = (beta * (1 - prev) / (1 - abar)).clamp(min=1e-20)",
            "variance = variances[t.clamp(min=1)]",
        ),
        posterior,
    ),
    Subject(
        "Learned variance",
        "assert_learned_variance",
        "The logarithm of a variance by a network's v in [-1, 1], by",
        ("f = (v + 1) / 2", "log_variance = f * log(beta) + (1 - f) * log(beta_tilde)"),
        (
            "f = v",
            "log_variance = f * log(beta_tilde) + (1 - f) * log(beta)",
            "log_variance = log(f * beta + (1 - f) * beta_tilde)",
            "log_variance = log(beta) + 0 * v",
            "log_variance = log(beta_tilde) + 0 * v",
        ),
        learned,
    ),
    Subject(
        "Learned variance, v in [0, 1]",
        "assert_learned_variance",
        "The same where the network's output is the share, with `ends=(0, 1)`, by",
        ("f = v", "log_variance = f * log(beta) + (1 - f) * log(beta_tilde)"),
        ("f = (v + 1) / 2",),
        partial(learned, ends=(0, 1)),
    ),
)
