"""torchebm's FlowSampler on its own grids, from noise at its t = 0 to data at 1; its guidance."""

from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from diffusion_math import prediction
from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.noise import Noise
from diffusion_math.schedule import RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.testing import assert_guided
from diffusion_math.testing.sampler import Sampler

SCHEDULES: dict[str, Schedule] = {
    "linear": RectifiedFlow(),
    "cosine": VPCosine(),
    "vp": VPLinear(0.1, 20.0),
}
"""Each interpolant, with its levels by one minus its time."""


class Network(nn.Module):
    """What FlowSampler calls a model: `prediction`, made of a denoiser."""

    def __init__(self, interpolant: str, kind: str, denoise: Denoiser) -> None:
        super().__init__()
        self.schedule, self.kind, self.denoise = SCHEDULES[interpolant], kind, denoise
        self.path = import_module("torchebm.interpolants").get_interpolant(interpolant)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        ours = 1 - t[0]
        x0 = self.denoise(x, ours)
        if self.kind == "score":
            return prediction.score_from_x0(self.schedule, x, x0, ours)
        eps = 0 * x if ours == 0 else prediction.eps_from_x0(self.schedule, x, x0, ours)
        velocity: Tensor = self.path.interpolate(eps, x0, t)[1]
        return eps if self.kind == "noise" else velocity


def flow_sampler(interpolant: str, kind: str, denoise: Denoiser, **options: Any) -> Any:
    """FlowSampler in float64, for what a denoiser says."""
    network = Network(interpolant, kind, denoise)
    make: Callable[..., Any] = import_module("torchebm.samplers").FlowSampler
    return make(network, interpolant=interpolant, prediction=kind, dtype=torch.float64, **options)


def sampler(
    integrator: str, order: int, interpolant: str = "linear", kind: str = "velocity", **options: Any
) -> Sampler:
    """FlowSampler of one integrator, of fixed steps."""
    schedule = SCHEDULES[interpolant]
    noisy = options.get("mode") == "sde"

    def made(denoise: Denoiser) -> Any:
        return flow_sampler(interpolant, kind, denoise, integrator=integrator, **options)

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        steps = pairwise(grid)

        def drawn(like: Tensor, **_: Any) -> Tensor:
            return noise(like, *next(steps))

        with patch.object(torch, "randn_like", drawn):
            states = made(denoise).sample(x=x, n_steps=len(grid) - 1, return_trajectory=True)
        return list(states.unbind(1))

    def grid(n: int) -> Tensor:
        first, last = made(lambda x, t: x)._check_interval()
        return 1 - torch.linspace(first, last, n + 1, dtype=torch.float64)

    name = f"FlowSampler({integrator}, {interpolant}, {kind})"
    return Sampler(name, schedule, sample, grid, order, noisy, any_grid=False, exact=False)


DATA = GaussianMixture(*(torch.tensor(each).double() for each in ([0.0], [[0.3]], [0.64])))
"""N(0.3, 0.8^2)."""


def law(interpolant: str, kind: str = "velocity", mode: str = "sde", **options: Any) -> None:
    """The deviation of samples, by a sampler's defaults."""
    denoise = DATA.denoiser(SCHEDULES[interpolant])
    _deviation(flow_sampler(interpolant, kind, denoise, mode=mode, **options))


def _deviation(flow: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    found = float(flow.sample(dim=1, n_samples=10000, generator=rng).std())
    assert abs(found / 0.8 - 1) < 0.04, f"the deviation of samples is {found:.3g}, not 0.8"


def off_by_a_thousandth(**options: Any) -> None:
    """A network of the noise whose output is 0.1% too large, on the straight path."""
    flow = flow_sampler("linear", "noise", DATA.denoiser(SCHEDULES["linear"]), **options)
    flow.model.register_forward_hook(lambda module, given, eps: 1.001 * eps)
    _deviation(flow)


def encode() -> None:
    """reverse=True, from data to noise: on a Gaussian it undoes what sampling does."""
    denoise = DATA.denoiser(SCHEDULES["linear"])
    down, up = (
        flow_sampler("linear", "velocity", denoise, integrator="rk4", reverse=back)
        for back in (False, True)
    )
    z = torch.linspace(-2, 2, 5).double()[:, None]
    off = float((up.sample(x=down.sample(x=z)) - z).abs().max())
    assert off < 1e-3, f"noise that is sampled from and encoded again is {off:.3g} off"


def guided_model() -> None:
    """`ClassifierFreeGuidance`, of a model that is told its condition as y."""
    make = import_module("torchebm.models").ClassifierFreeGuidance

    def guided(network: Any, x: Tensor, w: float) -> Any:
        class Model(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                found: Tensor = network(x, y == 1)
                return found

        return make(Model(), w, null_condition=0)(x, y=torch.ones(len(x)).long())

    assert_guided(guided)


def plan() -> None:
    """Of two sets that are one another's shift, the exact plan pairs each with its own."""
    coupling = import_module("torchebm.couplings").ExactOTCoupling()
    x0 = torch.arange(64.0).reshape(16, 4).flip(0)
    a, b = coupling(x0, x0.flip(0) + 0.1)
    assert bool(torch.isclose(b, a + 0.1).all()), "the exact plan does not pair shifted points"
