"""The catalogue's mistakes in a formula, as wrong versions of our own functions."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from diffusion_math.gaussian import Gaussian
from diffusion_math.schedule import Schedule
from diffusion_math.testing.assertions import forward, guidance, learned_variance, loss
from diffusion_math.testing.assertions import prediction_maps as maps
from diffusion_math.testing.assertions.weights import x0_weight
from diffusion_math.testing.mistakes.catalogue import Mistake as Entry
from diffusion_math.testing.mistakes.catalogue import generated, generated_together
from diffusion_math.testing.mistakes.levels import Levels, Rows, Step
from tests.diffusion_math.mistakes.mistake import Check, Mistake

DRAWN: dict[str, str] = {}
"""The corpus's names of what is drawn from the catalogue, to the catalogue's."""


def of_the_catalogue(
    name: str, entry: str, source: str, check: Check, right: Any, wrong: Callable[[str], Any]
) -> Mistake:
    """A mistake of the corpus that does what an entry of the catalogue does: `wrong(entry)`."""
    DRAWN[name] = entry
    return Mistake(name, f"The catalogue's: {entry}.", source, check, right, wrong(entry))


def _right(step: Step) -> dict[str, Tensor]:
    return {"coefficient of x0": step.alpha_t, "coefficient of noise": step.sigma_t}


def _entries() -> Iterator[Entry]:
    fields = (generated(field, _right) for field in _right(Step(*torch.ones(4, 1))))
    return chain(forward.KNOWN, generated_together(_right), *fields)


def forward_entry(name: str) -> Entry:
    """An entry for q(x_t given x_0), hand-made or generated."""
    return next(one for one in _entries() if one.name == name)


def marginal(name: str) -> Callable[[Schedule, Tensor, Any], Gaussian]:
    """`gaussian.marginal` with a mistake in it: t comes after t - 1, and that after clean data."""
    entry = forward_entry(name)

    def coefficients(schedule: Schedule, t: Any) -> tuple[Tensor, Tensor]:
        pairs = [(1.0, 0.0), *([float(c) for c in schedule(time)] for time in (t - 1, t))]
        alpha, sigma = torch.tensor([list(pair) for pair in pairs], dtype=torch.float64).T
        rows = Rows(torch.tensor([2]), torch.tensor([1]))
        levels = Levels((None, 1, 2), alpha, sigma, 2.0**-52)
        found = {**_right(levels.at(rows)), **entry.values(levels, rows)}
        return found["coefficient of x0"][0], found["coefficient of noise"][0]

    def wrong(schedule: Schedule, x0: Tensor, t: Any) -> Gaussian:
        times = torch.as_tensor(t)
        each = [coefficients(schedule, one) for one in times.reshape(-1)]
        signal, noise = (torch.stack(part).reshape(times.shape) for part in zip(*each, strict=True))
        return Gaussian(signal * x0, noise.square())

    return wrong


def guided(name: str) -> Callable[..., Any]:
    """`guidance.cfg` with other weights of cond and of uncond."""

    def wrong(conditional: Any, unconditional: Any, scale: float) -> Any:
        on_cond, on_uncond = guidance.KNOWN[name][0](torch.tensor(scale, dtype=torch.float64))
        return lambda x, t: on_cond * conditional(x, t) + on_uncond * unconditional(x, t)

    return wrong


def score(name: str) -> Callable[[Tensor, float], Tensor]:
    """The target of denoising score matching: another multiple of eps at alpha = 1."""
    parts, _ = maps.WRONG["score"][name]

    def target(eps: Tensor, sigma: float) -> Tensor:
        step = Step(*torch.tensor([[1.0], [sigma], [1.0], [0.0]], dtype=torch.float64))
        return parts(step)[1] * eps

    return target


def snr_weight(predicts: str, name: str) -> Callable[..., Any]:
    """`loss.min_snr` on the error in x0, of a weight that is on that in the prediction."""
    right = x0_weight(predicts)
    (entry,) = [one for one in loss._weights(predicts, right, "mean") if one.name == name]

    def min_snr(gamma: float = 5.0) -> Any:
        def weight(schedule: Schedule, t: Any) -> Tensor:
            alpha, sigma = (torch.as_tensor(each).double().reshape(-1) for each in schedule(t))
            levels = Levels(
                (None, *range(len(alpha))),
                torch.cat([torch.ones(1).double(), alpha]),
                torch.cat([torch.zeros(1).double(), sigma]),
                2.0**-52,
            )
            rows = Rows(torch.arange(1, len(alpha) + 1), torch.zeros(len(alpha)).long())
            value = entry.values(levels, rows)["weight"] * right(levels.at(rows))
            return value.reshape(torch.as_tensor(t).shape)

        return weight

    return min_snr


MEANS: dict[str, learned_variance.Mix] = {
    "the mean of beta and beta~ is arithmetic, not geometric": learned_variance._arithmetic(0, 1)
}
"""Of beta~ and beta, by the share of beta."""
