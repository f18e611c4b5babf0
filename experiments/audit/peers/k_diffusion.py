"""k-diffusion's samplers: functions of a model and of sigmas, in EDM's noise levels.

Only `k_diffusion.sampling` is read: the package's own import wants the whole of its training code.
"""

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from itertools import pairwise
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import VE
from diffusion_math.testing.sampler import Sampler
from experiments.audit.peers._isolated_import import alone
from experiments.audit.peers.brownian import Increments
from experiments.audit.subject import Subject, along, subjects_of

SAMPLERS: dict[str, tuple[int, bool]] = {
    "sample_euler": (1, False),
    "sample_euler_ancestral": (1, True),
    "sample_heun": (2, False),
    "sample_dpm_2": (2, False),
    "sample_dpm_2_ancestral": (2, True),
    "sample_lms": (4, False),
    "sample_dpmpp_2s_ancestral": (2, True),
    "sample_dpmpp_sde": (2, True),
    "sample_dpmpp_2m": (2, False),
    "sample_dpmpp_2m_sde": (2, True),
    "sample_dpmpp_3m_sde": (2, True),
}
"""Each function, its order (the weak order where it draws noise), and whether it is noisy."""


def _sampling() -> ModuleType:
    """`k_diffusion.sampling`, which uses one helper of `k_diffusion.utils`."""
    return alone("k_diffusion", "sampling", {"append_dims": _append_dims})


def _append_dims(x: Tensor, ndim: int) -> Tensor:
    return x[(..., *(None,) * (ndim - x.ndim))]


def sampler(name: str, claimed: int, noisy: bool, **options: Any) -> Sampler:
    """One of the library's functions as a sampler of any grid, on EDM's levels up to 10."""
    function: Callable[..., Tensor] = getattr(_sampling(), name)
    schedule = VE(80.0)

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Tensor | list[Tensor]:
        pairs = {float(t): (t, s) for t, s in pairwise(grid)}
        now = [grid[0], grid[1]]
        seen: dict[float, Tensor] = {}

        def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            now[:] = pairs.get(float(sigma[0]), now)
            seen[float(sigma[0])] = x.clone()
            return denoise(x, sigma[0].double())

        given = dict(options)
        if "noise_sampler" in signature(function).parameters:
            given["noise_sampler"] = Increments(lambda: noise(x, *now))
        with patch.object(torch, "randn_like", lambda like: noise(like, *now)):
            end = function(model, x, grid, disable=True, **given)
        return along(grid, seen, end)

    grid = partial(_sampling().get_sigmas_karras, sigma_min=0.01, sigma_max=10.0)
    return Sampler(
        name, schedule, sample, lambda n: grid(n).double(), claimed, noisy, level_tolerance=1e-5
    )


def subjects(quick: bool) -> Iterator[Subject]:
    """Every sampler at its defaults; churn, other etas and solver types beside."""
    cases: list[tuple[str, int, bool, dict[str, Any]]] = [
        (name, order, noisy, {}) for name, (order, noisy) in SAMPLERS.items()
    ]
    if not quick:
        cases += [(name, 2, True, {"s_churn": 10.0}) for name in ("sample_heun", "sample_dpm_2")]
        cases += [("sample_euler", 1, True, {"s_churn": 10.0})]
        cases += [("sample_dpmpp_2m_sde", 2, True, {"solver_type": "heun"})]
        cases += [("sample_dpmpp_3m_sde", 3, False, {"eta": 0.0})]
        cases += [("sample_dpmpp_2m_sde", 2, False, {"eta": 0.0})]
        cases += [("sample_lms", order, False, {"order": order}) for order in (1, 2, 3)]
    return subjects_of("k-diffusion", sampler, cases)
