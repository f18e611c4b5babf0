"""torchebm's Markov kernels: Langevin's, Hamiltonian ones, and chains that start anew."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from diffusion_math import langevin_law
from diffusion_math.gaussian import Gaussian
from diffusion_math.testing import assert_invariant, assert_stationary, drawn


def langevin(noise_scale: float) -> None:
    """ULA on a Gaussian keeps a known other one; the noise is scaled by a temperature's root."""
    core = import_module("torchebm.core")
    target = Gaussian(torch.tensor([0.7, -0.4]).double(), torch.tensor([1.0, 0.3]).double())
    model = core.GaussianModel(target.mean, target.variance.diag(), dtype=torch.float64)
    chain = import_module("torchebm.samplers").LangevinDynamics(
        model, step_size=0.1, noise_scale=noise_scale, dtype=torch.float64
    )
    keeps = langevin_law.ula_stationary(target, 0.1)
    kernel = drawn(lambda x: chain.sample(x=x, n_steps=1))
    assert_stationary(kernel, keeps.mean, noise_scale**2 * keeps.variance.diag())


def hmc(kind: str, **options: Any) -> None:
    """One of them keeps a target of which everything is known."""
    samplers, core = import_module("torchebm.samplers"), import_module("torchebm.core")

    def make(target: Any) -> Callable[[Tensor, torch.Generator], Any]:
        class Energy(core.BaseModel):  # type: ignore[misc, name-defined]
            def forward(self, x: Tensor) -> Tensor:
                energy: Tensor = -target.log_density(x)
                return energy

        given = {"step_size": 0.7, "n_leapfrog_steps": 3, "dtype": torch.float64, **options}
        chain = getattr(samplers, kind)(Energy(dtype=torch.float64), **given)
        return lambda x, rng: chain.sample(x=x, n_steps=1, generator=rng)

    assert_invariant(make, moves=2, count=2**13)


def metric(x: Tensor) -> Tensor:
    """A mass that depends on the position."""
    return torch.diag_embed(1 + 0.5 / (1 + x.square()))


def restarts() -> None:
    """new_sample_ratio = 1: no chain goes on from the buffer, whose points are all at 5."""
    losses, samplers = import_module("torchebm.losses"), import_module("torchebm.samplers")
    model = import_module("torchebm.core").HarmonicModel()
    cd = losses.ContrastiveDivergence(
        model, samplers.LangevinDynamics(model), persistent=True, new_sample_ratio=1.0
    )
    cd.initialize_buffer((2,))
    cd.replay_buffer.fill_(5.0)
    starts = cd.get_start_points(torch.zeros(10, 2))
    off = float((starts - 5).abs().max())
    assert off > 0.5, f"all chains start within {off:.2g} of the buffer's points"
