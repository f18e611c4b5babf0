"""smalldiffusion's one sampler, `samples(model, sigmas, gam, mu)`, in EDM's noise levels."""

from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import VE
from diffusion_math.testing.sampler import Sampler
from diffusion_math.testing.verdicts import Origin
from experiments.audit.peers._isolated_import import alone
from experiments.audit.subject import Subject, again

SAMPLERS: dict[str, tuple[float, float, int, bool]] = {
    "DDPM": (1.0, 0.5, 1, True),
    "DDIM": (1.0, 0.0, 1, False),
    "accelerated": (2.0, 0.0, 1, False),
}
"""Name of a setting: gam, mu, order, noisy. The acceleration claims no order beyond 1."""


def sampler(name: str, gam: float, mu: float, order: int, noisy: bool) -> Sampler:
    """`samples` at one setting as a sampler of any grid, on the library's own log-linear levels."""
    diffusion = alone("smalldiffusion", "diffusion")

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        steps = pairwise(grid)

        class Model:
            """What smalldiffusion calls a model: it predicts eps and draws normals."""

            def eval(self) -> None: ...

            def predict_eps_cfg(self, x: Tensor, sigma: Tensor, *_: Any) -> Tensor:
                return (x - denoise(x, sigma)) / sigma

            def rand_input(self, batch: int) -> Tensor:
                return noise(x, *next(steps))

        device = SimpleNamespace(device=torch.device("cpu"))
        states = diffusion.samples(Model(), grid, gam=gam, mu=mu, xt=x, accelerator=device)
        return list(states)

    own = diffusion.ScheduleLogLinear(1000, sigma_min=0.02, sigma_max=10.0)

    def grid(n: int) -> Tensor:
        return torch.as_tensor(own.sample_sigmas(n), dtype=torch.float64)

    return Sampler(name, VE(80.0), sample, grid, order, noisy, level_tolerance=1e-5)


def subjects(quick: bool) -> Iterator[Subject]:
    """The three settings that the library names."""
    for name, (gam, mu, order, noisy) in SAMPLERS.items():
        who = Origin("smalldiffusion", version("smalldiffusion"), f"gam={gam:g}, mu={mu:g}")
        given = (name, gam, mu, order, noisy)
        yield Subject(sampler(*given), who, again("smalldiffusion", *given))
