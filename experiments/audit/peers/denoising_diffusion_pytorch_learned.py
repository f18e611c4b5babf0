"""denoising-diffusion-pytorch's LearnedGaussianDiffusion: a learned variance, and the bound."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing import assert_bound, assert_decoder, assert_learned_variance
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._lucidrains import check
from experiments.audit.peers.denoising_diffusion_pytorch_guided import (
    IMAGE,
    Found,
    diffusion,
    module,
)

F32 = torch.float32


def learned() -> Found:
    """LearnedGaussianDiffusion: Improved DDPM's variance and bound."""
    where, name = "learned_gaussian_diffusion", "LearnedGaussianDiffusion"
    said = {"out_dim": 2}
    make = partial(diffusion, where, name, said=said, objective="pred_noise", timesteps=50)
    thing = make()
    levels, times = driven.of_table(thing), range(50)

    def variance(v: Tensor, t: Tensor) -> Tensor:
        v = v.reshape(-1, *IMAGE)
        output = torch.cat([torch.zeros_like(v), v], 1)
        found = thing.p_mean_variance(x=v, t=t, clip_denoised=False, model_output=output)
        return torch.as_tensor(found[2]).flatten(1)

    def losses(weight: float, v: float, network: Any, *given: Tensor) -> Tensor:
        """Of each example, in float64 as far as its tables go."""

        def both(x: Tensor, t: Tensor) -> Tensor:
            eps = network(x.flatten(1)).reshape(x.shape)
            return torch.cat([eps, torch.full_like(eps, v)], 1)

        x0, t, noise = given
        own = make(both, vb_loss_weight=weight)
        x0, noise = (each.double().reshape(-1, *IMAGE) for each in (x0, noise))
        return torch.as_tensor(own.p_losses(x0, t, noise, loss_reduction="none"))

    def term(v: float, *given: Any) -> Tensor:
        return (losses(1.0, v, *given) - losses(0.0, v, *given)).float()

    def hybrid() -> None:
        x0, t = torch.ones(1, 4), torch.tensor([20])
        given = (lambda x: 0.1 * x), x0, t, 0.5 * x0
        default = thing.vb_loss_weight
        got = losses(default, 0.0, *given) - losses(0.0, 0.0, *given)
        one = losses(1.0, 0.0, *given) - losses(0.0, 0.0, *given)
        check(float(got / one), 0.001 * 50, "weight of the mean of 50 terms, of 0.001 their sum")

    def ddim() -> None:
        make(lambda x, t: torch.cat([x, x], 1), sampling_timesteps=5).sample(1)

    log_probability = module(where).discretized_gaussian_log_likelihood
    decoder = lambda x, mean, scale: log_probability(x, means=mean, log_scales=scale)  # noqa: E731
    runs: Found = {
        (f"{name}.p_mean_variance", "learned variance"): lambda: assert_learned_variance(
            variance, levels, times, first=1e-20, dtype=F32
        ),
        (f"{name}.p_losses", "loss"): hybrid,
        (f"{name}.ddim_sample", "runs"): ddim,
        ("discretized_gaussian_log_likelihood", "decoder"): lambda: assert_decoder(
            decoder, tolerance=5e-3
        ),
    }
    for v, said_of in ((1.0, "beta"), (-1.0, "beta~")):
        runs[f"{name}.p_losses, variance {said_of}", "bound"] = partial(
            assert_bound,
            partial(term, v),
            levels,
            times,
            variance=said_of,
            unit="bits/dim",
            told="nothing",
            dtype=F32,
        )
    return runs
