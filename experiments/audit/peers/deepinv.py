"""deepinv's reverse SDEs and solvers, wrapped networks, and what `deepinv_restorers` has."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.denoiser import Denoiser
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise
from diffusion_math.schedule import VPLinear
from diffusion_math.testing.draws import Draws
from diffusion_math.testing.sampler import Sampler
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers.deepinv_restorers import Formulas, library, moves, restorers
from experiments.audit.subject import Subject, subjects_of

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


def sampler(name: str, order: int, noisy: bool, **options: Any) -> Sampler:
    """A solver on the variance-preserving SDE of its defaults; the network runs in float32."""
    sampling, schedule = library().sampling, VPLinear()
    more = {key: options[key] for key in options.keys() & {"eta"}}

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        def network(u: Tensor, sigma: Tensor) -> Tensor:
            t = schedule.time((-2 * sigma.double().log()).clamp(min=schedule.log_snr(1.0)))
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
        seen: list[float] = []
        image = torch.full((1, 4), 0.3)
        clean, level = (2 * image - 1, 1.0) if trained else (image, 0.5)

        def network(x: Tensor, t: Tensor) -> Tensor:
            seen.extend((float(x[0, 0]), float(t)))
            return clean

        one = _wrapper("sample", score_model=network)
        one._was_trained_on_minus_one_one = trained
        found = [float(one(image, 0.5)[0, 0]), *seen]
        index = int((sigma - level).abs().argmin())
        wanted = [0.3, float(one.scale_t[index] * clean[0, 0]), index / 999]
        off = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
        assert off < 1e-6, f"image, input and time: got {found}, expected {wanted}"

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


LIMITS = {
    "SongDiffusionSDE(beta, xi)": '"it is calculated by numerical integration", of 100 points',
    "DiffPIR, result": "the documented last step keeps the noise of the first index",
}
"""What the library's documentation says of itself."""


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas, and solvers at their settings."""
    found = _networks() | _sdes() | restorers() | moves()
    yield from formulas_of("deepinv", "defaults", found, LIMITS)
    yield from subjects_of("deepinv", sampler, SAMPLERS[:1] if quick else SAMPLERS)


UNTRIED = {
    "ScoreSDEDataFidelity, ILVRDataFidelity, ALDDataFidelity": (
        "approximations of a likelihood, which no exact value holds to"
    ),
    "DiffusersDenoiserWrapper": "wants a model of a hub; its parent ScoreModelWrapper is checked",
    "DiffusionSampler": "runs another sampler many times; its mean and variance are checked",
    "losses, physics, optimisation": "no diffusion",
}
"""What the library exports and `subjects` leaves out: why."""
