"""denoising-diffusion-pytorch in continuous time, and its ElucidatedDiffusion."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing import (
    adaptors,
    assert_forward,
    assert_loss,
    assert_posterior,
    drawn,
    weights,
)
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers import _lucidrains_schedules as schedules
from experiments.audit.peers._lucidrains import check
from experiments.audit.peers.denoising_diffusion_pytorch_guided import (
    IMAGE,
    PREDICTS,
    Found,
    diffusion,
    module,
)


def continuous(where: str, name: str, predicts: str, **options: Any) -> Found:
    """Continuous-time diffusions: forward, loss, steps between any times, and the last."""
    said = {"random_or_learned_sinusoidal_cond": True}
    thing = diffusion(where, name, said=said, **options).double()
    log_snr = thing.log_snr

    def levels(t: float) -> tuple[Tensor, Tensor]:
        found = log_snr(torch.tensor(t, dtype=torch.float64)).detach()
        found = found.float() if options.get("noise_schedule") == "learned" else found  # a network
        return found.sigmoid().sqrt(), (-found).sigmoid().sqrt()

    def told(t: float) -> Tensor:
        found: Tensor = log_snr(torch.tensor(t, dtype=torch.float64)).detach()
        return found

    times = [k / 20 for k in range(1, 20)]
    weight = "min-SNR" if getattr(thing, "min_snr_loss_weight", False) else None
    weight = "simple" if weight is None and where == "simple_diffusion" else weight
    loss = adaptors.shaped(adaptors.with_network(thing.p_losses, thing), IMAGE)

    def step(network: Any, x: Tensor, t: float, s: float) -> Tensor:
        times = torch.tensor([t, s], dtype=torch.float64)
        return torch.as_tensor(adaptors.with_network(thing.p_sample, thing)(network, x, *times))

    at = driven.one_step(step, levels, predicts)

    def last() -> None:
        x = torch.ones(1, 4).double()
        left = float(at(torch.zeros_like(x), x * levels(0.002)[1], 0.002, 0.0)[0][0, 0])
        assert left < 1e-3, f"noise left on clean data by the last of 500 steps: {left:.3g}"

    return {
        (f"{name}.q_sample", "forward"): lambda: assert_forward(
            lambda *given: thing.q_sample(*given)[0], levels, times
        ),
        (f"{name}.p_losses", "loss"): lambda: assert_loss(
            loss, levels, times, predicts=PREDICTS[predicts], weight=weight, told=told
        ),
        (f"{name}.p_sample", "posterior"): lambda: assert_posterior(
            at, levels, times, spread="deviation", batched=False, pairs=pairwise(times[::-1])
        ),
        (f"{name}.p_sample, to time 0", "last step"): last,
    }


def edm(network: Any, **options: Any) -> Any:
    """ElucidatedDiffusion with a denoiser in the place of its preconditioned network."""

    def inner(x: Tensor, told: Tensor, *_: Any) -> Tensor:
        sigma = (4 * told).exp().reshape(-1, 1, 1, 1).double()
        x = x / made.c_in(sigma)
        x0 = network(x, sigma.flatten())
        return torch.as_tensor((x0 - made.c_skip(sigma) * x) / made.c_out(sigma))

    said = {"random_or_learned_sinusoidal_cond": True}
    made = diffusion("elucidated_diffusion", "ElucidatedDiffusion", inner, said=said, **options)
    return made


def elucidated() -> Found:
    """ElucidatedDiffusion: preconditioning, loss, a single step."""
    name = "ElucidatedDiffusion"
    thing = edm(None)
    sigmas = [0.01, 0.1, 0.5, 1.0, 3.0, 20.0]

    def preconditioning() -> None:
        for sigma in sigmas:
            s = torch.tensor([sigma]).double()
            skip, out, scale = (float(each(s)) for each in (thing.c_skip, thing.c_out, thing.c_in))
            check(scale**2 * (sigma**2 + 0.25), 1.0, "variance of the network's input")
            check(out**2, 0.25 * (1 - skip) ** 2 + (skip * sigma) ** 2, "c_out^2")
            check(skip, 0.25 / (sigma**2 + 0.25), "c_skip")
            check(float(thing.loss_weight(s)) * out**2, 1.0, "weight of the network's error")
            check(float(thing.c_noise(s)), math.log(sigma) / 4, "c_noise")

    def loss(network: Any, x0: Tensor, sigma: Tensor) -> Tensor:
        of_x0 = lambda x, told: network(x.flatten(1), told).reshape(x.shape)  # noqa: E731
        given = edm(of_x0, channels=1)
        return torch.as_tensor(given((x0.reshape(-1, *IMAGE) + 1) / 2, sigma=sigma))

    def one_step() -> None:
        made = edm(lambda x, sigma: 0 * x, channels=1).sample(1, num_sample_steps=1)
        assert bool(made.isfinite().all()), "one step: every sample is NaN"

    def churned() -> None:
        options = {"image_size": 8, "channels": 1, "S_churn": 20.0, "S_noise": 1.0}
        run = lambda network: edm(network, **options).sample(1, num_sample_steps=20)  # noqa: E731
        driven.noise_levels(run, float, 8)

    def shifted() -> None:
        """Simple diffusion, arXiv:2301.11093, section 3.1."""
        where, t = module("simple_diffusion"), torch.linspace(0.01, 0.99, 9).double()
        plain = where.logsnr_schedule_cosine
        low, high = (plain(t) + 2 * math.log(d / 256) for d in (32, 64))
        schedules.same(where.logsnr_schedule_shifted(plain, 256, 64)(t), high, "shifted log-SNR")
        between = where.logsnr_schedule_interpolated(plain, 256, 32, 64)(t)
        schedules.same(between, t * low + (1 - t) * high, "interpolated log-SNR")

    return {
        (f"{name}, preconditioning", "formula"): preconditioning,
        (f"{name}.forward", "loss"): lambda: assert_loss(
            drawn(loss), lambda t: (1.0, t), sigmas, predicts="x0", weight=weights.edm(0.5)
        ),
        (f"{name}.sample", "one step"): one_step,
        (f"{name}.sample_schedule", "schedule"): lambda: schedules.edm(thing.sample_schedule(18)),
        ("logsnr_schedule_shifted, logsnr_schedule_interpolated", "schedule"): shifted,
        (f"{name}.sample, S_churn", "levels"): churned,
    }
