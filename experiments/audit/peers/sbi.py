"""sbi's score and flow-matching estimators: SDEs, losses, scores, predictor, correctors, flow."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from diffusion_math import langevin_law, prediction
from diffusion_math.denoiser import Denoiser
from diffusion_math.gaussian import Gaussian
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise
from diffusion_math.schedule import VPLinear
from diffusion_math.testing import (
    assert_likelihood,
    assert_loss,
    assert_prediction_maps,
    assert_schedule,
    assert_stationary,
    drawn,
    weights,
)
from diffusion_math.testing.adaptors import rates_of_sde
from diffusion_math.testing.sampler import Sampler
from diffusion_math.testing.verdicts import Origin
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.subject import Subject, again

TIMES = [k / 20 for k in range(1, 20)]
SDES: dict[str, Any] = {
    "VPScoreEstimator": "variance-preserving",
    "SubVPScoreEstimator": None,
    "VEScoreEstimator": "variance-exploding",
    "FlowMatchingEstimator": None,
}
"""Each estimator, and the path that its name claims."""

NOISE_SCALE = (
    'its docstrings have the same: "Taking into account the noise scale, the score function is '
    '(- (1 - t) v - theta) / (t + sigma_min)", which leaves out the factor 1 + sigma_min of 1.001'
)
UNTRIED = {
    "NPE, NLE, NRE, VI, MCMC": "normalising flows and ratios, no diffusion",
    "iid_method, guidance_method": "compositions of scores that are approximate by construction",
    "GibbsCorrector": "one Euler step up and down, which keeps a density to its order only",
}
"""What it exports and no row is about: why."""


def _stand_ins() -> dict[str, ModuleType]:
    """What its import wants of tensorboard, which no estimator uses."""
    name = "torch.utils.tensorboard"
    modules = {one: ModuleType(one) for one in (name, f"{name}.writer")}
    for one in modules.values():
        vars(one).update(SummaryWriter=object)
    return modules


def _module(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    with patch.dict(sys.modules, _stand_ins()):
        found = import_module(name)
        kept = {one: module for one, module in sys.modules.items() if one.startswith("sbi")}
    sys.modules.update(kept)
    return found


def _estimator(kind: str, net: nn.Module | None = None, **options: Any) -> Any:
    """In float64, of 4 parameters and a condition that no network here looks at."""
    file = "flowmatching_estimator" if kind == "FlowMatchingEstimator" else "score_estimator"
    make = getattr(_module(f"sbi.neural_nets.estimators.{file}"), kind)
    shape = torch.Size([4])
    return make(net or nn.Linear(1, 1), shape, torch.Size([1]), **options).double()


CONDITION = torch.zeros(1, 1, dtype=torch.float64)


def _levels(estimator: Any, t: Any) -> tuple[Tensor, Tensor]:
    time = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
    alpha, sigma = estimator.mean_t_fn(time).flatten(), estimator.std_fn(time).flatten()
    shape = torch.as_tensor(t).shape
    return alpha.reshape(shape), sigma.reshape(shape)


def _schedule(kind: str, **options: Any) -> None:
    estimator = _estimator(kind, **options)

    def sde(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return estimator.drift_fn(x, t) * torch.ones_like(x), estimator.diffusion_fn(x, t)

    drift, g2 = rates_of_sde(sde)
    assert_schedule(partial(_levels, estimator), TIMES, path=SDES[kind], drift=drift, g2=g2)


def _loss(kind: str, weight_fn: str, weight: Any) -> None:
    """Denoising score matching, without its control variate; of a score that we give."""
    estimator = _estimator(kind, weight_fn=weight_fn)

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        def forward(input: Tensor, condition: Tensor, time: Tensor) -> Tensor:
            y: Tensor = network(input, time)
            return y

        # times have one axis where it trains, and spread over the entries of an event
        with patch.object(estimator, "forward", forward):
            ask = partial(estimator.loss, condition=CONDITION, control_variate=False)
            return drawn(lambda x: ask(x, times=t))(x0, noise)

    given = partial(weight, estimator) if weight else weights.x0_weight("score")
    levels = partial(_levels, estimator)
    assert_loss(loss, levels, TIMES, predicts="score", weight=given, event="sum")


def _times_g2(estimator: Any, step: weights.Step) -> Tensor:
    """The likelihood's weight, g^2 on the score; the rows are TIMES in order."""
    times = torch.tensor(TIMES, dtype=torch.float64)
    g2: Tensor = estimator.diffusion_fn(times, times) ** 2
    return g2 * weights.x0_weight("score")(step)


def _flow_loss() -> None:
    """Of a standard normal's baseline: the error of the velocity is divided by sqrt(2)."""

    class Net(nn.Module):
        network: Callable[..., Tensor]

        def forward(self, x: Tensor, condition: Tensor, t: Tensor) -> Tensor:
            mean, deviation = estimator._get_time_dependent_stats(t)
            return self.network(mean + deviation * x, t) / 2**0.5

    net = Net()
    estimator = _estimator("FlowMatchingEstimator", net)

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        net.network = network
        condition = CONDITION.expand(len(x0), 1)
        return drawn(lambda x: estimator.loss(x, condition, times=t))(x0, noise)

    def half(step: weights.Step) -> Tensor:
        return weights.x0_weight("flow")(step) / 2

    assert_loss(loss, _straight(1e-3), TIMES, predicts="flow", weight=half)


def _straight(noise_scale: float) -> Callable[[Any], tuple[Any, Any]]:
    """theta_t = (1 - t) theta_0 + (t + noise_scale) theta_1, as its loss has it."""

    def levels(t: Any) -> tuple[Tensor, Tensor]:
        time = torch.as_tensor(t, dtype=torch.float64)
        return 1 - time, time + noise_scale

    return levels


def _flow_score(noise_scale: float) -> None:
    estimator = _estimator("FlowMatchingEstimator", noise_scale=noise_scale)

    def score(x_t: Tensor, flow: Tensor, t: float) -> Any:
        with patch.object(estimator, "forward", lambda *given, **named: flow):
            return estimator.score(x_t, CONDITION, torch.tensor([t], dtype=torch.float64))

    assert_prediction_maps({"score_from_flow": score}, _straight(noise_scale), TIMES, batched=False)


def _predictor(estimator: Any, score: Callable[..., Any]) -> Any:
    """EulerMaruyama, of a potential whose gradient is a score of ours."""
    predictors = _module("sbi.samplers.score.predictors")
    potential = SimpleNamespace(
        gradient=score, vector_field_estimator=estimator, device=torch.device("cpu")
    )
    return predictors.EulerMaruyama(potential)


def _corrector() -> None:
    """Langevin at a time keeps that time's law, but for the step's own known shift."""
    estimator = _estimator("VPScoreEstimator")
    data = Gaussian(torch.tensor([0.7, -0.4]).double(), torch.tensor([1.0, 0.3]).double())

    def at(t: Any) -> Gaussian:
        alpha, sigma = (float(level) for level in _levels(estimator, float(t)))
        return Gaussian(alpha * data.mean, alpha**2 * data.variance + sigma**2)

    def score(x: Tensor, t: Tensor) -> Tensor:
        return (at(t).mean - x) / at(t).variance

    correctors = _module("sbi.samplers.score.correctors")
    predictor = _predictor(estimator, score)
    corrector = correctors.LangevinCorrector(predictor, step_size=0.05, num_steps=1)
    now, before = torch.tensor(0.2).double(), torch.tensor(0.4).double()
    keeps = langevin_law.ula_stationary(at(now), 0.05)

    def kernel(x: Tensor) -> Any:
        return corrector(x, now, before)  # as Diffuser.run calls it after a step to `now`

    assert_stationary(drawn(kernel), keeps.mean, keeps.variance.diag())


def _likelihood() -> None:
    """The neural ODE's log-density from t_min to t_max."""
    estimator = _estimator("VPScoreEstimator")
    build = _module("sbi.samplers.ode_solvers").build_neural_ode

    def log_density(network: Any, x: Tensor) -> Any:
        def forward(input: Tensor, condition: Tensor, time: Tensor) -> Tensor:
            flat: Tensor = network(input.reshape(-1, 4), float(time.flatten()[0]))
            return flat.reshape(input.shape)

        with patch.object(estimator, "forward", forward):
            ode = build(
                estimator.ode_fn,
                estimator.net,
                estimator.mean_base.double(),
                estimator.std_base.double(),
                estimator.condition_shape,
                t_min=estimator.t_min,
                t_max=estimator.t_max,
            )
            return ode(CONDITION).log_prob(x[:, None]).flatten()

    levels = partial(_levels, estimator)
    assert_likelihood(log_density, levels, 1e-3, 1.0, predicts="score", tolerance=5e-3)


def sampler() -> Sampler:
    """The predictor from time to time, on the linear VP schedule."""
    schedule, estimator = VPLinear(0.01, 10.0), _estimator("VPScoreEstimator")

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        steps = pairwise(grid)

        def score(x: Tensor, t: Tensor) -> Tensor:
            return prediction.score_from_x0(schedule, x, denoise(x, t), t)

        predictor = _predictor(estimator, score)
        states = [x]
        with patch.object(torch, "randn_like", lambda like: noise(like, *next(steps))):
            for t, s in pairwise(grid):
                states.append(predictor(states[-1], t, s))
        return states[1:]

    def grid(n: int) -> Tensor:
        return trailing(schedule, n, end=1e-3)

    return Sampler("EulerMaruyama", schedule, sample, grid, 1, noisy=True, exact=False)


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """The SDEs, losses, scores, the corrector and the neural ODE; the predictor."""
    _module("sbi.neural_nets.estimators.score_estimator")
    each: dict[tuple[str, str], Callable[[], Any]] = {}
    for kind in list(SDES)[:3]:
        each[kind, "schedule"] = partial(_schedule, kind)
        each[f"{kind}.loss", "loss"] = partial(_loss, kind, "identity", None)
    flow = "FlowMatchingEstimator"
    each |= {
        (f"{flow}, noise_scale = 0", "schedule"): partial(_schedule, flow, noise_scale=0.0),
        (flow, "schedule"): partial(_schedule, flow),
        (f"{flow}.loss", "loss"): _flow_loss,
        (f"{flow}.score, noise_scale = 0", "prediction_maps"): partial(_flow_score, 0.0),
        (f"{flow}.score", "prediction_maps"): partial(_flow_score, 1e-3),
        ("max_likelihood weight", "loss"): partial(
            _loss, "VPScoreEstimator", "max_likelihood", _times_g2
        ),
        ("variance weight", "loss"): partial(
            _loss,
            "VPScoreEstimator",
            "variance",
            lambda estimator, step: weights.WEIGHTS["simple"](step),
        ),
        ("LangevinCorrector", "stationary"): _corrector,
        ("build_neural_ode", "likelihood"): _likelihood,
    }
    limits = dict.fromkeys((flow, f"{flow}.score"), NOISE_SCALE)
    yield from formulas_of("sbi", "defaults", each, limits)
    who = Origin("sbi", version("sbi"), "defaults")
    yield Subject(sampler(), who, again("sbi"))
