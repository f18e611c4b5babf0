"""torchcfm's flow matchers: paths from noise at its t = 0 to data at 1, velocities, couplings."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing import (
    assert_forward,
    assert_loss,
    assert_posterior,
    assert_prediction_maps,
    assert_schedule,
    drawn,
)
from diffusion_math.testing.adaptors import shaped
from experiments.audit.formula import Formula, formulas_of

TIMES = [k / 20 for k in range(1, 20)]
"""One minus theirs."""

PATHS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "ConditionalFlowMatcher": lambda t: (1 - t, t),
    "TargetConditionalFlowMatcher": lambda t: (1 - t, 1 - 0.9 * (1 - t)),
    "VariancePreservingConditionalFlowMatcher": lambda t: (
        (torch.pi / 2 * (1 - t)).sin(),
        (torch.pi / 2 * (1 - t)).cos(),
    ),
}
"""(alpha, sigma) of each by its docstring; the second is that of sigma = 0.1, from no source."""

UNTRIED = {
    "models": "networks",
    "utils": "data sets and plots, by torchdyn",
    "OTPlanSampler of sinkhorn, unbalanced and partial": "the plans are POT's own",
}
"""What it exports and no row is about: why."""


def _matcher(kind: str, **options: Any) -> Any:
    return getattr(import_module("torchcfm"), kind)(**options)


def _sigma(kind: str) -> float:
    return 0.1 if kind.startswith("Target") else 0.0


def _levels(kind: str, t: Any) -> tuple[Tensor, Tensor]:
    """Of the data and of the noise."""
    return PATHS[kind](torch.as_tensor(t, dtype=torch.float64))


def _forward(kind: str, event: tuple[int, ...]) -> None:
    """From the source, which is the noise; the target matcher adds noise and has no source."""
    matcher = _matcher(kind, sigma=_sigma(kind))

    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        def x_t() -> Tensor:
            found: Tensor = matcher.sample_location_and_conditional_flow(noise, x0, 1 - t)[1]
            return found

        result: Tensor = drawn(x_t)(noise)
        return result

    assert_forward(shaped(q_sample, event), partial(_levels, kind), TIMES)


def _around(kind: str) -> None:
    """The noise of deviation sigma around the path, which here is of the data alone."""
    matcher = _matcher(kind, sigma=0.1)

    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        return matcher.sample_xt(torch.zeros_like(x0), x0, 1 - t, noise)

    assert_forward(q_sample, lambda t: (_levels(kind, t)[0], 0.1), TIMES)


def _velocity(kind: str) -> None:
    """The velocity of the data and that of the noise, as drift and g^2."""
    matcher = _matcher(kind, sigma=_sigma(kind))

    def rates(t: float) -> tuple[float, float]:
        one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
        time = torch.tensor([1 - t], dtype=torch.float64)
        alpha, sigma = (float(level) for level in _levels(kind, t))

        def along(noise: Tensor, data: Tensor) -> float:
            x_t = alpha * data + sigma * noise
            return -float(matcher.compute_conditional_flow(noise, data, time, x_t))

        f = along(zero, one) / alpha
        return f, 2 * sigma * along(one, zero) - 2 * f * sigma**2

    assert_schedule(
        partial(_levels, kind),
        TIMES,
        drift=lambda t: rates(t)[0],
        g2=lambda t: rates(t)[1],
    )


def _loss() -> None:
    """As its examples train: the squared error of a network's velocity, which is minus a flow."""
    kind = "ConditionalFlowMatcher"
    matcher = _matcher(kind, sigma=0.0)

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        _, x_t, u_t = matcher.sample_location_and_conditional_flow(noise, x0, 1 - t)
        return torch.as_tensor((-network(x_t, t) - u_t).square().mean())

    assert_loss(loss, partial(_levels, kind), TIMES, predicts="flow")


def _bridge() -> None:
    """Between two samples, a Brownian bridge: q(x_s | x_1, x_0) of dx = sigma dw."""
    matcher = _matcher("SchrodingerBridgeConditionalFlowMatcher", sigma=0.7)

    def posterior(x0: Tensor, x_1: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        none = torch.zeros_like(x0)
        return matcher.sample_xt(x0, x_1, s, none), matcher.sample_xt(none, none, s, none + 1)

    times = [*TIMES, 1.0]
    assert_posterior(
        posterior,
        lambda t: (1.0, 0.7 * torch.as_tensor(t, dtype=torch.float64).sqrt()),
        times,
        spread="deviation",
        pairs=[(1.0, s) for s in TIMES],
    )


def _bridge_velocity() -> None:
    """u_t of a point x0 = x1 = 0 is x_t d log(sigma_t) / dt."""
    matcher = _matcher("SchrodingerBridgeConditionalFlowMatcher", sigma=0.7)
    zero = torch.zeros(1, 1).double()

    def growth(t: float) -> float:
        time = torch.tensor([t], dtype=torch.float64)
        return float(matcher.compute_conditional_flow(zero, zero, time, zero + 1))

    def levels(t: Any) -> tuple[Tensor, Tensor]:
        sigma = matcher.compute_sigma_t(torch.as_tensor(t, dtype=torch.float64))
        return torch.ones(()), sigma

    early = [k / 40 for k in range(1, 20)]  # sigma rises
    assert_schedule(levels, early, g2=lambda t: 2 * growth(t) * float(levels(t)[1]) ** 2)


def _weight() -> None:
    """lambda(t) of a network of sigma^2 / 2 times the score: lambda times that is -eps."""
    matcher = _matcher("SchrodingerBridgeConditionalFlowMatcher", sigma=1.0)

    def eps(x_t: Tensor, score: Tensor, t: Tensor) -> Tensor:
        return torch.as_tensor(-matcher.compute_lambda(t)[:, None] * score * matcher.sigma**2 / 2)

    def levels(t: Any) -> tuple[float, Tensor]:
        return 1.0, matcher.compute_sigma_t(torch.as_tensor(t))

    early = [k / 40 for k in range(1, 20)]
    assert_prediction_maps({"eps_from_score": eps}, levels, early, dtype=torch.float32)


def _plan() -> None:
    """Of two sets that are one another's shift, the exact plan pairs each with its own."""
    sampler = import_module("torchcfm.optimal_transport").OTPlanSampler("exact")
    x0 = torch.arange(64.0).reshape(16, 4).flip(0)
    a, b = sampler.sample_plan(x0, x0.flip(0) + 0.1)
    assert bool(torch.isclose(b, a + 0.1).all()), "the exact plan does not pair shifted points"
    y0, y1 = torch.arange(16), torch.arange(16).flip(0)
    _, _, y0, y1 = sampler.sample_plan_with_labels(x0, x0.flip(0) + 0.1, y0, y1)
    assert bool((y0 == y1).all()), "labels are not paired as their points are"


def subjects(quick: bool) -> Iterator[Formula]:
    """Paths, their velocities, the loss and the bridge."""
    for kind in PATHS:
        each = {
            (f"{kind}.sample_xt", "forward"): partial(_forward, kind, (4,)),
            (f"{kind}.sample_xt of images", "forward"): partial(_forward, kind, (1, 2, 2)),
            (f"{kind}.compute_conditional_flow", "schedule"): partial(_velocity, kind),
        }
        yield from formulas_of("torchcfm", f"sigma = {_sigma(kind):g}", each)
        if not _sigma(kind):
            around = {(f"{kind}.sample_xt", "forward"): partial(_around, kind)}
            yield from formulas_of("torchcfm", "sigma = 0.1", around)
    bridge = "SchrodingerBridgeConditionalFlowMatcher"
    yield from formulas_of(
        "torchcfm",
        "defaults",
        {
            ("ConditionalFlowMatcher", "loss"): _loss,
            (f"{bridge}.sample_xt", "posterior"): _bridge,
            (f"{bridge}.compute_conditional_flow", "schedule"): _bridge_velocity,
            (f"{bridge}.compute_lambda", "prediction_maps"): _weight,
            ("OTPlanSampler.sample_plan", "pairs"): _plan,
        },
    )
