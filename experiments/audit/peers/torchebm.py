"""torchebm: interpolants, losses, averages, guidance, Markov kernels, and its flow sampler.

Its time runs from noise at 0 to data at 1; here a time is 1 minus that.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_math import prediction
from diffusion_math.testing import (
    assert_average,
    assert_forward,
    assert_loss,
    assert_prediction_maps,
    assert_schedule,
    drawn,
    weights,
)
from diffusion_math.testing.adaptors import shaped
from diffusion_math.testing.verdicts import Origin
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers.torchebm_flow import (
    SCHEDULES,
    encode,
    guided_model,
    law,
    off_by_a_thousandth,
    plan,
    sampler,
)
from experiments.audit.peers.torchebm_kernels import hmc, langevin, metric, restarts
from experiments.audit.subject import Subject, again

TIMES = [k / 20 for k in range(1, 20)]
PATHS: dict[str, Any] = {
    "linear": "straight",
    "cosine": "variance-preserving",
    "vp": "variance-preserving",
}
"""Each interpolant, and the path that its name claims."""

INTEGRATORS = {"euler_maruyama": 1, "heun": 2, "midpoint": 2, "rk4": 4, "rk438": 4}
"""Of fixed steps, and their orders. dopri5, dopri8, bosh3 and adaptive_heun choose their steps."""

UNTRIED = {
    "datasets, models": "data and networks",
    "GradientDescentSampler, NesterovSampler": "they look for a minimum, and keep no density",
    "SinkhornCoupling, UnbalancedSinkhornCoupling, GreedyCoupling": "approximate by what they say",
    "the contrastive term of EnergyMatchingLoss": "its chains are shorter than any to a limit",
}
"""What it exports and no row is about: why."""


def _path(name: str) -> Any:
    return import_module("torchebm.interpolants").get_interpolant(name)


def _levels(name: str, t: Any) -> tuple[Tensor, Tensor]:
    time = 1 - torch.as_tensor(t, dtype=torch.float64)
    return _path(name).compute_alpha_t(time)[0], _path(name).compute_sigma_t(time)[0]


def _schedule(name: str) -> None:
    """Levels; the velocity of the data and that of the noise as drift and g^2."""
    one, zero = torch.ones(1).double(), torch.zeros(1).double()

    def rates(t: float) -> tuple[float, float]:
        time = torch.tensor([1 - t]).double()
        time[0] = 1 - t
        alpha, sigma = (float(level) for level in _levels(name, t))
        f = -float(_path(name).interpolate(zero, one, time)[1]) / alpha
        return f, -2 * sigma * float(_path(name).interpolate(one, zero, time)[1]) - 2 * f * sigma**2

    levels, path = partial(_levels, name), PATHS[name]
    drift, g2 = (lambda t: rates(t)[0]), (lambda t: rates(t)[1])
    assert_schedule(levels, TIMES, path=path, drift=drift, g2=g2)


def _diffusion(name: str) -> None:
    """D = g^2 / 2 of score-based diffusion, which dx = ... + sqrt(2 D) dw has."""

    def g2(t: float) -> float:
        x = torch.zeros(1, 1).double()
        return 2 * float(_path(name).compute_diffusion(x, x[0] + 1 - t, form="SBDM"))

    assert_schedule(partial(_levels, name), TIMES, g2=g2)


def _forward(name: str, event: tuple[int, ...]) -> None:
    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x_t: Tensor = _path(name).interpolate(noise, x0, 1 - t)[0]
        return x_t

    assert_forward(shaped(q_sample, event), partial(_levels, name), TIMES)


def _conversions(name: str) -> None:
    path = _path(name)

    def eps_from_score(x_t: Tensor, score: Tensor, t: Tensor) -> Any:
        velocity = path.score_to_velocity(score, x_t, 1 - t)
        return path.velocity_to_noise(velocity, x_t, 1 - t)

    def score_from_eps(x_t: Tensor, eps: Tensor, t: Tensor) -> Any:
        x0 = prediction.x0_from_eps(SCHEDULES[name], x_t, eps, t)
        return path.velocity_to_score(path.interpolate(eps, x0, 1 - t)[1], x_t, 1 - t)

    maps = {"eps_from_score": eps_from_score, "score_from_eps": score_from_eps}
    assert_prediction_maps(maps, partial(_levels, name), TIMES)


def _loss(kind: str, predicts: str, factor: float, weight: Any, **options: Any) -> None:
    """A loss of the path's velocity, which is minus a flow, or of what is predicted."""
    make = getattr(import_module("torchebm.losses"), kind)
    name = options.get("interpolant", "linear")

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        class Model(nn.Module):
            def forward(self, x: Tensor, *_: Any) -> Tensor:
                y: Tensor = factor * network(x, t)
                if kind == "EnergyMatchingLoss":
                    return -(x * y).sum(1)
                if kind == "EquilibriumMatchingLoss" and predicts == "flow":
                    y = losses._compute_ct(1 - t)[:, None] * y
                return y

        given: dict[str, Any] = {"t_sampler": lambda batch, **_: 1 - t, "dtype": torch.float64}
        losses = make(model=Model(), **given, **options)
        found: Tensor = losses(x0, x0=noise)
        return found

    assert_loss(loss, partial(_levels, name), TIMES, predicts=predicts, weight=weight)


def _denoising() -> None:
    """Of one noise level: half the squared error of the score, which is minus dE / dx."""
    losses = import_module("torchebm.losses")

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        class Energy(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                energy: Tensor = -(x * network(x, t)).sum(1)
                return energy

        matching = losses.DenoisingScoreMatching(Energy(), noise_scale=0.3, dtype=torch.float64)
        return drawn(matching)(x0, noise)

    assert_loss(
        loss,
        lambda t: (1.0, 0.3),
        [0],
        predicts="score",
        weight=lambda step: weights.x0_weight("score")(step) / 2,
        event="sum",
    )


def _matching(kind: str, event: tuple[int, ...], dtype: torch.dtype, **options: Any) -> None:
    """Of E = |x|^2 at points with one entry other than 0: mean |x|^2 * 2 - 2 D (JMLR 6, 695)."""
    losses = import_module("torchebm.losses")

    class Energy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1:] == event, f"an event {event} is given to the model as {x.shape[1:]}"
            return x.square().flatten(1).sum(1)

    x = 3 * torch.eye(4, dtype=dtype).repeat(1000, 1).reshape(-1, *event)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = float(getattr(losses, kind)(Energy(), dtype=dtype, **options)(x))
    wanted = float(2 * x.square().flatten(1).sum(1).mean()) - 2 * 4
    assert abs(found - wanted) < 0.05 * abs(wanted), f"the loss is {found:.5g}, not {wanted:.5g}"


def _average(start: Callable[[nn.Module], Callable[[nn.Module], nn.Module]], decay: Any) -> None:
    def begin(w: Tensor) -> Callable[[Tensor], Tensor]:
        model = nn.ParameterList([nn.Parameter(w)])
        step = start(model)

        def update(w: Tensor) -> Tensor:
            model[0].data = w
            average: Tensor = next(step(model).parameters()).data
            return average

        return update

    assert_average(begin, decay)


def _ema(schedule: str, model: nn.Module) -> Callable[[nn.Module], nn.Module]:
    ema = import_module("torchebm.utils.ema").EMA(model, 0.9, schedule)

    def step(model: nn.Module) -> nn.Module:
        ema.update(model)
        average: nn.Module = ema.module
        return average

    return step


def _update_ema(model: nn.Module) -> Callable[[nn.Module], nn.Module]:
    average = nn.ParameterList([nn.Parameter(one.clone()) for one in model.parameters()])

    def step(model: nn.Module) -> nn.Module:
        import_module("torchebm.utils.training").update_ema(average, model, 0.9)
        return average

    return step


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Interpolants, losses, averages, kernels; the flow sampler's integrators and defaults."""
    rows = partial(formulas_of, "torchebm")
    for name in PATHS:
        each = {
            ("interpolate", "schedule"): partial(_schedule, name),
            ("compute_diffusion", "schedule"): partial(_diffusion, name),
            ("interpolate of vectors", "forward"): partial(_forward, name, (4,)),
            ("interpolate of images", "forward"): partial(_forward, name, (1, 2, 2)),
            ("velocity_to_score", "prediction_maps"): partial(_conversions, name),
        }
        yield from rows(name, each)
    yield from _losses()
    double, single = torch.float64, torch.float32
    matchings: dict[str, tuple[str, tuple[int, ...], torch.dtype, dict[str, Any]]] = {
        "exact": ("ScoreMatching", (4,), double, {}),
        "exact, images": ("ScoreMatching", (1, 2, 2), double, {}),
        "approx": ("ScoreMatching", (4,), double, {"hessian_method": "approx"}),
        "sliced": ("SlicedScoreMatching", (4,), single, {}),
        "sliced, images": ("SlicedScoreMatching", (1, 2, 2), single, {}),
    }
    for setting, (kind, event, dtype, options) in matchings.items():
        run = partial(_matching, kind, event, dtype, **options)
        yield from rows(setting, {(kind, "loss"): run})
    yield from rows(
        "defaults",
        {
            ("DenoisingScoreMatching", "loss"): _denoising,
            ("EMA", "average"): partial(_average, partial(_ema, "constant"), 0.9),
            ("EMA, warmup", "average"): partial(
                _average, partial(_ema, "warmup"), lambda n: min(0.9, n / (9 + n))
            ),
            ("update_ema", "average"): partial(_average, _update_ema, 0.9),
            ("ClassifierFreeGuidance", "guided"): guided_model,
            ("LangevinDynamics", "stationary"): partial(langevin, 1.0),
            ("LangevinDynamics, noise_scale", "stationary"): partial(langevin, 0.5),
            ("HamiltonianMonteCarlo", "invariant"): partial(hmc, "HamiltonianMonteCarlo"),
            ("HamiltonianMonteCarlo, mass", "invariant"): partial(
                hmc, "HamiltonianMonteCarlo", mass=torch.tensor([2.0, 0.5])
            ),
            ("RiemannianManifoldHMC", "invariant"): partial(
                hmc, "RiemannianManifoldHMC", metric_fn=metric
            ),
            ("ContrastiveDivergence, new_sample_ratio", "restarts"): restarts,
            ("ExactOTCoupling", "pairs"): plan,
            ("FlowSampler, reverse", "inversion"): encode,
            ("FlowSampler, noise", "deviation"): partial(off_by_a_thousandth, integrator="heun"),
        },
    )
    for name in PATHS:
        each = {("FlowSampler, sde", "deviation"): partial(law, name)}
        yield from rows(name, each)
    cases: list[tuple[Any, ...]] = list(INTEGRATORS.items())
    cases += [("rk4", 4, name) for name in ("cosine", "vp")]
    for given in cases[:1] if quick else cases:
        yield _subject(*given)
    for name in () if quick else PATHS:
        for kind in ("noise", "score"):
            yield _subject("heun", 2, name, kind, sample_eps=1e-3)


def _subject(*given: Any, **options: Any) -> Subject:
    setting = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "defaults"
    who = Origin("torchebm", version("torchebm"), setting)
    return Subject(sampler(*given, **options), who, again("torchebm_flow", *given, **options))


def _losses() -> Iterator[Formula]:
    """FlowMatching, EquilibriumMatching and EnergyMatching, of what each predicts."""
    flow, eps = weights.x0_weight("flow"), weights.x0_weight("eps")
    half_pi = torch.pi / 2
    cut: Any = lambda step: (step.sigma_t / 0.2).clamp(max=1)  # noqa: E731
    fm, eqm, em = "FlowMatchingLoss", "EquilibriumMatchingLoss", "EnergyMatchingLoss"
    cases: dict[tuple[str, str], tuple[str, float, Any, dict[str, Any]]] = {
        (fm, "linear"): ("flow", -1.0, None, {}),
        (fm, "negated"): ("flow", 1.0, None, {"negate_velocity": True}),
        (fm, "cosine"): (
            "v",
            -half_pi,
            lambda step: half_pi**2 * weights.x0_weight("v")(step),
            {"interpolant": "cosine"},
        ),
        (eqm, "velocity"): ("flow", 1.0, lambda step: 16 * cut(step) ** 2 * flow(step), {}),
        (eqm, "noise"): ("eps", 1.0, None, {"prediction": "noise"}),
        (eqm, "score"): ("score", 1.0, eps, {"prediction": "score"}),
        (eqm, "noise, velocity weight"): (
            "eps",
            1.0,
            flow,
            {"prediction": "noise", "loss_weight": "velocity"},
        ),
        (eqm, "noise, likelihood weight"): (
            "eps",
            1.0,
            lambda step: eps(step) / step.alpha_t / step.sigma_t,
            {"prediction": "noise", "loss_weight": "likelihood"},
        ),
        (em, "flow term"): (
            "flow",
            -1.0,
            lambda step: cut(step) * flow(step),
            {"lambda_cd": 0.0, "sigma": 0.0, "coupling": "independent"},
        ),
    }
    for (kind, setting), (predicts, factor, weight, options) in cases.items():
        run = partial(_loss, kind, predicts, factor, weight, **options)
        yield from formulas_of("torchebm", setting, {(kind, "loss"): run})
