"""Right code and wrong lines for every hand-made mistake of `diffusion_math.testing`.

A wrong line, or several with a semicolon between, takes the place of the right line that assigns the
same name, or comes before them all.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion_math as dm
from diffusion_math import testing
from diffusion_math.testing import assertions
from diffusion_math.testing.mistakes.diagnosis import compare as compare_all

Names = dict[str, Any]
Program = Callable[..., Names]

STEPS = 20
TIMES = range(STEPS)
BETAS = torch.linspace(1e-3, 0.2, STEPS, dtype=torch.float64)
ABARS = torch.cumprod(1 - BETAS, 0)
PREVS = F.pad(ABARS[:-1], (1, 0), value=1.0)
VARIANCES = BETAS * (1 - PREVS) / (1 - ABARS)


def levels(t: Any) -> tuple[Tensor, Tensor]:
    return ABARS[t].sqrt(), (1 - ABARS[t]).sqrt()


@dataclass(frozen=True)
class Subject:
    """What is computed, the assertion that checks it, right code, and lines of wrong code."""

    title: str
    assertion: str
    about: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    check: Callable[[Program], None]


def program(right: tuple[str, ...], wrong: str | None = None) -> Program:
    """The right lines as a function of names to names, with a wrong line in its place."""
    lines = list(right)
    for one in wrong.split("; ") if wrong else ():
        target = one.split(" = ")[0] + " = "
        places = [k for k, line in enumerate(lines) if line.startswith(target)]
        if places:
            lines[places[0]] = one
        else:
            lines.insert(0, one)
    code = compile("\n".join(lines), "gallery", "exec")

    def run(**names: Any) -> Names:
        scope = {"torch": torch, "F": F, "log": torch.log, "sqrt": torch.sqrt, **names}
        exec(code, scope)
        return scope

    return run


def diagnosis(subject: Subject, wrong: str) -> testing.Mistake:
    """What the assertion calls a line of wrong code."""
    try:
        subject.check(program(subject.right, wrong))
    except testing.MistakeError as error:
        if len(error.mistakes) != 1:
            raise ValueError(f"{subject.title}: {wrong}: wanted one mistake, got {error}") from None
        return error.mistakes[0]
    raise ValueError(f"{subject.title}: {wrong}: wanted a mistake, got none")


@contextmanager
def recorded() -> Iterator[set[str]]:
    """Within, the names of all hand-made mistakes that assertions compare with."""
    names: set[str] = set()

    def compare(*arguments: Any, known: Any = (), **options: Any) -> None:
        known = list(known)
        names.update(one.name for one in known)
        compare_all(*arguments, known=known, **options)

    with ExitStack() as patches:
        for one in vars(assertions).values():
            if hasattr(one, "compare"):
                patches.enter_context(mock.patch.object(one, "compare", compare))
        yield names


def at(t: Tensor) -> Names:
    """Names of a schedule at a batch of times."""
    abar, beta, prev = (table[t][:, None] for table in (ABARS, BETAS, PREVS))
    return {"abar": abar, "beta": beta, "alpha": abar.sqrt(), "sigma": (1 - abar).sqrt(), "prev": prev}


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


def prediction(kind: str, run: Program) -> None:
    def convert(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return run(**at(t), x0=x0, eps=eps)[kind]

    testing.assert_prediction_maps({f"{kind}_from_x0_and_eps": convert}, levels, TIMES)


def start(run: Program) -> None:
    def begin(x0: Tensor, strength: float, noise: Tensor) -> tuple[Tensor, int]:
        t = int(STEPS * strength)
        alpha, sigma = levels(t)
        done = run(x0=x0, noise=noise, t=t, alpha=alpha, sigma=sigma, levels=levels)
        return done["x_t"], t

    testing.assert_img2img_start(begin, levels, TIMES, [0.3, 0.5, 0.8])


def guidance(run: Program, convention: str = "w") -> None:
    def combine(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        return run(cond=cond, uncond=uncond, w=w)["guided"]

    testing.assert_guidance(combine, convention=convention)


def rescaling(run: Program) -> None:
    def combine(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        std = partial(torch.std, dim=1, keepdim=True)
        rms = lambda x: x.square().mean(1, keepdim=True).sqrt()  # noqa: E731
        guided = uncond + w * (cond - uncond)
        given = {"cond": cond, "uncond": uncond, "guided": guided, "phi": 0.7}
        return run(**given, std=std, rms=rms)["rescaled"]

    testing.assert_guidance(combine, share=0.7)


def path(run: Program, claim: Any = "variance-preserving") -> None:
    def pair(t: Any) -> tuple[Any, Any]:
        done = run(abar=ABARS[t], t=(torch.as_tensor(t).double() + 1) / (STEPS + 1))
        return done["alpha"], done["sigma"]

    testing.assert_schedule(pair, TIMES, path=claim)


FLOW, MIDDLE = dm.RectifiedFlow(), [0.1, 0.3, 0.6, 0.8, 0.95]


def inverse(run: Program) -> None:
    def time(log_snr: float) -> Any:
        given = {"l": torch.tensor(log_snr).double(), "sigmoid": torch.sigmoid}
        return run(**given)["t"]

    testing.assert_schedule(FLOW, MIDDLE, inverse=time)


def diffusion(run: Program) -> None:
    testing.assert_schedule(FLOW, MIDDLE, g2=lambda t: run(t=t, alpha=1 - t)["g2"])


def target(run: Program) -> None:
    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        given = {**at(t), "x0": x0, "noise": noise}
        x_t = given["alpha"] * x0 + given["sigma"] * noise
        return (run(**given)["target"] - network(x_t, t)).square().mean(1)

    testing.assert_loss(loss, levels, TIMES, predicts="v")


def weighted(run: Program, reduce: bool = False, weight: str | None = "min-SNR") -> None:
    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        given = at(t)
        x_t = given["alpha"] * x0 + given["sigma"] * noise
        error = (noise - network(x_t, t)).square()
        snr = (given["alpha"] / given["sigma"]) ** 2
        if reduce:
            return run(w=snr.clamp(max=5) / snr, error=error)["loss"]
        return run(**given, snr=snr)["w"][:, 0] * error.mean(1)

    testing.assert_loss(loss, levels, TIMES, weight=weight)


def average(run: Program, every: int = 1, first: int | None = None, debiased: bool = False) -> None:
    if debiased:
        decay: Callable[[int], float] = lambda n: 0.9  # noqa: E731
    else:
        decay = lambda n: min(0.9, (1 + n) / (10 + n))  # noqa: E731

    def begin(weights: Tensor) -> Callable[[Tensor], Tensor]:
        given = {"d": decay, "prod": math.prod}
        done = run(**given, w=weights, before=weights, n=0, k=0, average=0 * weights)
        kept = {"average": done["start"], "before": weights, "n": 0}

        def update(weights: Tensor) -> Tensor:
            n = kept["n"] + 1
            given = {"w": weights, "before": kept["before"], "n": n, "d": decay, "prod": math.prod}
            k = n // every if first is None else (n - first) // every + 1
            done = run(**given, k=k, average=kept["average"])
            kept.update(n=n, before=weights)
            if done["updates"]:
                kept["average"] = done["new"]
                return done["result"]
            return kept["average"]

        return update

    testing.assert_average(begin, decay, every=every, first=first, debiased=debiased)


def inversion(run: Program) -> None:
    def up(network: Any, x: Tensor, s: int, t: int) -> Tensor:
        (a, r), (b, q) = levels(s), levels(t)
        given = {"alpha_s": a, "sigma_s": r, "alpha_t": b, "sigma_t": q, "s": s, "t": t}
        return run(**given, x=x, network=network, levels=levels)["x_t"]

    def down(network: Any, x: Tensor, t: int, s: int) -> Tensor:
        (a, r), (b, q) = levels(t), levels(s)
        eps = network(x, t)
        return b * (x - r * eps) / a + q * eps

    testing.assert_inversion(up, down, levels, TIMES)


def stationary(run: Program) -> None:
    zero, one = torch.zeros(2).double(), torch.eye(2).double()
    testing.assert_stationary(lambda x, z: run(x=x, z=z)["x"], zero, one)


def likelihood(run: Program, unit: Any = "nats") -> None:
    def log_density(network: Any, x: Tensor) -> Tensor:
        (alpha, sigma), (a, s) = FLOW(0.01), FLOW(1.0)
        grown = (a**2 * 0.64 + s**2) / (alpha**2 * 0.64 + sigma**2)
        z = a * 0.3 + grown.sqrt() * (x - alpha * 0.3)
        divergence = 2 * log_of(grown) * torch.ones(len(x)).double()
        return run(z=z, divergence=divergence, D=4, r=2.0, pi=math.pi, ln=math.log)["log_p"]

    log_of = torch.log
    testing.assert_likelihood(log_density, FLOW, 0.01, 1.0, prior=2.0, unit=unit)


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

GALLERY = (
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
    Subject(
        "v-prediction",
        "assert_prediction_maps",
        "v of x_0 and eps, by",
        ("v = alpha * eps - sigma * x0",),
        (
            "v = sigma * x0 - alpha * eps",
            "v = alpha * eps + sigma * x0",
            "v = alpha * x0 - sigma * eps",
            "v = sigma * eps - alpha * x0",
            "v = eps - x0",
        ),
        partial(prediction, "v"),
    ),
    Subject(
        "Score",
        "assert_prediction_maps",
        "The score of x_t given x_0, by",
        ("score = -eps / sigma",),
        ("score = eps / sigma", "score = -eps", "score = -eps / sigma**2"),
        partial(prediction, "score"),
    ),
    Subject(
        "Flow",
        "assert_prediction_maps",
        "The flow, noise minus data, by",
        ("flow = eps - x0",),
        ("flow = x0 - eps",),
        partial(prediction, "flow"),
    ),
    Subject(
        "Velocity",
        "assert_prediction_maps",
        "The velocity, data minus noise, by",
        ("velocity = x0 - eps",),
        ("velocity = eps - x0",),
        partial(prediction, "velocity"),
    ),
    Subject(
        "Start of image-to-image sampling",
        "assert_img2img_start",
        "The first state, of the time t that the first call of the network is told, by",
        ("x_t = alpha * x0 + sigma * noise",),
        (
            "alpha, sigma = levels(t - 1)",
            "x_t = x0 + sigma * noise",
            "x_t = x0 + noise",
            "x_t = x0",
            "x_t = noise",
            "x_t = alpha * x0 + sigma**2 * noise",
            "alpha, sigma = levels(t // 2)",
        ),
        start,
    ),
    Subject(
        "Guidance",
        "assert_guidance",
        "Classifier-free guidance, by",
        ("guided = uncond + w * (cond - uncond)",),
        (
            "guided = cond + w * (cond - uncond)",
            "cond, uncond = uncond, cond",
            "guided = uncond + w * (uncond - cond)",
            "guided = w * (cond - uncond)",
            "guided = w * cond + (w - 1) * uncond",
            "guided = cond",
            "guided = uncond + max(w, 1) * (cond - uncond)",
        ),
        guidance,
    ),
    Subject(
        "Guidance, the paper's w",
        "assert_guidance",
        'The same with `convention="1 + w"`, by',
        ("guided = cond + w * (cond - uncond)",),
        ("guided = uncond + w * (cond - uncond)",),
        partial(guidance, convention="1 + w"),
    ),
    Subject(
        "Guidance, rescaled",
        "assert_guidance",
        "The same with a share phi of rescaling, by",
        ("rescaled = phi * guided * std(cond) / std(guided) + (1 - phi) * guided",),
        (
            "phi = 1 - phi",
            "rescaled = guided",
            "rescaled = guided * std(cond) / std(guided)",
            "rescaled = phi * guided * std(guided) / std(cond) + (1 - phi) * guided",
            "rescaled = phi * guided * (std(cond) / std(guided))**2 + (1 - phi) * guided",
            "std = rms",
            "rescaled = phi * guided * std(uncond) / std(guided) + (1 - phi) * guided",
        ),
        rescaling,
    ),
    Subject(
        "Schedule, variance-preserving",
        "assert_schedule",
        'Levels with `path="variance-preserving"`, by',
        ("alpha = sqrt(abar)", "sigma = sqrt(1 - abar)"),
        ("sigma = 1 - abar", "alpha = abar", "sigma = 1 - sqrt(abar)", "alpha = torch.tensor(1.0).double()"),
        path,
    ),
    Subject(
        "Schedule, straight",
        "assert_schedule",
        'Levels with `path="straight"`, by',
        ("alpha = 1 - t", "sigma = t"),
        ("alpha = sqrt(1 - t**2)",),
        partial(path, claim="straight"),
    ),
    Subject(
        "Time of a noise level",
        "assert_schedule",
        "The inverse, of l = log(alpha^2 / sigma^2) on the straight path, by",
        ("t = sigmoid(-l / 2)",),
        (
            "t = sigmoid(-l)",
            "t = sigmoid(l / 2)",
            "t = sigmoid(l)",
            "t = l / (1 + l)",
            "t = 1 / (1 + sqrt(l))",
        ),
        inverse,
    ),
    Subject(
        "Diffusion coefficient",
        "assert_schedule",
        "g^2 of the straight path, alpha = 1 - t and sigma = t, by",
        ("f = -1 / (1 - t)", "g2 = 2 * t - 2 * f * t**2"),
        ("g2 = -2 * f", "g2 = 2 * t", "g2 = 2 * t + 2 * f * t**2", "g2 = t**2", "g2 = 1.0"),
        diffusion,
    ),
    Subject(
        "Target of a loss",
        "assert_loss",
        'What the network is compared with, `predicts="v"`, by',
        ("target = alpha * noise - sigma * x0",),
        (
            "target = sigma * x0 - alpha * noise",
            "target = alpha * noise + sigma * x0",
            "target = x0",
            "target = noise",
            "target = noise - x0",
            "target = x0 - noise",
            "target = -noise / sigma",
        ),
        target,
    ),
    Subject(
        "Weight of a loss",
        "assert_loss",
        'Of the squared error in eps, `weight="min-SNR"`, by',
        ("w = snr.clamp(max=5) / snr",),
        (
            "w = torch.ones_like(snr)",
            "w = 1 / snr",
            "w = (snr + 1) / snr",
            "w = snr.clamp(min=1) / snr",
            "w = 1 / (1 + snr)",
            "w = (4 + snr) / snr",
            "w = beta / (2 * (1 - beta) * (1 - abar))",
            "w = snr.clamp(max=5)",
            "w = snr.clamp(max=5) / (snr + 1)",
            "w = snr.clamp(max=5) / snr * sigma**2",
            "w = snr.clamp(max=5) * (sigma / (alpha + sigma))**2",
            "w = (snr + 1).clamp(max=5) / (snr + 1)",
            "w = snr.clamp(max=5) / snr + 1",
            "w = (1 / snr + 1 / 4) / (1 / sqrt(snr) + 1 / 2)**2 / snr",
            "w = (1 / snr + 1 / 4) / (1 / sqrt(snr) / 2) / snr",
            "w = snr.clamp(min=5) / snr",
        ),
        weighted,
    ),
    Subject(
        "Weight of a loss, 1",
        "assert_loss",
        "Of the squared error in eps, where no weight is claimed, by",
        ("w = torch.ones_like(snr)",),
        ("w = snr.clamp(max=5) / snr",),
        partial(weighted, weight=None),
    ),
    Subject(
        "Reduction of a loss",
        "assert_loss",
        "Of errors `(batch, entries)` with weights `(batch, 1)`, by",
        ("loss = (w * error).mean()",),
        (
            "loss = (w * error).sum(1).mean()",
            "loss = (w * error).mean(1).sum()",
            "loss = (w * error.mean(1)).mean()",
        ),
        partial(weighted, reduce=True),
    ),
    Subject(
        "Average of parameters",
        "assert_average",
        "The n-th update with a decay d(n) that warms up, by",
        (
            "start = w",
            "updates = True",
            "new = d(n) * average + (1 - d(n)) * w",
            "result = new",
        ),
        (
            "new = d(max(n - 1, 1)) * average + (1 - d(max(n - 1, 1))) * w",
            "new = d(n + 1) * average + (1 - d(n + 1)) * w",
            "new = d(10**6) * average + (1 - d(10**6)) * w",
            "new = d(1) * average + (1 - d(1)) * w",
            "new = (1 - d(n)) * average + d(n) * w",
            "new = d(n) * average + (1 - d(n)) * before",
            "new = d(n)**2 * average + (1 - d(n)**2) * w",
            "new = w if n == 1 else d(n) * average + (1 - d(n)) * w",
            "start = 0 * w",
            "start = 0 * w; result = new / (1 - prod(d(i) for i in range(1, n + 1)))",
        ),
        average,
    ),
    Subject(
        "Average, every fifth step",
        "assert_average",
        "The same with `every=5`, k the number of the update, by",
        (
            "start = w",
            "updates = n % 5 == 0",
            "new = d(k) * average + (1 - d(k)) * w",
            "result = new",
        ),
        (
            "updates = True; new = d(n) * average + (1 - d(n)) * w",
            "new = d(n) * average + (1 - d(n)) * w",
            "new = (1 - d(k)) * average + d(k) * w",
            "updates = n % 5 == 1; new = d(n // 5 + 1) * average + (1 - d(n // 5 + 1)) * w",
        ),
        partial(average, every=5),
    ),
    Subject(
        "Average, from the first step",
        "assert_average",
        "The same with `every=5, first=1`, by",
        (
            "start = w",
            "updates = n % 5 == 1",
            "new = d(k) * average + (1 - d(k)) * w",
            "result = new",
        ),
        ("updates = n % 5 == 0; new = d(n // 5) * average + (1 - d(n // 5)) * w",),
        partial(average, every=5, first=1),
    ),
    Subject(
        "Average, its bias corrected",
        "assert_average",
        "The same with `debiased=True`, by",
        (
            "start = 0 * w",
            "updates = True",
            "new = d(n) * average + (1 - d(n)) * w",
            "result = new / (1 - d(n)**n)",
        ),
        ("start = w; result = new", "result = new / (1 - d(n)**(n + 1))"),
        partial(average, debiased=True),
    ),
    Subject(
        "Inversion",
        "assert_inversion",
        "A DDIM step from s up to a noisier t, by",
        (
            "eps = network(x, s)",
            "x0 = (x - sigma_s * eps) / alpha_s",
            "x_t = alpha_t * x0 + sigma_t * eps",
        ),
        (
            "eps = network(x, t)",
            "s, alpha_s, sigma_s, alpha_t, sigma_t = t, alpha_t, sigma_t, alpha_s, sigma_s",
            "alpha_s, sigma_s, alpha_t, sigma_t = alpha_t, sigma_t, alpha_s, sigma_s",
            "x_t = alpha_s * x0 + sigma_t * eps",
            "x_t = alpha_t * x0 + sigma_s * eps",
            "x_t = alpha_s * x0 + sigma_s * eps",
            "alpha_s, sigma_s, alpha_t, sigma_t = *levels(max(s - 1, 0)), alpha_s, sigma_s",
        ),
        inversion,
    ),
    Subject(
        "Markov kernel",
        "assert_stationary",
        "A move that keeps N(0, I), by",
        ("x = 0.6 * x + 0.8 * z",),
        (
            "x = 0.6 * x + 0.8 / 2**0.5 * z",
            "x = 0.6 * x + 0.8 * 2**0.5 * z",
            "x = 0.6 * x + 0.8 / 2 * z",
            "x = 0.6 * x + 2 * 0.8 * z",
            "x = 0.6 * x",
            "x = 0.6 * x + 0.8**2 * z",
            "x = 0.6 * x + 0.8**0.5 * z",
        ),
        stationary,
    ),
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
