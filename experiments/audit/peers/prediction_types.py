"""Whether the samples of a scheduler depend on which of eps, x0 or v a network predicts."""

from functools import partial
from typing import Any

import torch

from diffusion_math.noise import from_generator
from diffusion_math.testing.problems import MIXTURE, starts
from diffusion_math.testing.sampler import UnsupportedError
from experiments.audit.peers.scheduler_driver import Driven, sampler

__all__ = ["disagreement"]

KINDS = ("epsilon", "sample", "v_prediction")


def disagreement(made: Any, driven: Driven, n: int) -> float:
    """How far apart the ends lie that predictions of one perfect network lead to.

    The largest distance between ends of n steps from the same starts with the same noise, on a
    mixture whose components are about 1 apart. A prediction that the scheduler openly refuses is
    left out.

    Raises UnsupportedError where fewer than two are left: there is nothing to compare.
    """
    ends: list[torch.Tensor] = []
    for kind in KINDS:
        make = partial(type(made).from_config, made.config, prediction_type=kind)
        walker = sampler(kind, make, driven, 1)
        try:
            grid = walker.grid(n)
            x = walker.schedule(grid[0])[1] * starts()
            noise = from_generator(torch.Generator().manual_seed(0))
            ends.append(walker.end(MIXTURE.denoiser(walker.schedule), x, grid, noise))
        except (ValueError, NotImplementedError):
            continue
    if len(ends) < 2:
        raise UnsupportedError("takes one prediction alone")
    return float((torch.stack(ends) - ends[0]).abs().max())
