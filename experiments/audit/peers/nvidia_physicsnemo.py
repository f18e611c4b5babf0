"""NVIDIA PhysicsNeMo's noise schedulers, loss, preconditioners, solvers, posterior guidance."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import VE, Schedule, VPLinear
from diffusion_math.testing import (
    Sampler,
    UnsupportedError,
    adaptors,
    assert_forward,
    assert_loss,
    assert_prediction_maps,
    assert_schedule,
    drawn,
    weights,
)
from diffusion_math.testing.verdicts import Origin
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers.physicsnemo_parts import levels_of, library, scheduler, times_of
from experiments.audit.peers.physicsnemo_preconditioners import preconditioners
from experiments.audit.subject import Subject, again

SCHEDULERS: dict[str, tuple[str, float]] = {
    "EDMNoiseScheduler": ("variance-exploding", 80.0),
    "EDMLogUniformNoiseScheduler": ("variance-exploding", 80.0),
    "IDDPMNoiseScheduler": ("variance-exploding", 81.0),
    "VENoiseScheduler": ("variance-exploding", 100.0),
    "VPNoiseScheduler": ("variance-preserving", 1.0),
}
"""Each, its path and its largest noise level, or time."""


def _exchanged(method: Callable[..., Any], x: Tensor, given: Tensor, t: Tensor) -> Any:
    return method(given, x, t)


def _formulas(name: str, path: Any) -> dict[tuple[str, str], Callable[[], None]]:
    own = scheduler(name)
    levels, times = levels_of(own), times_of(own)

    def inverse(log_snr: Any) -> Tensor:
        odds = torch.exp(-torch.as_tensor(log_snr, dtype=torch.float64))
        variance = odds if path == "variance-exploding" else odds / (1 + odds)
        found: Tensor = own.sigma_inv(variance.sqrt())
        return found

    def eps_from_score(x: Tensor, score: Tensor, t: Tensor) -> Any:
        return own.score_to_epsilon(score, t)

    def score_from_eps(x: Tensor, eps: Tensor, t: Tensor) -> Any:
        return own.epsilon_to_score(eps, t)

    maps: dict[str, Callable[..., Any]] = {
        "eps_from_score": eps_from_score,
        "score_from_eps": score_from_eps,
    }
    for there, back, method in (
        ("score", "x0", own.x0_to_score),
        ("x0", "score", own.score_to_x0),
        ("x0", "eps", own.epsilon_to_x0),
        ("eps", "x0", own.x0_to_epsilon),
    ):
        maps[f"{there}_from_{back}"] = partial(_exchanged, method)

    def loss(kind: str) -> Callable[..., Any]:
        way = {"score": "score_to_x0", "epsilon": "epsilon_to_x0"}
        more = {f"{way[kind]}_fn": getattr(own, way[kind])} if kind in way else {}

        def of(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
            def model(x: Tensor, t: Tensor, condition: Any) -> Any:
                return network(x, t)

            return drawn(library().MSEDSMLoss(model, own, kind, **more))(x0, t, noise)

        return of

    def one_step() -> None:
        times = own.timesteps(1)
        assert bool(times.isfinite().all()), f"timesteps(1): {times.tolist()}"

    drift, g2 = adaptors.rates_of_sde(lambda x, t: (own.drift(x, t), own.diffusion(x, t).sqrt()))
    weight = weights.edm() if name.startswith("EDM") else "simple"
    found: dict[tuple[str, str], Callable[[], None]] = {
        (f"{name}.alpha, sigma, drift, diffusion", "schedule"): lambda: assert_schedule(
            levels, times, path=path, drift=drift, g2=g2
        ),
        (f"{name}.timesteps, one step", "schedule"): one_step,
        (f"{name}.sigma_inv", "schedule"): lambda: assert_schedule(levels, times, inverse=inverse),
        (f"{name}.add_noise", "forward"): lambda: assert_forward(
            drawn(own.add_noise), levels, times
        ),
        (f"{name}.x0_to_score and the like", "prediction maps"): lambda: assert_prediction_maps(
            maps, levels, times
        ),
    }
    for kind, predicts in (("x0", "x0"), ("score", "score"), ("epsilon", "eps")):
        found[f"MSEDSMLoss, {name}, {kind}", "loss"] = partial(
            assert_loss, loss(kind), levels, times, predicts=predicts, weight=weight
        )
    return found


def _guidance() -> dict[tuple[str, str], Callable[[], None]]:
    """The posterior's score of a standard normal, of which all entries are seen with noise.

    At one time gamma can be what makes the approximation exact (arXiv:2306.10574, eq. 13).
    """
    own, y, std = scheduler("VPNoiseScheduler"), 0.4, 0.5
    t = torch.tensor([0.3, 0.3], dtype=torch.float64)
    alpha, sigma = levels_of(own)(0.3)
    known = {"gamma": alpha**2, "sigma_fn": own.sigma, "alpha_fn": own.alpha, "std_y": std}
    seen = torch.full((2, 4), y, dtype=torch.float64)
    posterior = 1 / (1 + 1 / std**2)
    marginal = alpha**2 * posterior + sigma**2

    def check(guidance: Any) -> None:
        def x0_predictor(x: Tensor, t: Tensor) -> Tensor:
            return alpha * x

        x = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(2, 4)
        score = library().DPSScorePredictor(x0_predictor, own.x0_to_score, guidance)(x, t)
        wanted = (alpha * posterior * y / std**2 - x) / marginal
        worst = float((score - wanted).abs().max())
        assert worst < 1e-6, f"the posterior's score is off by {worst:.3g}"

    return {
        ("ModelConsistencyDPSGuidance", "posterior's score"): lambda: check(
            library().ModelConsistencyDPSGuidance(lambda x0: x0, seen, **known)
        ),
        ("DataConsistencyDPSGuidance", "posterior's score"): lambda: check(
            library().DataConsistencyDPSGuidance(torch.ones_like(seen).bool(), seen, **known)
        ),
    }


def _dtypes() -> dict[tuple[str, str], Callable[[], None]]:
    """The sample is of the dtype of the noise, as `sample` says."""
    own = scheduler("EDMNoiseScheduler")

    def check(solver: str, dtype: torch.dtype) -> None:
        told = []

        def x0_predictor(x: Tensor, t: Tensor) -> Tensor:
            told.append(x.dtype)
            return 0 * x

        denoiser = own.get_denoiser(x0_predictor=x0_predictor)
        library().sample(denoiser, torch.ones(1, 1, dtype=dtype), own, 4, solver)
        kinds = sorted({str(one)[6:] for one in told})
        assert set(told) == {dtype}, f"a network of {str(dtype)[6:]} is given {', '.join(kinds)}"

    return {
        (f"sample, {solver}, {str(dtype)[6:]}", "dtype"): partial(check, solver, dtype)
        for solver in ("euler", "heun", "edm_stochastic_euler", "edm_stochastic_heun")
        for dtype in (torch.float64, torch.bfloat16)
    }


def sampler(name: str, solver: str, order: int, noisy: bool = False, **options: Any) -> Sampler:
    """`sample` with a scheduler's ODE; times are the scheduler's, in ours.

    Args:
        options: the solver's; `levels` for its churn by the scheduler's noise levels.
    """
    own = scheduler(name)
    path, most = SCHEDULERS[name]
    preserving = path == "variance-preserving"
    schedule: Schedule = VPLinear(0.1, 19.2) if preserving else VE(most)
    given = {key: value for key, value in options.items() if key != "levels"}
    if options.get("levels"):
        given |= {"sigma_fn": own.sigma, "sigma_inv_fn": own.sigma_inv}

    def grid(n: int) -> Tensor:
        if n == 1:
            raise UnsupportedError("its times of one step are a finding of their own")
        times: Tensor = own.timesteps(n, dtype=torch.float64)
        return times if preserving else own.sigma(times)

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        times = grid if preserving else own.sigma_inv(grid)
        steps = iter(pairwise(grid))

        def x0_predictor(x: Tensor, t: Tensor) -> Tensor:
            return denoise(x, t[0] if preserving else own.sigma(t[0]))

        count = {"num_steps": len(grid) - 1} if "S_churn" in given else {}
        with patch.object(torch, "randn_like", lambda like: noise(like, *next(steps))):
            found: list[Tensor] = library().sample(
                own.get_denoiser(x0_predictor=x0_predictor),
                x,
                own,
                len(grid) - 1,
                solver,
                times,
                given | count,
                list(range(len(grid) - 1)),
            )
        return found

    exact = name != "VENoiseScheduler" and not preserving
    return Sampler(solver, schedule, sample, grid, order, noisy, exact=exact, level_tolerance=1e-5)


CHURN = {"S_churn": 10.0}
LEVELS = {**CHURN, "levels": True}
LATE = {**LEVELS, "S_max": 0.5}
"""Churn by the scheduler's noise levels, as the two solvers have it for VP: at all, at low ones."""

SAMPLERS: tuple[tuple[str, str, int, bool, Mapping[str, Any]], ...] = (
    ("EDMNoiseScheduler", "euler", 1, False, {}),
    ("EDMNoiseScheduler", "heun", 2, False, {}),
    ("EDMNoiseScheduler", "heun", 2, False, {"alpha": 0.5}),
    ("EDMNoiseScheduler", "edm_stochastic_euler", 1, True, CHURN),
    ("EDMNoiseScheduler", "edm_stochastic_heun", 2, True, CHURN),
    ("VENoiseScheduler", "heun", 2, False, {}),
    ("VPNoiseScheduler", "heun", 2, False, {}),
    ("VENoiseScheduler", "edm_stochastic_euler", 1, True, LEVELS),
    ("VENoiseScheduler", "edm_stochastic_heun", 2, True, LEVELS),
    ("VPNoiseScheduler", "edm_stochastic_heun", 2, True, LEVELS),
    ("VPNoiseScheduler", "edm_stochastic_euler", 1, True, LATE),
    ("VPNoiseScheduler", "edm_stochastic_heun", 2, True, LATE),
)
MORE: tuple[tuple[str, str, int, bool, Mapping[str, Any]], ...] = (
    ("IDDPMNoiseScheduler", "heun", 2, False, {}),
    ("VENoiseScheduler", "euler", 1, False, {}),
    ("VPNoiseScheduler", "euler", 1, False, {}),
    ("EDMNoiseScheduler", "edm_stochastic_heun", 2, True, {**CHURN, "alpha": 0.5}),
)


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Every scheduler's formulas and loss, the preconditioners, and the solvers."""
    found = preconditioners() | _guidance() | _dtypes()
    for name, (path, _) in SCHEDULERS.items():
        found |= _formulas(name, path)
    yield from formulas_of("nvidia-physicsnemo", "defaults", found)
    for name, solver, order, noisy, options in SAMPLERS if quick else SAMPLERS + MORE:
        said = [name, *(f"{key}={value!r}" for key, value in options.items())]
        who = Origin("nvidia-physicsnemo", version("nvidia-physicsnemo"), ", ".join(said))
        made = again("nvidia_physicsnemo", name, solver, order, noisy, **options)
        yield Subject(sampler(name, solver, order, noisy, **options), who, made)
