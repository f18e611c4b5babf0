"""Noise levels, their inverse and the diffusion coefficient."""

from functools import partial
from typing import Any

import torch

import diffusion_math as dm
from diffusion_math import testing

from .schedule import ABARS, STEPS, TIMES
from .subject import Program, Subject

FLOW, MIDDLE = dm.RectifiedFlow(), [0.1, 0.3, 0.6, 0.8, 0.95]


def path(run: Program, claim: Any = "variance-preserving") -> None:
    def pair(t: Any) -> tuple[Any, Any]:
        done = run(abar=ABARS[t], t=(torch.as_tensor(t).double() + 1) / (STEPS + 1))
        return done["alpha"], done["sigma"]

    testing.assert_schedule(pair, TIMES, path=claim)


def inverse(run: Program) -> None:
    def time(log_snr: float) -> Any:
        given = {"l": torch.tensor(log_snr).double(), "sigmoid": torch.sigmoid}
        return run(**given)["t"]

    testing.assert_schedule(FLOW, MIDDLE, inverse=time)


def diffusion(run: Program) -> None:
    testing.assert_schedule(FLOW, MIDDLE, g2=lambda t: run(t=t, alpha=1 - t)["g2"])


SUBJECTS = (
    Subject(
        "Schedule, variance-preserving",
        "assert_schedule",
        'Levels with `path="variance-preserving"`, by',
        ("alpha = sqrt(abar)", "sigma = sqrt(1 - abar)"),
        (
            "sigma = 1 - abar",
            "alpha = abar",
            "sigma = 1 - sqrt(abar)",
            "alpha = torch.tensor(1.0).double()",
        ),
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
)
