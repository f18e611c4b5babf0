"""bionemo-moco's interpolants of tokens: what must hold for an exact network."""

from collections.abc import Callable
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
    noises = part("schedules.noise.continuous_noise_transforms")
    d3pm = _of(
        "D3PM",
        "DiscreteUniformPrior",
        part("schedules.noise.discrete_noise_schedules").DiscreteLinearNoiseSchedule(20, 0.01, 0.3),
    )
    mdlm = _of(
        "MDLM",
        "DiscreteMaskedPrior",
        noises.LogLinearExpNoiseTransform(),
    )
    exact = 40 * torch.nn.functional.one_hot(TOKENS, CLASSES).double()
    masked, one = torch.full_like(TOKENS, MASK), torch.ones(1).double()
    plain = torch.tensor([1.0, 0.5, -1.0, 0.0]).double().expand(1, 10, CLASSES)

    def bound() -> None:
        """The bound is 0 where the network is right."""
        for t in (1, 5, 19):
            given = exact.float(), TOKENS, TOKENS.roll(1), torch.tensor([t])
            close(d3pm.loss(*given, vb_scale=1.0) - d3pm.loss(*given), 0.0)

    def marginal() -> None:
        """x_t keeps its token with abar_t, else it is any of the four (arXiv:2107.03006, eq. 2)."""
        kept = (1 - torch.linspace(0.01, 0.3, 20)).cumprod(0)
        for t in (0, 5, 19):
            with patch.object(d3pm, "_sample_categorical", return_value=TOKENS) as drawn:
                d3pm.interpolate(TOKENS, torch.tensor([t]))
            wanted = kept[t] * torch.nn.functional.one_hot(TOKENS, CLASSES) + (1 - kept[t]) / 4
            close(drawn.call_args[0][0].softmax(-1), wanted)

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
        """x_theta alpha / (1 - alpha), of probabilities (arXiv:2406.07524, eq. 76)."""
        alpha = mdlm.noise_schedule.calculate_sigma(0.5 * one).neg().exp()
        wanted = plain[0, 0, :MASK].softmax(-1) * alpha / (1 - alpha)
        close(mdlm.calculate_score(plain, masked, 0.5 * one)[0, 0, :MASK], wanted)

    def nelbo(kind: str) -> None:
        """The weight of -log p is -alpha' / (1 - alpha) (arXiv:2406.07524, eq. 11)."""
        model = _of("MDLM", "DiscreteMaskedPrior", getattr(noises, kind)())
        for t in (0.1 * one, 0.5 * one, 0.9 * one):
            low, at, high = (
                model.noise_schedule.calculate_sigma(t + h).neg().exp() for h in (-1e-5, 0.0, 1e-5)
            )
            weighted, plainly = (
                model.loss(plain.clone(), TOKENS, masked, t, use_weight=use)
                for use in (True, False)
            )
            close(weighted / plainly, (low - high) / 2e-5 / (1 - at))

    def generator(prior: str) -> None:
        """One step moves q(x_t | x1 = 0) by dt dq/dt, whatever the stochasticity."""
        model = _of("DiscreteFlowMatcher", prior)
        start = torch.eye(CLASSES)[MASK] if model.use_mask else torch.full((CLASSES,), 1 / CLASSES)
        states, end = torch.arange(CLASSES)[None], torch.eye(CLASSES)[0]
        for eta in (0.0, 1.0, 5.0):
            with patch("torch.multinomial", return_value=states) as drawn:
                logits = 40 * end.expand(1, CLASSES, CLASSES).clone()
                model.step(logits, torch.tensor([0.4]), states, 1e-3, stochasticity=eta)
            q = 0.4 * end + 0.6 * start
            close((q @ drawn.call_args[0][0] - q) / 1e-3, end - start)

    def count() -> None:
        steps = mdlm.get_num_steps_confidence(masked, 3)
        assert 3 * steps >= 10, f"got {steps} steps of 3 tokens each, expected 4 for 10 tokens"

    return {
        ("D3PM.interpolate", "marginal"): marginal,
        ("MDLM.loss, CosineExpNoiseTransform", "weight"): lambda: nelbo("CosineExpNoiseTransform"),
        ("MDLM.loss, LogLinearExpNoiseTransform", "weight"): lambda: nelbo(
            "LogLinearExpNoiseTransform"
        ),
        ("DiscreteFlowMatcher.step, mask", "rate"): lambda: generator("DiscreteMaskedPrior"),
        ("DiscreteFlowMatcher.step, uniform", "rate"): lambda: generator("DiscreteUniformPrior"),
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


def _of(kind: str, prior: str, *schedule: Any) -> Any:
    """An interpolant of tokens, of four classes."""
    times = part("distributions.time.uniform").UniformTimeDistribution()
    return getattr(part("interpolants"), kind)(
        times, getattr(part("distributions.prior"), prior)(CLASSES), *schedule
    )
