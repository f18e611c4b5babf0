"""Sampling: its start, guidance, inversion, and a Markov kernel."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math import testing

from .schedule import STEPS, TIMES, levels
from .subject import Program, Subject


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


SUBJECTS = (
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
)
