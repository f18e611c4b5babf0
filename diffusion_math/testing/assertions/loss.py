"""`assert_loss`: what a training loss noises, its target and its weight at every index."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.testing.assertions.batches import check_batch
from diffusion_math.testing.assertions.network import KINDS
from diffusion_math.testing.assertions.squares import Losses, parabola
from diffusion_math.testing.assertions.told import Told, check_told
from diffusion_math.testing.assertions.weights import WEIGHTS, Weight, snr, x0_weight
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Step, Times, neighbours
from diffusion_math.testing.mistakes.probes import (
    VECTORS,
    coefficients,
    guarded,
    name_of,
    time_batch,
)

__all__ = ["assert_loss"]

MIN_SNR = "github.com/huggingface/diffusers/issues/5654"


@checked
def assert_loss(
    loss: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    *,
    predicts: str = "eps",
    weight: str | Weight | None = None,
    event: str = "mean",
    told: Told = "t",
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `loss(network, x0, t, noise)`, a weighted squared error of a network's prediction.

    w(t) norm(y - network(alpha_t x0 + sigma_t noise, ...))^2 with y = a x0 + b noise. The network
    is ours: it tells what it is given, and returns the exact y and what is beside it. So the
    loss's minimum is the target, and its second difference is the weight. Of a loss of torch the
    gradient in the network's output is looked at too.

    Args:
        loss: takes x0 and noise of shape `(batch, 4)` and t of shape `(batch,)`; returns the
            batch's mean, the loss of each example, or that of each entry. See
            `diffusion_math.testing.draws.drawn` for a loss that draws its noise.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise.
        predicts: what the network predicts: "x0", "eps", "v", "flow", "velocity" or "score".
        weight: on the squared error in x0: a name of `WEIGHTS`, or a function of a `Step`, the
            levels of t and of the time before it. By default 1 on the error in the prediction.
        event: "mean" or "sum" over the entries of an example.
        told: the time that the network is told: "t", the row's own; a function of one of `times`,
            such as `lambda t: 1000 * t`; "nothing" where it is told none or an embedding.
        dtype: that of x0 and noise.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError where the loss is no squared error; and ValueError for arguments that are none.
    Source: DDPM (arXiv:2006.11239) eq. 14; min-SNR (arXiv:2303.09556); see `WEIGHTS`.

    >>> import torch
    >>> from diffusion_math.testing import assert_loss
    >>> abar = (1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)).cumprod(0)
    >>> def loss(network, x0, t, noise):
    ...     x_t = abar[t].sqrt()[:, None] * x0 + (1 - abar[t]).sqrt()[:, None] * noise
    ...     return (noise - network(x_t, t)).square().mean()
    >>> levels = lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt())
    >>> assert_loss(loss, levels, range(100))
    >>> assert_loss(loss, levels, range(100), weight="min-SNR")
    Traceback (most recent call last):
    ...
    diffusion_math.testing.mistakes.diagnosis.MistakeError: loss: wrong
      the weight differs at 42 of 100 indices, most at t = 0: got 1, expected 0.00050005 ...
      diagnosis: the weight is that of simple
    ...
    """
    require(predicts in KINDS, "predicts", f"one of {', '.join(KINDS)}", repr(predicts))
    require(event in ("mean", "sum"), "event", "'mean' or 'sum'", repr(event))
    named = not isinstance(weight, str) or weight in WEIGHTS
    require(named, "weight", f"one of {', '.join(WEIGHTS)}, or a function", repr(weight))
    on_x0 = x0_weight(predicts) if weight is None else weight
    on_x0 = WEIGHTS[on_x0] if isinstance(on_x0, str) else on_x0
    table, subject = Levels.read(levels, times), name_of(loss, "loss")
    rows, t = neighbours(table), time_batch(table.times[1:])
    losses = Losses(subject, guarded(subject, loss), t, event, dtype, rounding=table.eps)

    noised, eps = coefficients(subject, losses.noised, ("x0", "noise"), len(t), dtype, table.eps)
    beside = losses.seen[0][1]
    found = {f"x_t's coefficient of {name}": value for name, value in noised.items()}
    a, b = KINDS[predicts](*table.at(rows)[:2])
    vector = torch.tensor(VECTORS, dtype=torch.float64, device="cpu").expand(len(t), -1)
    for name, right, given in (("x0", a, (1.0, 0.0)), ("noise", b, (0.0, 1.0))):
        x0, noise = (part * vector for part in given)
        minimum, found["weight"] = parabola(losses, x0, noise, right, a.abs() + b.abs())
        nothing = (minimum != right) & (minimum.abs() <= 64 * losses.eps * (a.abs() + b.abs()))
        found[f"target's coefficient of {name}"] = torch.where(nothing, 0.0, minimum)

    def exact(step: Step) -> dict[str, Tensor]:
        return _exact(step, predicts, on_x0)

    compare(
        subject,
        found,
        exact,
        table,
        rows,
        eps=8 * max(eps, losses.eps),
        known=[*_targets(predicts), *_weights(predicts, on_x0, event)],
        right=f"w(t) on the squared error in {predicts} = a x0 + b noise, "
        f"over the event its {event}",
    )
    check_told(subject, beside, told, table, rows, dtype)
    check_batch(losses, a, b)


def _exact(step: Step, predicts: str, on_x0: Weight) -> dict[str, Tensor]:
    a, b = KINDS[predicts](step.alpha_t, step.sigma_t)
    return {
        "x_t's coefficient of x0": step.alpha_t,
        "x_t's coefficient of noise": step.sigma_t,
        "x_t's coefficient of offset": torch.zeros_like(a),
        "target's coefficient of x0": a,
        "target's coefficient of noise": b,
        "weight": _over(on_x0, x0_weight(predicts), step),
    }


def _over(one: Weight, other: Weight, step: Step) -> Tensor:
    """The quotient of two weights; where both are 0, at alpha_t = 0, its limit from below."""
    found = one(step) / other(step)
    near = step._replace(alpha_t=torch.where(step.alpha_t == 0, 1e-9, step.alpha_t))
    return torch.where(found.isnan(), one(near) / other(near), found)


def _targets(predicts: str) -> Iterator[Mistake]:
    """Other targets than what the network predicts."""

    def target(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"target's coefficient of x0": a, "target's coefficient of noise": b}

    def kind(name: str, step: Step) -> dict[str, Tensor]:
        return target(*KINDS[name](step.alpha_t, step.sigma_t))

    right = KINDS[predicts]
    yield Mistake.of(
        f"the target is {predicts} with the sign reversed",
        lambda step: target(*(-each for each in right(*step[:2]))),
    )
    yield Mistake.of(
        "the target is v of a plus sign: alpha_t noise + sigma_t x0",
        lambda step: target(step.sigma_t, step.alpha_t),
        "arXiv:2202.00512, section 4",
    )
    for other in KINDS:
        if other != predicts:
            yield Mistake.of(
                f"the target is {other}, where {predicts} is predicted",
                partial(kind, other),
            )


EDM = "arXiv:2206.00364, table 1"

EDM_WRONG: Mapping[str, Callable[[Tensor], Tensor]] = {
    "(sigma + sigma_data)^2 where (sigma sigma_data)^2 belongs": lambda s: (s + 0.5) ** 2,
    "sigma sigma_data not squared": lambda s: s / 2,
}
"""What people divide sigma^2 + sigma_data^2 by, with sigma_data = 1/2."""


def _edm(predicts: str, denominator: Callable[[Tensor], Tensor], step: Step) -> Tensor:
    s = step.sigma_t / step.alpha_t
    return (s**2 + 0.25) / denominator(s) / x0_weight(predicts)(step)


def _weights(predicts: str, on_x0: Weight, event: str) -> Iterator[Mistake]:
    """Other weights than the one that is claimed."""

    def weight(of: Callable[[Step], Tensor]) -> Callable[[Step], Mapping[str, Tensor]]:
        return lambda step: {"weight": of(step)}

    right = partial(_over, on_x0, x0_weight(predicts))

    count = len(VECTORS)
    said, factor = ("summed", count) if event == "mean" else ("averaged", 1 / count)
    yield Mistake.of(
        f"the event is {said}: its {event} is wanted", weight(lambda step: factor * right(step))
    )
    for name, other in WEIGHTS.items():
        yield Mistake.of(
            f"the weight is that of {name}",
            weight(partial(_over, other, x0_weight(predicts))),
        )
    for kind in KINDS:
        other = x0_weight(kind)
        if kind not in (predicts, "velocity"):  # whose weight is a flow's
            yield Mistake.of(
                f"the weight is for a network of {kind}, where {predicts} is predicted",
                weight(partial(_over, on_x0, other)),
                MIN_SNR,
            )
    yield Mistake.of(
        "1 is added to the SNR in the numerator too: min(SNR + 1, 5) / (SNR + 1)",
        weight(lambda step: (snr(step) + 1).clamp(max=5) / (snr(step) + 1)),
        MIN_SNR,
    )
    yield Mistake.of(
        "1 is added to the weight of eps: min(SNR, 5) / SNR + 1",
        weight(lambda step: snr(step).clamp(max=5) / snr(step) + 1),
        "github.com/huggingface/diffusers/pull/8466",
    )
    for said, denominator in EDM_WRONG.items():
        yield Mistake.of(
            f"the weight is that of EDM, with {said}",
            weight(partial(_edm, predicts, denominator)),
            EDM,
        )
    yield Mistake.of(
        "max is in the place of min: max(SNR, 5)",
        weight(lambda step: snr(step).clamp(min=5) / x0_weight(predicts)(step)),
        "arXiv:2303.09556",
    )
