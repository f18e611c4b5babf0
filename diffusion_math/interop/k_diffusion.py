"""The solvers as functions of k-diffusion's kind, which ComfyUI and AUTOMATIC1111 take.

Samples are x_0 + sigma eps, and times are the sigmas: the schedule is `VE`.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import require
from diffusion_math.sample import trajectory
from diffusion_math.schedule import VE
from diffusion_math.solvers.registry import SOLVERS

__all__ = ["SAMPLERS"]


def _function(name: str) -> Callable[..., Tensor]:
    """The solver of that name as `sample_...`."""

    def sample(
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
        noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        more, denoised = dict(extra_args or {}), list[Tensor]()

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            denoised.append(model(x, sigma.to(x).expand(x.shape[:1]), **more))
            return denoised[-1]

        def noise(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
            return torch.randn_like(x) if noise_sampler is None else noise_sampler(t, s)

        grid = sigmas.detach().to("cpu", torch.float64)
        falls = len(grid) > 1 and bool((grid[1:] < grid[:-1]).all()) and float(grid[-1]) >= 0
        require(falls, "sigmas", "two or more, strictly decreasing, to 0 at least", grid.tolist())
        step = SOLVERS[name].make(VE(float(grid[0])))
        states = trajectory(step, denoise, x, grid, noise)
        x = next(states).x
        for k, (sigma, _) in enumerate(pairwise(sigmas)):
            before = x
            x = next(states).x
            if callback is not None:
                told = {"x": before, "i": k, "sigma": sigma, "sigma_hat": sigma}
                callback({**told, "denoised": denoised[0] if denoised else before})
            denoised.clear()
        return x

    sample.__name__ = f"sample_{name}"
    return sample


SAMPLERS = {f"sample_{name}": _function(name) for name in SOLVERS}
"""Each solver, as `sample_x(model, x, sigmas, extra_args=None, callback=None, disable=None)`.

`model(x, sigma, **extra_args)` is E[x_0 | x_t], `sigma` of shape `(batch,)`; `x` is
`(batch, *event)`, a sample at sigmas[0]; `sigmas` falls, to 0 or above. `callback` is given a dict
of i, x, sigma, sigma_hat and denoised after each step. `noise_sampler(sigma, sigma_next)` gives
standard normals, by default `torch.randn_like`. Nothing is printed, so `disable` changes nothing.

>>> import torch
>>> from diffusion_math.interop import SAMPLERS
>>> model = lambda x, sigma: torch.full_like(x, 0.7)  # data that are one point
>>> SAMPLERS["sample_dpmpp_3m"](model, torch.randn(1, 2), torch.tensor([10.0, 3.0, 1.0, 0.0]))
tensor([[0.7000, 0.7000]])
"""
