"""deepinv's reverse SDEs and solvers, wrapped networks, DDRM, DiffPIR, DPS, Langevin's moves."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.denoiser import Denoiser
from diffusion_math.gaussian import Gaussian
from diffusion_math.grid import trailing
from diffusion_math.langevin_law import ula_stationary
from diffusion_math.noise import Noise
from diffusion_math.schedule import VPLinear
from diffusion_math.testing import drawn
from diffusion_math.testing.draws import Draws
from diffusion_math.testing.sampler import Sampler
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers._isolated_import import without
from experiments.audit.subject import Subject, subjects_of

Formulas = dict[tuple[str, str], Callable[[], Any]]

SAMPLERS: list[tuple[str, int, bool, dict[str, Any]]] = [
    ("EulerSolver", 1, False, {"alpha": 0.0}),
    ("EulerSolver", 1, True, {"alpha": 1.0}),
    ("HeunSolver", 2, False, {"alpha": 0.0}),
    ("HeunSolver", 2, True, {"alpha": 1.0}),
    ("AncestralSolver", 1, True, {"alpha": 0.5}),
    ("DDPMSolver", 1, True, {}),
    ("DDIMSolver", 1, False, {}),
    ("DDIMSolver", 1, True, {"eta": 0.5}),
]
"""Each: its order (the weak order where it draws noise), whether it is noisy, options."""


@cache
def library() -> ModuleType:
    """deepinv, without the packages for images that its sampling does not use."""
    with without("torchvision", "torchmetrics"):
        return import_module("deepinv")


def sampler(name: str, order: int, noisy: bool, **options: Any) -> Sampler:
    """A solver on the variance-preserving SDE of its defaults; the network runs in float32."""
    sampling, schedule = library().sampling, VPLinear()
    more = {key: options[key] for key in options.keys() & {"eta"}}

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        def network(u: Tensor, sigma: Tensor) -> Tensor:
            t = schedule.time(-2 * sigma.double().log())
            return denoise(schedule(t)[0] * u.double(), t)

        sde = sampling.VariancePreservingDiffusion(
            network, alpha=options.get("alpha", 1.0), minus_one_one=False
        )
        solver, states = getattr(sampling, name)(grid, **more), [x]
        for t, s in pairwise(grid):
            with Draws(noise(x, t, s) if noisy else torch.zeros_like(x)).everywhere():
                states.append(solver.step(sde, t, s, states[-1])[0])
        return states[1:]

    return Sampler(
        name,
        schedule,
        sample,
        lambda n: trailing(schedule, n, end=LAST),
        order,
        noisy,
        exact=name not in ("EulerSolver", "HeunSolver"),
        precision=1e-6,
        level_tolerance=1e-5,
    )


LAST = 1e-2
"""The last time of the grids here: an SDE's drift has no value at t = 0."""


def _table(n: int = 1000) -> Any:
    """What a `ScoreModelWrapper` is given: sigma_t = sqrt(1 - abar) / sqrt(abar)."""
    abar = (1 - torch.linspace(1e-4, 0.02, n)).cumprod(0)
    return ((1 - abar) / abar).sqrt()


def _wrapper(kind: str, n: int = 1000, **options: Any) -> Any:
    made = partial(library().models.ScoreModelWrapper, prediction_type=kind, n_timesteps=n)
    return made(sigma_t=_table(n), variance_preserving=True, clip_output=False, **options)


KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""What the library calls a prediction, and what we call it."""


def _networks() -> Formulas:
    """`ScoreModelWrapper`: what a network predicts, as a denoiser and as a score."""
    sigma, times = _table(), range(1000)

    def levels(t: Any) -> tuple[Tensor, Tensor]:
        scale = _wrapper("epsilon").scale_t[t]
        return scale, scale * sigma[t]

    def x0(kind: str, x_t: Tensor, given: Tensor, t: Tensor) -> Any:
        one = _wrapper(kind, score_model=lambda x, at: given)
        return one(x_t / levels(t)[0][:, None], sigma[t], input_in_minus_one_one=True)

    def score(kind: str, x_t: Tensor, given: Tensor, t: Tensor) -> Any:
        one = _wrapper(kind)
        return one._pred_to_score(given, x_t, sigma[t][:, None], one.scale_t[t][:, None])

    def runs() -> None:
        _wrapper("epsilon", score_model=lambda x, t, **_: x).score(torch.zeros(2, 4), 0.5)

    def told(n: int) -> None:
        """A network is told the index whose sigma it is asked for."""
        seen: list[Tensor] = []

        def network(x: Tensor, t: Tensor) -> Tensor:
            seen.append(t)
            return x

        one = _wrapper("epsilon", n, score_model=network, takes_integer_time=True)
        one(torch.zeros(n, 4), _table(n), input_in_minus_one_one=True)
        off = int((seen[0].flatten() != torch.arange(n)).sum())
        assert not off, f"got another index at {off} of {n}, expected each of {n}"

    def unit(trained: bool) -> None:
        """Images in [0, 1] of an exact network, which is given [-1, 1] or not."""
        image = torch.full((1, 4), 0.3)
        clean = 2 * image - 1 if trained else image
        one = _wrapper("sample", score_model=lambda x, t: clean)
        one._was_trained_on_minus_one_one = trained
        got = float(one(image, 0.5)[0, 0])
        assert abs(got - 0.3) < 1e-6, f"got {got:.3g}, expected 0.3"

    f32 = torch.float32
    found: Formulas = {
        ("ScoreModelWrapper.forward", "prediction_maps"): lambda: testing.assert_prediction_maps(
            {f"x0_from_{KINDS[kind]}": partial(x0, kind) for kind in ("epsilon", "v_prediction")},
            levels,
            times,
            dtype=f32,
        ),
        ("ScoreModelWrapper.score", "runs"): runs,
        ("ScoreModelWrapper(1000 times)", "index"): lambda: told(1000),
        ("ScoreModelWrapper(100 times)", "index"): lambda: told(100),
        ("ScoreModelWrapper(trained on [-1, 1])", "range"): lambda: unit(True),
        ("ScoreModelWrapper(trained on [0, 1])", "range"): lambda: unit(False),
    }
    for kind, ours in KINDS.items():
        found[f"ScoreModelWrapper.score({kind})", "prediction_maps"] = partial(
            testing.assert_prediction_maps,
            {f"score_from_{ours}": partial(score, kind)},
            levels,
            times,
            dtype=f32,
        )
    return found


def _sdes() -> Formulas:
    """The levels, drift, diffusion and score of each SDE."""
    sampling = library().sampling
    times = torch.linspace(0.02, 0.98, 49, dtype=torch.float64).tolist()

    def network(u: Tensor, sigma: Tensor) -> Tensor:
        return clean[0]

    clean = [torch.zeros(())]
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "VariancePreservingDiffusion": ("variance-preserving", {}),
        "VariancePreservingDiffusion(scaled_linear)": (
            "variance-preserving",
            {"scaled_linear": True},
        ),
        "VarianceExplodingDiffusion": ("variance-exploding", {}),
        "FlowMatching": ("straight", {}),
        "SongDiffusionSDE(beta, xi)": (
            None,
            {"beta_t": lambda t: 1 + t, "xi_t": lambda t: 2 + t * t},
        ),
        "EDMDiffusionSDE(sigma=t)": (
            "variance-preserving",
            {"sigma_t": lambda t: 3 * t, "variance_preserving": True},
        ),
    }
    found: Formulas = {}
    for name, (path, options) in kinds.items():
        sde = getattr(sampling, name.split("(")[0])(
            denoiser=network, minus_one_one=False, **options
        )

        def levels(t: Any, sde: Any = sde) -> tuple[Tensor, Tensor]:
            return sde.scale_t(t), sde.scale_t(t) * sde.sigma_t(
                torch.as_tensor(t, dtype=torch.float64)
            )

        def score(x_t: Tensor, x0: Tensor, t: Tensor, sde: Any = sde) -> Tensor:
            rows = []
            for k in range(len(t)):
                clean[0] = x0[k]
                rows.append(sde.score(x_t[k], t[k]))
            return torch.stack(rows)

        found[name, "schedule"] = partial(
            testing.assert_schedule,
            levels,
            times,
            path=path,
            drift=partial(sde.forward_drift, torch.ones(()).double()),
            g2=partial(_square, sde.forward_diffusion),
        )
        found[name, "prediction_maps"] = partial(
            testing.assert_prediction_maps, {"score_from_x0": score}, levels, times[::6]
        )
    return found


def _square(diffusion: Callable[[Any], Tensor], t: Any) -> Tensor:
    return diffusion(t) ** 2


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


def _restorers() -> Formulas:
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
        ("PosteriorDiffusion, even times", "last denoising"): lambda: end(even),
        ("PosteriorDiffusion, uneven times", "last denoising"): lambda: end(even**3),
    }


def _langevin() -> Formulas:
    """Langevin's and SK-ROCK's moves on a normal, and the mean of a chain."""
    deepinv = library()
    iterators, optim, physics = deepinv.sampling, deepinv.optim, deepinv.physics.Denoising()
    spread = 0.5

    def kernel(name: str, step: float, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Data N(0, 1) by its denoiser at 0.25, seen with noise of deviation 0.5."""
        own = {"step_size": step, "alpha": 1.0, "sigma": 0.25, **options}
        iterator = getattr(iterators, f"{name}Iterator")(own)
        prior, fidelity = optim.ScorePrior(_Normal()), optim.L2(spread)

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


class _Normal(torch.nn.Module):
    """E[x0 | x0 + sigma eps] of a standard normal x0."""

    def forward(self, x: Tensor, sigma: Any, *_: Any, **__: Any) -> Tensor:
        return x / (1 + torch.as_tensor(sigma, dtype=torch.float64) ** 2)


LIMITS = {
    "SongDiffusionSDE(beta, xi)": '"it is calculated by numerical integration", of 100 points',
    "DiffPIR, result": "the documented last step keeps the noise of the first index",
}
"""What the library's documentation says of itself."""


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas, and solvers at their settings."""
    found = _networks() | _sdes() | _restorers() | _langevin()
    yield from formulas_of("deepinv", "defaults", found, LIMITS)
    yield from subjects_of("deepinv", sampler, SAMPLERS[:1] if quick else SAMPLERS)


UNTRIED = {
    "ScoreSDEDataFidelity, ILVRDataFidelity, ALDDataFidelity, PiGDMDataFidelity, "
    "MomentMatchingDataFidelity": "approximations of a likelihood, which no exact value holds to",
    "DiffusersDenoiserWrapper": "wants a model of a hub; its parent ScoreModelWrapper is checked",
    "DiffusionSampler": "runs another sampler many times; its mean and variance are checked",
    "losses, physics, optimisation": "no diffusion",
}
"""What the library exports and `subjects` leaves out: why."""
