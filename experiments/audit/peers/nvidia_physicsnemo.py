"""NVIDIA PhysicsNeMo's noise schedulers, loss, preconditioners, solvers, posterior guidance."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing import (
    Draws,
    adaptors,
    assert_forward,
    assert_loss,
    assert_prediction_maps,
    assert_schedule,
    drawn,
    weights,
)
from experiments.audit.formula import Formula, assert_same, formulas_of
from experiments.audit.peers.physicsnemo_parts import levels_of, library, scheduler, times_of
from experiments.audit.peers.physicsnemo_preconditioners import preconditioners
from experiments.audit.peers.physicsnemo_solvers import MORE, SAMPLERS, SCHEDULERS, sampler
from experiments.audit.subject import Subject, subjects_of


def _exchanged(method: Callable[..., Any], x: Tensor, given: Tensor, t: Tensor) -> Any:
    return method(given, x, t)


def _assert_reverse(own: Any, times: list[float]) -> None:
    """The right-hand sides of a network that knows the noise, whatever it predicts."""
    t = torch.tensor(times, dtype=torch.float64)
    x0, eps = (torch.full((len(t), 1), one, dtype=torch.float64) for one in (0.7, -1.3))
    x = own.alpha(t)[:, None] * x0 + own.sigma(t)[:, None] * eps
    score = -eps / own.sigma(t)[:, None]
    for kind, share in (("ode", 0.5), ("sde", 1.0)):
        wanted = own.drift(x, t) - share * own.diffusion(x, t) * score
        for name, known in (("score", score), ("x0", x0), ("epsilon", eps)):
            said: dict[str, Any] = {f"{name}_predictor": lambda x, t, known=known: known}
            found = own.get_denoiser(denoising_type=kind, **said)(x, t)
            assert_same(f"{kind} of {name}, relatively,", found / wanted, torch.ones(1), 1e-9)


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

    def latents() -> None:
        t, noise = torch.tensor(times[-3:]), torch.randn(3, 4)
        with Draws(noise).everywhere():
            found = own.init_latents((4,), t)
        assert_same("over sigma", found / own.sigma(t)[:, None], noise, 1e-5)

    def one_step() -> None:
        times = own.timesteps(1)
        assert bool(times.isfinite().all()), f"timesteps(1): {times.tolist()}"

    def weighted(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        own_loss = library().WeightedMSEDSMLoss(lambda x, t, condition: network(x, t), own)
        return drawn(lambda x0: own_loss(x0, torch.ones_like(x0), t))(x0, noise)

    drift, g2 = adaptors.rates_of_sde(lambda x, t: (own.drift(x, t), own.diffusion(x, t).sqrt()))
    weight = weights.edm() if name.startswith("EDM") else "simple"
    found: dict[tuple[str, str], Callable[[], None]] = {
        (f"{name}.alpha, sigma, drift, diffusion", "schedule"): lambda: assert_schedule(
            levels, times, path=path, drift=drift, g2=g2
        ),
        (f"{name}.timesteps, one step", "schedule"): one_step,
        (f"{name}.init_latents", "forward"): latents,
        (f"{name}.get_denoiser", "the reverse ODE and SDE"): partial(_assert_reverse, own, times),
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
    found[f"WeightedMSEDSMLoss, {name}", "loss"] = partial(
        assert_loss, weighted, levels, times, predicts="x0", weight=weight
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
        assert_same("the posterior's score", score, wanted, 1e-6)

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


def _assert_iddpm() -> None:
    """sigma_j^2 + 1 = abar_M / abar_j with the cosine's abar (arXiv:2206.00364, table 1)."""
    own = scheduler("IDDPMNoiseScheduler")
    j = torch.arange(1, own.M + 1, dtype=torch.float64)
    abar = (torch.pi / 2 * j / own.M / (1 + own.C_2)).sin() ** 2
    levels = (abar[-1] / abar - 1).sqrt()[:-1]
    assert_same("the levels, relatively,", own._u[1:-1] / levels, torch.ones(1), 2e-3)


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Every scheduler's formulas and loss, the preconditioners, and the solvers."""
    found = preconditioners() | _guidance() | _dtypes()
    found["IDDPMNoiseScheduler, its levels", "schedule"] = _assert_iddpm
    for name, (path, _) in SCHEDULERS.items():
        found |= _formulas(name, path)
    yield from formulas_of("nvidia-physicsnemo", "defaults", found)
    yield from subjects_of("nvidia-physicsnemo", sampler, SAMPLERS if quick else SAMPLERS + MORE)
