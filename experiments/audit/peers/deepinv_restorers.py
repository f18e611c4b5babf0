"""deepinv's restorers DDRM, DiffPIR and DPS, and the moves of its Langevin samplers."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.gaussian import Gaussian
from diffusion_math.langevin_law import ula_stationary
from diffusion_math.testing import drawn
from diffusion_math.testing.draws import Draws
from experiments.audit.peers._isolated_import import without

Formulas = dict[tuple[str, str], Callable[[], Any]]
"""What checks each formula, by what is exported and the formula's name."""


@cache
def library() -> ModuleType:
    """deepinv, without the packages for images that its sampling does not use."""
    with without("torchvision", "torchmetrics"):
        return import_module("deepinv")


def _ddrm(measured: float) -> Callable[..., Tensor]:
    """DDRM's second state, at eta = 1, of pixels that are measured without noise or not at all."""
    sampling, physics = library().sampling, library().physics

    def q(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        inputs: list[Tensor] = []
        mask = physics.Inpainting((4,), mask=torch.full((4,), measured))
        mask.noise_model = physics.GaussianNoise(1e-9)
        for one, level, z in zip(x0[:, None], t.tolist(), noise[:, None], strict=True):
            seen: list[Tensor] = []
            network = lambda x, sigma, one=one, seen=seen: (seen.append(x), one)[1]  # noqa: E731
            with Draws(z).everywhere():
                sampling.DDRM(network, [50.0, level], eta=1.0)(one.clone(), mask)
            inputs.append(seen[1])
        return torch.cat(inputs)

    return q


def _diffpir() -> tuple[Any, list[float]]:
    """DiffPIR's result for a clean image that its network knows, and lambda sigma^2 gamma."""
    deepinv, strengths = library(), []

    class Fidelity:
        def prox(self, x: Tensor, *given: Any, gamma: Tensor) -> Tensor:
            strengths.append(float(gamma))
            return x

    image = torch.full((1, 4), 0.7)
    one = deepinv.sampling.DiffPIR(lambda x, sigma: image, Fidelity(), max_iter=10)
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.05))
    with Draws(torch.ones(1, 4)).everywhere():
        result = one(image, physics)
    seen = [one.find_nearest(one.reduced_alpha_cumprod, one.sigmas[k]) for k in one.seq[:-1]]
    return result, [float(one.rhos[k]) * g for k, g in zip(seen, strengths, strict=True)]


def restorers() -> Formulas:
    """DDRM, DiffPIR, DPS, and the end of a posterior's sampling."""
    sampling, physics = library().sampling, library().physics
    levels = [0.1, 0.5, 1.0, 3.0, 10.0]

    def last_noise() -> None:
        off = float((_diffpir()[0] - 0.7).abs().max())
        assert off < 1e-6, f"got noise of {off:.3g} on a clean image, expected 0"

    def prox() -> None:
        """argmin |y - A x|^2 + rho |x - x0|^2 is the proximal map of |y - A x|^2 / 2 at 1 / rho."""
        strengths = _diffpir()[1]
        assert abs(strengths[0] - 1) < 1e-3, (
            f"got gamma = {strengths[0]:.3g} / rho, expected 1 / rho"
        )

    def dps() -> None:
        """x_s = x_s' - zeta grad |y - A D(x)|, at weight zeta = 1, of the state in [-1, 1]."""
        network = lambda x, sigma, *_: 0.5 * x  # noqa: E731
        flat, y = physics.Denoising(), torch.zeros(1, 4)
        moved, x = [], torch.tensor([[0.3, 0.1, -0.2, 0.5]]).double()
        for weight in (0.0, 1.0):
            one = sampling.DPS(network, weight=weight)
            with Draws(torch.zeros(1, 4)).everywhere():
                step = one.solver.step(
                    one.posterior, *torch.tensor([0.5, 0.499]), x.clone(), y, flat
                )
            moved.append(step[0])
        scale = one.sde.scale_t(0.5)
        grad = one.data_fidelity.grad((x / scale + 1) / 2, y, flat, one.sde.sigma_t(0.5) / 2)
        ratio = float(((moved[0] - moved[1]) / (grad / (2 * scale))).mean())
        assert abs(ratio - 1) < 1e-3, f"got {ratio:.3g} times the gradient, expected 1"

    def guidance(kind: str) -> None:
        """-grad log p(y | x_t) on normal data, of which one pixel in two is measured."""
        x, y, level = torch.tensor([[0.3, 0.1, -0.2, 0.5]]), torch.ones(1, 4), 0.8
        half = physics.Inpainting((4,), mask=torch.tensor([1.0, 0.0, 1.0, 0.0]))
        half.noise_model = physics.GaussianNoise(0.5)
        got = getattr(sampling, kind)(Normal()).grad(x, y, half, level)
        shrunk = 1 / (1 + level**2)  # E[x0 | x_t] = shrunk x_t, of variance level^2 shrunk
        wanted = shrunk * (shrunk * x - y) / (level**2 * shrunk + 0.5**2) * half.mask
        off = float((got - wanted).abs().max())
        assert off < 1e-4, f"got {got.tolist()}, expected {wanted.tolist()}"

    def end(times: Tensor) -> None:
        """The last denoising is told the noise of the last step, sigma of that step's dW."""
        told: list[float] = []

        def network(x: Tensor, sigma: Any) -> Tensor:
            told.append(float(sigma))
            return x

        sde = sampling.VarianceExplodingDiffusion(network, alpha=1.0, minus_one_one=False)
        solver = sampling.EulerSolver(times)
        one = sampling.PosteriorDiffusion(sde=sde, solver=solver, minus_one_one=False)
        one(None, None, x_init=torch.zeros(1, 1, 2, 2).double())
        last = float(sde.diffusion(times[-2]) * (times[-2] - times[-1]) ** 0.5)
        assert abs(told[-1] / last - 1) < 1e-3, f"got sigma = {told[-1]:.3g}, expected {last:.3g}"

    even = torch.linspace(1, 1e-3, 50, dtype=torch.float64)
    forward = partial(
        testing.assert_forward, levels=lambda t: (1.0, t), times=levels, dtype=torch.float32
    )
    return {
        ("DDRM, not measured", "forward"): lambda: forward(_ddrm(0.0)),
        ("DDRM, measured", "forward"): lambda: forward(_ddrm(1.0)),
        ("DiffPIR, result", "last noise"): last_noise,
        ("DiffPIR.forward", "proximal step"): prox,
        ("DPS", "step size"): dps,
        ("PiGDMDataFidelity", "guidance"): lambda: guidance("PiGDMDataFidelity"),
        ("MomentMatchingDataFidelity", "guidance"): lambda: guidance("MomentMatchingDataFidelity"),
        ("PosteriorDiffusion, even times", "last denoising"): lambda: end(even),
        ("PosteriorDiffusion, uneven times", "last denoising"): lambda: end(even**3),
    }


def moves() -> Formulas:
    """Langevin's and SK-ROCK's moves on a normal, and the mean of a chain."""
    deepinv = library()
    iterators, optim, physics = deepinv.sampling, deepinv.optim, deepinv.physics.Denoising()
    spread = 0.5

    def kernel(name: str, step: float, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Data N(0, 1) by its denoiser at 0.25, seen with noise of deviation 0.5."""
        own = {"step_size": step, "alpha": 1.0, "sigma": 0.25, **options}
        iterator = getattr(iterators, f"{name}Iterator")(own)
        prior, fidelity = optim.ScorePrior(Normal()), optim.L2(spread)

        def move(x: Tensor) -> Tensor:
            state = iterator({"x": x}, torch.zeros_like(x), physics, fidelity, prior, 0)
            found: Tensor = state["x"]
            return found

        return drawn(move)

    precision = 1 / (1 + 0.25**2) + 1 / spread**2  # of what both say together

    def ula() -> None:
        target = Gaussian(torch.zeros(4), torch.tensor(1 / precision, dtype=torch.float64))
        variance = ula_stationary(target, 0.1).variance
        move, law = kernel("ULA", 0.1), variance * torch.eye(4)
        testing.assert_stationary(move, target.mean, law, dtype=torch.float32)

    def skrock(stages: int) -> None:
        """The stationary variance is the target's, to the first order in the step."""
        one, off = torch.ones(1, 4).double(), []
        for step in (0.05, 0.025):
            move = kernel("SKRock", step, inner_iter=stages, eta=0.05)
            a, b = move(one, 0 * one)[0, 0], move(0 * one, one)[0, 0]
            off.append(float(b**2 / (1 - a**2) * precision - 1))
        assert 0 < abs(off[1]) < 0.6 * abs(off[0]) < 0.2, f"got errors {off}, expected half"

    def chain(part: str) -> None:
        """A sampler whose every sample is 0, from a start at 1."""
        chained = iterators.DiffusionSampler(
            lambda *_: torch.zeros(1, 4), max_iter=9, verbose=False, save_chain=True
        )
        flat = deepinv.physics.Denoising()
        mean, variance = chained(torch.ones(1, 4), flat)
        found = {"mean": mean, "variance": variance, "chain": chained.get_chain()[0]["x"]}
        got = float(found[part].max())
        assert got == 0, f"got {got:.3g}, expected 0"

    found: Formulas = {("ULAIterator", "stationary"): ula}
    for stages in (1, 2, 10):
        found[f"SKRockIterator({stages})", "order"] = partial(skrock, stages)
    for part in ("mean", "variance", "chain"):
        found["BaseSampling", part] = partial(chain, part)
    return found


class Normal(torch.nn.Module):
    """E[x0 | x0 + sigma eps] of a standard normal x0."""

    def forward(self, x: Tensor, sigma: Any, *_: Any, **__: Any) -> Tensor:
        return x / (1 + torch.as_tensor(sigma, dtype=torch.float64) ** 2)
