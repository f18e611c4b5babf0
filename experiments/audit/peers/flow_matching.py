"""flow_matching (Meta): paths, their schedulers and conversions, ODE solvers and likelihoods.

Its time runs from noise at 0 to data at 1; here a time is 1 minus that.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise
from diffusion_math.schedule import RectifiedFlow, VPCosine
from diffusion_math.testing import (
    assert_forward,
    assert_likelihood,
    assert_prediction_maps,
    assert_schedule,
)
from diffusion_math.testing.adaptors import of_velocity, shaped
from diffusion_math.testing.sampler import Sampler
from diffusion_math.testing.verdicts import Origin
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.subject import Subject, again

TIMES = [k / 20 for k in range(1, 20)]
Case = tuple[str, dict[str, float], Literal["straight", "variance-preserving"]]
SCHEDULERS: dict[str, Case] = {
    "CondOTScheduler": ("CondOTScheduler", {}, "straight"),
    "PolynomialConvexScheduler, n = 3": ("PolynomialConvexScheduler", {"n": 3}, "straight"),
    "PolynomialConvexScheduler, n = 0.5": ("PolynomialConvexScheduler", {"n": 0.5}, "straight"),
    "VPScheduler": ("VPScheduler", {}, "variance-preserving"),
    "VPScheduler, one beta": (
        "VPScheduler",
        {"beta_min": 1.0, "beta_max": 1.0},
        "variance-preserving",
    ),
    "LinearVPScheduler": ("LinearVPScheduler", {}, "variance-preserving"),
    "CosineScheduler": ("CosineScheduler", {}, "variance-preserving"),
}
"""Each setting's class, options, and the path that its name claims."""

SOLVERS = {"euler": 1, "midpoint": 2, "heun3": 3, "rk4": 4}
"""Fixed-step methods that the documentation names, and their orders."""

LAST = 1e-3
"""The last time of grids: methods of order 3 and 4 evaluate the velocity there."""

UNTRIED = {
    "GeodesicProbPath, Sphere, FlatTorus": "a path on a manifold has no (alpha, sigma)",
    "MixturePathGeneralizedKL": "its target is a probability of tokens, not a squared error",
}
"""What it exports and no row is about: why."""


def _scheduler(kind: str) -> Any:
    name, options, _ = SCHEDULERS[kind]
    return getattr(import_module("flow_matching.path.scheduler"), name)(**options)


def _levels(scheduler: Any, t: Any) -> tuple[Any, Any]:
    at = scheduler(_theirs(t))
    return at.alpha_t, at.sigma_t


def _theirs(t: Any) -> Tensor:
    return 1 - (t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64))


def sampler(method: str, order: int, manifold: bool = False) -> Sampler:
    """`ODESolver.sample`, or the Riemannian one in the plane, on the times of any grid."""
    solver = import_module("flow_matching.solver")
    flat = import_module("flow_matching.utils.manifolds").Euclidean()

    def sample(v: Callable[..., Tensor], x: Tensor, times: Tensor) -> Tensor:
        kind = partial(solver.RiemannianODESolver, flat) if manifold else solver.ODESolver
        field = kind(velocity_model=lambda x, t: v(x, t))
        end: Tensor = field.sample(x, None, method=method, time_grid=times)
        return end

    flow = RectifiedFlow()
    name = f"{'RiemannianODESolver' if manifold else 'ODESolver'}({method})"
    return Sampler(name, flow, of_velocity(sample), lambda n: trailing(flow, n, end=LAST), order)


def _schedule(kind: str) -> None:
    """Levels, their derivatives by the velocity of a sample, and the inverse."""
    path = import_module("flow_matching.path").AffineProbPath(_scheduler(kind))

    def rates(t: float) -> tuple[float, float]:
        """Drift and g^2 by our time, of the velocity of the data and that of the noise."""
        one, zero, time = torch.ones(1).double(), torch.zeros(1).double(), _theirs(t)[None]
        alpha, sigma = (float(level) for level in _levels(path.scheduler, t))
        f = -float(path.sample(x_0=zero, x_1=one, t=time).dx_t) / alpha
        growth = -float(path.sample(x_0=one, x_1=zero, t=time).dx_t)
        return f, 2 * sigma * growth - 2 * f * sigma**2

    def inverse(log_snr: float) -> float:
        ratio = torch.tensor(log_snr / 2, dtype=torch.float64).exp()
        return float(1 - path.scheduler.snr_inverse(ratio))

    assert_schedule(
        partial(_levels, path.scheduler),
        TIMES,
        path=SCHEDULERS[kind][2],
        inverse=inverse,
        drift=lambda t: rates(t)[0],
        g2=lambda t: rates(t)[1],
    )


def _forward(kind: str, event: tuple[int, ...]) -> None:
    path = import_module("flow_matching.path").AffineProbPath(_scheduler(kind))

    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x_t: Tensor = path.sample(x_0=noise, x_1=x0, t=1 - t).x_t
        return x_t

    assert_forward(shaped(q_sample, event), partial(_levels, path.scheduler), TIMES)


def _conversions(kind: str) -> None:
    """Each to another, by way of the velocity too; a time is one number, as is documented."""
    path = import_module("flow_matching.path").AffineProbPath(_scheduler(kind))

    def of(*maps: str) -> Callable[..., Tensor]:
        def convert(x_t: Tensor, value: Tensor, t: float) -> Tensor:
            for name in maps:
                value = getattr(path, name)(value, x_t, _theirs(t))
            return value

        return convert

    check = partial(assert_prediction_maps, batched=False)
    levels = partial(_levels, path.scheduler)
    check({"x0_from_eps": of("epsilon_to_target")}, levels, TIMES)
    check({"eps_from_x0": of("target_to_epsilon")}, levels, TIMES)
    check({"x0_from_eps": of("epsilon_to_velocity", "velocity_to_target")}, levels, TIMES)
    check({"eps_from_x0": of("target_to_velocity", "velocity_to_epsilon")}, levels, TIMES)
    if kind == "CondOTScheduler":
        check({"velocity_from_x0": of("target_to_velocity")}, levels, TIMES)


def _likelihood(exact: bool, dtype: torch.dtype, event: tuple[int, ...]) -> None:
    """`ODESolver.compute_likelihood`, from the data at its t = 1 to a standard normal."""
    path = import_module("flow_matching.path").CondOTProbPath()
    solver = import_module("flow_matching.solver")

    def log_density(network: Callable[..., Tensor], x: Tensor) -> Tensor:
        def log_p0(z: Tensor) -> Tensor:
            normal: Any = torch.distributions.Normal(torch.zeros(4).to(z), 1.0)
            return torch.as_tensor(normal.log_prob(z.flatten(1)).sum(1))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return torch.as_tensor(path.epsilon_to_velocity(network(x, 1 - t), x, t))

        found: Tensor = solver.ODESolver(velocity_model=velocity).compute_likelihood(
            x, log_p0, 0.02, "midpoint", exact_divergence=exact
        )[1]
        return found

    levels = partial(_levels, path.scheduler)
    assert_likelihood(shaped(log_density, event), levels, 0.0, 1.0, tolerance=1e-3, dtype=dtype)


def transformed(method: str, order: int) -> Sampler:
    """`ScheduleTransformedModel`: a model of the straight path, sampled on the cosine's levels."""
    package = import_module("flow_matching.path")
    schedulers = import_module("flow_matching.path.scheduler")
    solver = import_module("flow_matching.solver")
    path, schedule = package.CondOTProbPath(), VPCosine()

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Tensor:
        def velocity(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = (level.flatten()[0] for level in _levels(path.scheduler, 1 - t))
            time = schedule.time(2 * (alpha / sigma).log())
            x0 = denoise(schedule(time)[0] / alpha * x, time)
            found: Tensor = path.target_to_velocity(x0, x, t)
            return found

        model = schedulers.ScheduleTransformedModel(
            velocity, path.scheduler, schedulers.CosineScheduler()
        )
        field = solver.ODESolver(velocity_model=model)
        end: Tensor = field.sample(x, None, method=method, time_grid=1 - grid)
        return end

    def grid(n: int) -> Tensor:
        return trailing(schedule, n, end=LAST)

    name = f"ScheduleTransformedModel({method})"
    return Sampler(name, schedule, sample, grid, order, exact=False)


def _late(manifold: bool) -> None:
    """Solving from the middle: of dx/dt = 1 from 1/2 to 1, x moves by 1/2."""
    solver = import_module("flow_matching.solver")
    flat = import_module("flow_matching.utils.manifolds").Euclidean()
    kind = partial(solver.RiemannianODESolver, flat) if manifold else solver.ODESolver
    field = kind(velocity_model=lambda x, t: torch.ones_like(x))
    end = field.sample(torch.zeros(1, 1), 0.125, time_grid=torch.tensor([0.5, 1.0]))
    assert abs(float(end) - 0.5) < 1e-6, f"from time 0.5 to 1, got {float(end):g}, expected 0.5"


class _Known:
    """What flow_matching calls a model of tokens: it is sure of token 1."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.ones_like(x), 3).double()


def _tokens(part: str) -> None:
    """Paths and samples of tokens, of which 0 becomes 1 with the probability t by time t."""
    package = import_module("flow_matching.path")
    schedulers = import_module("flow_matching.path.scheduler")
    solver = import_module("flow_matching.solver")
    path = package.MixtureDiscreteProbPath(schedulers.CondOTScheduler())
    ask = partial(
        solver.MixtureDiscreteEulerSolver(_Known(), path, 3, torch.ones(3) / 3).sample,
        torch.zeros(10000, dtype=torch.long),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if part == "path":
            noise = torch.zeros(1, 10000, dtype=torch.long)
            found = path.sample(x_0=noise, x_1=noise + 1, t=torch.tensor([0.25])).x_t
            _share(found, 0.25)
        elif part == "intermediates":
            found = ask(0.01, time_grid=torch.tensor([0, 0.5, 1.0]), return_intermediates=True)
            _share(found[1], 0.5)
        elif part == "intermediates, long steps":
            times = torch.linspace(0, 1, 5)
            assert len(ask(0.3, time_grid=times, return_intermediates=True)) == 5
        elif part == "an end before 1":
            _share(ask(0.01, time_grid=torch.tensor([0, 0.5])), 0.5)
        else:
            _share(ask(0.01, time_grid=torch.tensor([0.0, 1.0]), div_free=0.5), 1.0)


def _share(tokens: Tensor, wanted: float) -> None:
    """The share of 10000 independent tokens that are 1: 6 standard errors, and Euler's error."""
    got = float((tokens == 1).double().mean())
    assert abs(got - wanted) < 0.04, f"the share of tokens that are 1 is {got:.3g}, not {wanted:g}"


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Schedulers, paths and conversions; solvers; likelihoods; what is for tokens."""
    kinds = list(SCHEDULERS)[:1] if quick else SCHEDULERS
    for kind in kinds:
        each = {
            ("Scheduler", "schedule"): partial(_schedule, kind),
            ("AffineProbPath.sample", "forward"): partial(_forward, kind, (4,)),
            ("AffineProbPath.sample of images", "forward"): partial(_forward, kind, (1, 2, 2)),
            ("AffineProbPath", "prediction_maps"): partial(_conversions, kind),
        }
        yield from formulas_of("flow-matching", kind, each)
    name, double = "ODESolver.compute_likelihood", torch.float64
    for setting, case in {
        "exact divergence": (True, double, (4,)),
        "Hutchinson": (False, torch.float32, (4,)),
        "Hutchinson, images": (False, torch.float32, (1, 2, 2)),
        "Hutchinson, float64": (False, double, (4,)),
        "exact divergence, images": (True, double, (1, 2, 2)),
    }.items():
        each = {(name, "likelihood"): partial(_likelihood, *case)}
        yield from formulas_of("flow-matching", setting, each)
    late = {("ODESolver", "times"): partial(_late, False)}
    late[("RiemannianODESolver", "times")] = partial(_late, True)
    yield from formulas_of("flow-matching", "from the middle", late)
    for part in (
        "path",
        "intermediates",
        "intermediates, long steps",
        "an end before 1",
        "divergence-free term",
    ):
        name = "MixtureDiscreteProbPath" if part == "path" else "MixtureDiscreteEulerSolver"
        yield from formulas_of("flow-matching", part, {(name, "tokens"): partial(_tokens, part)})
    cases: list[tuple[Any, ...]]
    cases = [(sampler, method, order, False) for method, order in SOLVERS.items()]
    cases += [
        (sampler, method, order, True) for method, order in SOLVERS.items() if method != "heun3"
    ]
    for make, *given in cases[:1] if quick else cases:
        who = Origin("flow-matching", version("flow-matching"), "defaults")
        yield Subject(make(*given), who, again("flow_matching", *given))
    for method in () if quick else ("euler", "midpoint"):
        made = transformed(method, SOLVERS[method])
        who = Origin("flow-matching", version("flow-matching"), "defaults")
        lines = again("flow_matching", method, SOLVERS[method])
        yield Subject(made, who, lines.replace("sampler", "transformed"))
