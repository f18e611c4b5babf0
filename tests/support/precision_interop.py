"""Methods of the scheduler for diffusers that take events, as in `precision_cases`."""

import torch

from diffusion_math.interop import DiffusersScheduler
from tests.support.precision import X, Z

SCHEDULER = DiffusersScheduler("ddim", num_train_timesteps=40)
SCHEDULER.set_timesteps(1)
INTEROP = {
    "diffusers_scheduler.DiffusersScheduler.add_noise": lambda to: SCHEDULER.add_noise(
        to(X), to(Z), torch.tensor(20, device="cpu")
    ),
    "diffusers_scheduler.DiffusersScheduler.get_velocity": lambda to: SCHEDULER.get_velocity(
        to(X), to(Z), torch.tensor(20, device="cpu")
    ),
    "diffusers_scheduler.DiffusersScheduler.scale_model_input": lambda to: (
        SCHEDULER.scale_model_input(to(X))
    ),
    "diffusers_scheduler.DiffusersScheduler.step": lambda to: SCHEDULER.step(
        to(Z), 39, to(X)
    ).to_tuple(),
}
