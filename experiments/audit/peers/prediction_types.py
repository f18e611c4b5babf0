"""Whether the samples of a scheduler depend on which of eps, x0 or v a network predicts."""

from functools import partial
from typing import Any

import torch

from diffusion_math.noise import from_generator
from diffusion_math.testing.problems import MIXTURE, starts
from diffusion_math.testing.sampler import UnsupportedError
from experiments.audit.peers.scheduler_driver import Driven, sampler

KINDS = ("epsilon", "sample", "v_prediction")


def disagreement(made: Any, driven: Driven, n: int) -> float:
    """The largest difference between samples by the prediction types of one perfect network.

    The samples have n steps, the same starts and the same noise. The components of the mixture have
    a distance of about 1. A prediction type that the scheduler refuses with an error is left out.

    Raises UnsupportedError where fewer than two are left: there is nothing to compare.
    """
    ends: list[torch.Tensor] = []
    for kind in KINDS:
        make = partial(type(made).from_config, made.config, prediction_type=kind)
        one = sampler(kind, make, driven, 1)
        try:
            grid = one.grid(n)
            x = one.schedule(grid[0])[1] * starts()
            noise = from_generator(torch.Generator().manual_seed(0))
            ends.append(one.end(MIXTURE.denoiser(one.schedule), x, grid, noise))
        except (ValueError, NotImplementedError):
            continue
    if len(ends) < 2:
        raise UnsupportedError("takes one prediction type only")
    return float((torch.stack(ends) - ends[0]).abs().max())
