"""`assert_inversion`: a step from data to noise and its way back, on a point and on a mixture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_math.checks import checked, require, whole
from diffusion_math.schedule import RectifiedFlow
from diffusion_math.testing.assertions.network import KINDS, Network
from diffusion_math.testing.convergence import fit_order
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Rows, Step, Times
from diffusion_math.testing.mistakes.probes import coefficients, guarded, name_of, tensor
from diffusion_math.testing.problems import MIXTURE, flow_at

__all__ = ["assert_inversion"]

DDIM = "arXiv:2010.02502, section 4.3"
INVERSE = "github.com/huggingface/diffusers/issues/10695"
SLACK = 0.35
COARSEST = 8
"""The coarsest of the ladder's steps, in steps of the table."""


@checked
def assert_inversion(
    up: Callable[..., Any],
    down: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    *,
    predicts: str = "eps",
    order: int = 1,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `up(network, x, s, t)`, a step to a noisier t, and `down(network, x, t, s)`, back to s.

    On data that is a point x0, both are exact for every solver of the probability flow: they take
    alpha_s x0 + sigma_s eps to alpha_t x0 + sigma_t eps, and back. On a mixture both follow the
    exact flow to their order as steps get smaller, and so does up followed by down.

    Args:
        up, down: take x of shape `(batch, *event)` and plain times, and evaluate
            `network(x, time)`, which is exact and returns what `predicts` says.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise; three at least. The order is measured
            where 17 or more of them have a log-SNR in [-4, 3].
        predicts: what the network predicts: "x0", "eps", "v", "flow", "velocity" or "score".
        order: the order that is claimed of both.
        dtype: that of x.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError for a lower order; ValueError for arguments that are none.
    Source: DDIM (arXiv:2010.02502) section 4.3; arXiv:2105.05233, appendix F.

    >>> import torch
    >>> from diffusion_math.testing import assert_inversion
    >>> abar = (1 - torch.linspace(1e-3, 0.2, 50, dtype=torch.float64)).cumprod(0)
    >>> levels = lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt())
    >>> def ddim(network, x, start, end):
    ...     (a, s), (b, r) = levels(start), levels(end)
    ...     eps = network(x, start)
    ...     return b * (x - s * eps) / a + r * eps
    >>> assert_inversion(ddim, ddim, levels, range(50))
    """
    require(predicts in KINDS, "predicts", f"one of {', '.join(KINDS)}", repr(predicts))
    whole("order", order, 1)
    table = Levels.read(levels, times)
    require(len(table.times) > 3, "times", "three at least", table.times[1:])
    numbers = [float(time) for time in table.times if time is not None]
    noisier = torch.arange(2, len(table.times), device="cpu")
    rows = Rows(noisier, noisier - 1)
    names = name_of(up, "up"), name_of(down, "down")
    subjects = names if names[0] != names[1] else (f"{names[0]}, up", f"{names[1]}, down")

    def told(time: Any) -> tuple[float, float]:
        """The levels of the time that the network is told."""
        number = float(np.asarray(time).reshape(-1)[0])
        k = 1 + min(range(len(numbers)), key=lambda k: abs(numbers[k] - number))
        near = abs(numbers[k - 1] - number) <= 1e-5 * abs(number)
        require(near, "the network's time", "one of the times", number)
        return float(table.alpha[k]), float(table.sigma[k])

    def step(subject: str, function: Callable[..., Any], denoise: Any, x: Tensor, *at: int) -> Any:
        """The result of one step between two places of the table."""

        def network(x: Any, time: Any, *_: Any) -> Tensor:
            a, s = told(time)
            return _predicted(predicts, denoise(x, a, s), x, a, s).to(x)

        ends = (table.times[k] for k in at)
        result = guarded(subject, function)(Network(network), x, *ends)
        return tensor(subject, result, x, table.eps)[0].to(x)

    steps = [partial(step, *pair) for pair in zip(subjects, (up, down), strict=True)]
    for which, (subject, run) in enumerate(zip(subjects, steps, strict=True)):

        def on_a_point(given: Mapping[str, Tensor], run: Any = run, which: int = which) -> Tensor:
            results = []
            for k, (t, s) in enumerate(zip(rows.t.tolist(), rows.s.tolist(), strict=True)):
                x0, ends = given["x0"][k : k + 1], ((s, t), (t, s))[which]
                alpha, sigma = table.alpha[ends[0]], table.sigma[ends[0]]
                x = (alpha * x0 + sigma * given["eps"][k : k + 1]).to(x0)
                results.append(run(lambda *_, x0=x0: x0, x, *ends))
            return torch.cat(results)

        found, eps = coefficients(subject, on_a_point, ("x0", "eps"), len(noisier), dtype)
        compare(
            subject,
            {f"coefficient of {name}": value for name, value in found.items()},
            partial(_exact, which),
            table,
            rows,
            eps=8 * eps,
            known=_known(which, predicts),
            right=f"alpha_t x0 + sigma_t eps ({DDIM})" + (", s in t's place" if which else ""),
        )
    _check_order(subjects, steps, table, order, dtype)


def _predicted(kind: str, x0: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """a x0 + b eps with the eps that x and x0 leave."""
    a, b = KINDS[kind](*torch.tensor([alpha, sigma], dtype=torch.float64, device="cpu"))
    return a * x0.double() + b * (x.double() - alpha * x0.double()) / sigma


def _ends(which: int, step: Step) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The levels of a step's start and of its end."""
    noisy, clean = (step.alpha_t, step.sigma_t), (step.alpha_s, step.sigma_s)
    return (noisy, clean) if which else (clean, noisy)


def _exact(which: int, step: Step) -> dict[str, Tensor]:
    _, (signal, noise) = _ends(which, step)
    zero = torch.zeros_like(noise)
    return {"coefficient of x0": signal, "coefficient of eps": noise, "coefficient of offset": zero}


Pair = tuple[Tensor, Tensor]


def _run(
    kind: str, at: Pair, told: Pair, taken: Pair, signal: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """signal X + noise E: the prediction at the level `told` turned into X and E at `taken`."""
    a, b = KINDS[kind](*told)
    prediction = a + b * (at[0] - told[0]) / told[1], b * at[1] / told[1]  # by x0 and by eps
    (alpha, sigma), (a, b) = taken, KINDS[kind](*taken)
    size = alpha * b - sigma * a
    parts = []
    for y, x in zip(prediction, at, strict=True):
        clean, eps = (b * x - sigma * y) / size, (alpha * y - a * x) / size
        parts.append(signal * clean + noise * eps)
    return {"coefficient of x0": parts[0], "coefficient of eps": parts[1]}


def _known(which: int, kind: str) -> Iterator[Mistake]:
    """Levels of one end in the place of the other's."""

    def of(name: str, told: int, taken: int, signal: int, noise: int) -> Mistake:
        def formula(step: Step) -> dict[str, Tensor]:
            ends = _ends(which, step)
            return _run(kind, ends[0], ends[told], ends[taken], ends[signal][0], ends[noise][1])

        return Mistake.of(name, formula, INVERSE)

    yield of("the network is told the time of the step's end", 1, 0, 1, 1)
    yield of("it goes the other way: from the step's end to its start", 1, 1, 0, 0)
    yield of("it goes the other way, though the network is told the start", 0, 1, 0, 0)
    yield of("the signal keeps the level of the step's start", 0, 0, 0, 1)
    yield of("the noise keeps the level of the step's start", 0, 0, 1, 0)
    yield of("nothing changes: the step starts and ends at one level", 0, 0, 0, 0)

    def lagging(levels: Levels, rows: Rows) -> dict[str, Tensor]:
        """x is taken to be at the time before (or after, downwards), and moved to its own."""
        last = len(levels.times) - 1
        other = (rows.t + 1).clamp(max=last) if which else (rows.s - 1).clamp(min=1)
        start = levels.alpha[rows.t if which else rows.s], levels.sigma[rows.t if which else rows.s]
        return _run(kind, start, start, (levels.alpha[other], levels.sigma[other]), *start)

    yield Mistake("the step is one late: it ends at the level where x is", lagging, 1, INVERSE)


def _check_order(
    subjects: tuple[str, ...],
    steps: Sequence[Callable[..., Tensor]],
    table: Levels,
    order: int,
    dtype: torch.dtype,
) -> None:
    """AssertionError unless both, and both one after the other, have the order on a mixture."""
    log_snr = 2 * (table.alpha.log() - table.sigma.log())
    inside = ((log_snr >= -4) & (log_snr <= 3)).nonzero()[:, 0].tolist()
    count = (len(inside) - 1) // COARSEST * COARSEST
    if count < 2 * COARSEST:
        return
    inside = inside[: count + 1]
    first, last = (
        flow_at(table.alpha[k, None], table.sigma[k, None])[0] for k in (inside[0], inside[-1])
    )
    straight = RectifiedFlow()

    def denoise(x: Tensor, alpha: float, sigma: float) -> Tensor:
        tau = torch.tensor(sigma / (alpha + sigma), dtype=torch.float64, device="cpu")
        return MIXTURE.posterior_mean(straight, x.double() / (alpha + sigma), tau)

    def along(which: int, x: Tensor, grid: list[int]) -> Tensor:
        for ends in pairwise(grid):
            x = steps[which](denoise, x, *ends)
        return x

    errors: dict[str, list[float]] = {}
    sizes = []
    for stride in (8, 4, 2, 1):
        grid = inside[::stride]
        noisy = along(0, first.to(dtype), grid)
        back = along(1, last.to(dtype), grid[::-1])
        both = along(1, noisy, grid[::-1])
        sizes.append(stride / count)
        ways = {subjects[0]: (noisy, last), subjects[1]: (back, first)}
        ways[f"{subjects[0]}, then {subjects[1]}"] = (both, first)
        for name, (end, exact) in ways.items():
            off = float((end.double() - exact).square().mean().sqrt())
            errors.setdefault(name, []).append(off)
    floor = 30 * float(torch.finfo(dtype).eps) * count
    for name, found in errors.items():
        fit = fit_order(sizes, found, max(floor, 1e-9))
        listed = ", ".join(f"{error:.3g}" for error in found)
        assert max(fit.order, fit.trend) > order - SLACK, (
            f"{name}: wanted order {order} on a mixture, got {fit}; errors {listed} "
            f"at {count // 8}, {count // 4}, {count // 2} and {count} steps"
        )
