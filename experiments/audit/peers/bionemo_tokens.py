"""bionemo-moco's interpolants of tokens and its times: what must hold for an exact network."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

CLASSES, MASK = 4, 3
TOKENS = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]])


def part(name: str) -> Any:
    """A module of the library; its schedules can't be imported before its interpolants."""
    import_module("bionemo.moco.interpolants")
    return import_module(f"bionemo.moco.{name}")


def close(got: Any, wanted: Any, tolerance: float = 1e-3) -> None:
    """AssertionError unless both are the same to a tolerance."""
    got, wanted = torch.as_tensor(got).double(), torch.as_tensor(wanted).double()
    off = (got - wanted).abs().max()
    assert bool(off <= tolerance), f"got {got.flatten()[:6].tolist()}, expected {wanted.tolist()}"


def of_tokens() -> dict[tuple[str, str], Callable[[], Any]]:
    """D3PM's bound and posterior; the rate, the score and the counts of MDLM."""
    d3pm = _of(
        "D3PM",
        "DiscreteUniformPrior",
        part("schedules.noise.discrete_noise_schedules").DiscreteLinearNoiseSchedule(20, 0.01, 0.3),
    )
    mdlm = _of(
        "MDLM",
        "DiscreteMaskedPrior",
        part("schedules.noise.continuous_noise_transforms").LogLinearExpNoiseTransform(),
    )
    exact = 40 * torch.nn.functional.one_hot(TOKENS, CLASSES).double()
    masked, one = torch.full_like(TOKENS, MASK), torch.ones(1).double()
    plain = torch.tensor([1.0, 0.5, -1.0, 0.0]).double().expand(1, 10, CLASSES)

    def bound() -> None:
        """The bound is 0 where the network is right."""
        for t in (1, 5, 19):
            given = exact.float(), TOKENS, TOKENS.roll(1), torch.tensor([t])
            close(d3pm.loss(*given, vb_scale=1.0) - d3pm.loss(*given), 0.0)

    def posterior() -> None:
        """Bayes' rule from the library's own transition matrices."""
        for t in (1, 5, 19):
            x_t, at = TOKENS.roll(1), torch.tensor([t])
            got = d3pm._q_posterior_logits(exact.float(), at, x_t).softmax(-1)
            both = d3pm._Qt[t].T[x_t] * d3pm._Qt_bar[t - 1][TOKENS]
            close(got, both / both.sum(-1, keepdim=True))

    def rate(temperature: float) -> None:
        """The share of masked tokens that a step unmasks, which no temperature changes."""
        alpha = [mdlm.noise_schedule.calculate_sigma(t).neg().exp() for t in (0.4 * one, 0.8 * one)]
        with patch.object(mdlm, "_sample_categorical", return_value=masked) as drawn:
            mdlm.step(plain.clone(), 0.8 * one, masked, 0.4 * one, temperature=temperature)
        weights: Tensor = drawn.call_args[0][0][0, 0]
        close(1 - weights[MASK] / weights.sum(), (alpha[0] - alpha[1]) / (1 - alpha[1]))

    def score() -> None:
        """Logits are known up to a constant."""
        first, other = (mdlm.calculate_score(plain + c, masked, 0.5 * one) for c in (0.0, 1.0))
        close(other[0, 0], first[0, 0])

    def count() -> None:
        steps = mdlm.get_num_steps_confidence(masked, 3)
        assert 3 * steps >= 10, f"got {steps} steps of 3 tokens each, expected 4 for 10 tokens"

    return {
        ("D3PM.loss(vb_scale=1)", "bound"): bound,
        ("D3PM.step", "posterior"): posterior,
        ("MDLM.step", "rate"): lambda: rate(1.0),
        ("MDLM.step(temperature=0.5)", "rate"): lambda: rate(0.5),
        ("MDLM.calculate_score", "score"): score,
        ("MDLM.get_num_steps_confidence", "count"): count,
        ("MDLM.step_confidence(num_steps=1)", "runs"): lambda: mdlm.step_confidence(
            plain.clone(), masked, 0, 1
        ),
    }


def of_times() -> dict[tuple[str, str], Callable[[], Any]]:
    """Times to sample at, and the ranges of random times."""
    schedules = part("schedules.inference_time_schedules")
    found: dict[tuple[str, str], Callable[[], Any]] = {}
    for kind in ("DiscreteLinear", "Linear", "Power", "Log"):
        name = f"{kind}InferenceSchedule"
        make = getattr(schedules, name)
        found[f"{name}(dilation=1)", "number of steps"] = partial(_number, make)
        if kind != "DiscreteLinear":
            more = {"exponent": 2.0} if kind == "Power" else {}
            found[f"{name}(min_t=0.1)", "range"] = partial(_least, make, more)
    for kind in ("Uniform", "SymmetricUniform", "Beta", "LogitNormal"):
        name = f"{kind}TimeDistribution"
        make = getattr(part(f"distributions.time.{MODULES.get(kind, 'uniform')}"), name)
        found[f"{name}(max_t=0.5)", "range"] = partial(_most, make)

    def entropic() -> None:
        """Data of deviation 0.1, whose flow is v = (t 0.01 - (1 - t)) x / variance."""

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            return (0.01 * t - (1 - t)) * x / (0.01 * t**2 + (1 - t) ** 2)

        def normals(n: int) -> Tensor:
            return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))

        grid = schedules.EntropicInferenceSchedule(
            velocity, normals, lambda n: 0.1 * normals(n), nsteps=10
        ).generate_schedule()
        close(grid[0], 0.0)

    return found | {("EntropicInferenceSchedule", "grid"): entropic}


def _number(make: Any) -> None:
    close(len(make(10, dilation=1).generate_schedule()), 10)


def _least(make: Any, more: dict[str, Any]) -> None:
    close(make(10, min_t=0.1, **more).generate_schedule().min(), 0.1)


def _most(make: Any) -> None:
    t = make(min_t=0.0, max_t=0.5).sample(1000)
    assert t.max() <= 0.5, f"got times up to {float(t.max()):.2f}, expected up to 0.5"


MODULES = {"Beta": "beta", "LogitNormal": "logit_normal"}


def _of(kind: str, prior: str, schedule: Any) -> Any:
    """An interpolant of tokens, of four classes."""
    times = part("distributions.time.uniform").UniformTimeDistribution()
    return getattr(part("interpolants"), kind)(
        times, getattr(part("distributions.prior"), prior)(CLASSES), schedule
    )
