"""dalle2-pytorch's NoiseScheduler."""

import torch
from torch import Tensor

from diffusion_math.testing import assert_prediction_maps, assert_transition, of
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers.dalle2_models import Found, module

F32 = torch.float32


def scheduler(table: str) -> Found:
    """NoiseScheduler: all that `of` finds, v, and transitions."""
    thing = module().NoiseScheduler(beta_schedule=table, timesteps=50, loss_type="l2")
    levels, times, name = driven.of_table(thing), range(50), "NoiseScheduler"

    def transition(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return torch.as_tensor(thing.q_sample_from_to(x, s, t, noise))

    v = {"v_from_x0_and_eps": lambda x0, eps, t: thing.calculate_v(x0, t, eps)}
    found: Found = {
        (f"{name}.{one.name}", "formula"): one.run for one in of(thing) if one.run is not None
    }
    return found | {
        (f"{name}.calculate_v", "prediction maps"): lambda: assert_prediction_maps(
            v, levels, times, dtype=F32
        ),
        (f"{name}.q_sample_from_to", "transition"): lambda: assert_transition(
            transition, levels, times, dtype=F32
        ),
    }
