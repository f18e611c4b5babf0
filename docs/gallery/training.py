"""The loss of a training, and the average of parameters."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from diffusion_math import testing

from .schedule import TIMES, at, levels
from .subject import Program, Subject


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


def told(run: Program) -> None:
    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        given = {**at(t), "x0": x0, "noise": noise, "t": t, "network": network}
        return run(**given, x_t=given["alpha"] * x0 + given["sigma"] * noise)["loss"]

    testing.assert_loss(loss, levels, TIMES)


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


SUBJECTS = (
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
        "Time that the network is told, and its gradient",
        "assert_loss",
        "Of the squared error in eps, by",
        ("told = t", "out = network(x_t, told)", "loss = (noise - out).square().mean()"),
        (
            "told = t[:1].expand(len(t))",
            "told = t.flip(0)",
            "told = t + 1",
            "told = t - 1",
            "told = 1 - t",
            "told = 1000 * t",
            "told = 1000 * (1 - t)",
            "told = t / 19",
            "told = t / 20",
            "told = (sigma / alpha)[:, 0]",
            "told = log(sigma / alpha)[:, 0]",
            "told = log(sigma / alpha)[:, 0] / 4",
            "told = 2 * log(alpha / sigma)[:, 0]",
            "out = network(x_t, told).detach()",
        ),
        told,
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
)
