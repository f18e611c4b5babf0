"""Inpainting with an unconditional denoiser: steps that keep the known entries of the data.

With m the mask of the known entries and x_0^m their values, the exact target is p(x_0 | x_0^m). A
denoiser of whole samples does not know the values, so each step joins them in. `inpainting_law`
computes what `replacement` and `repaint` sample; only `particles` converges to the target.
Derivation: (inpainting.1).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math._batching import wide
from diffusion_math.checks import checked, require, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule, Time
from diffusion_math.solvers.step import State, Step

__all__ = ["joined", "particles", "repaint", "replacement"]


@checked
def joined(
    schedule: Schedule,
    x: Float[Tensor, "batch *event"],
    t: Time,
    known: Float[Tensor, "*event"],
    mask: Bool[Tensor, "*event"],
    z: Float[Tensor, "batch *event"],
) -> Float[Tensor, "batch *event"]:
    """x_t with its known entries drawn from q(x_t | x_0) of their values.

        x_t = m (alpha_t x_0 + sigma_t z) + (1 - m) x_t

    Args:
        x: `(batch, *event)` at time t.
        t: a number or `()`; at 0 the known entries are their values.
        known: `(*event)`, x_0; entries outside of the mask have no effect.
        mask: `(*event)`, true where an entry is known.
        z: standard normal like x.

    Raises:
        ValueError: `known` or `mask` is not shaped as an event, or the mask is not boolean.

    Derivation: (inpainting.2).
    Source: Score SDE (arXiv:2011.13456), Appendix I.2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> known, mask = torch.tensor([5.0, 0.0]), torch.tensor([True, False])
    >>> x, z = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)
    >>> dm.inpainting.joined(dm.RectifiedFlow(), x, 0.5, known, mask, z)
    tensor([[2.5000, 2.0000]])
    """
    check_known(x, known, mask)
    drawn = gaussian.marginal(schedule, known.to(x).expand_as(x), t).sample(z)
    return torch.where(mask, drawn, x)


@checked
def replacement(
    step: Step, schedule: Schedule, known: Float[Tensor, "*event"], mask: Bool[Tensor, "*event"]
) -> Step:
    """The replacement method: after each step, the known entries are drawn anew by `joined`.

    The step of the other entries sees noisy known values, drawn independently of them at each time.
    The result is not p(x_0 | x_0^m), however many steps are taken.

    Args:
        step: any solver's step.
        known, mask: as in `joined`. The caller joins the start.

    Raises:
        ValueError: at each step, as `joined`.

    Derivation: (inpainting.3).
    Source: Score SDE (arXiv:2011.13456), Appendix I.2; RePaint (arXiv:2201.09865), Eq. 8.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> known, mask = torch.tensor([2.0, 0.0]), torch.tensor([True, False])
    >>> step = dm.inpainting.replacement(dm.ddpm(schedule), schedule, known, mask)
    >>> x, noise = dm.start_noise(range(2), (2,)), dm.from_seeds(range(2))
    >>> dm.final(step, ring.denoiser(schedule), x, dm.trailing(schedule, 50), noise)[:, 0]
    tensor([2., 2.])
    """

    def replaced(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        after = step(denoise, state, t, s, noise)
        z = noise(after.x, torch.zeros_like(s), s)  # from time 0 to s: no solver's step has that
        return State(joined(schedule, after.x, s, known, mask, z), s, after.history)

    return replaced


@checked
def repaint(
    step: Step,
    schedule: Schedule,
    known: Float[Tensor, "*event"],
    mask: Bool[Tensor, "*event"],
    again: Sequence[Noise],
) -> Step:
    """RePaint: `replacement`, and each step is taken back and repeated before the next one.

        x_s = replacement step from x_t;    x_t ~ q(x_t | x_s);    repeat

    Each repetition lets the other entries adapt to the known values once more. The last step, to 0,
    is not repeated. A repetition starts without the history of a multistep solver.

    Args:
        step, known, mask: as in `replacement`.
        again: one noise source for each repetition, independent of each other and of the run's; the
            paper's U is `1 + len(again)`.

    Raises:
        ValueError: at each step, as `joined`.

    Derivation: (inpainting.4).
    Source: RePaint (arXiv:2201.09865), Algorithm 1.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> known, mask = torch.tensor([2.0, 0.0]), torch.tensor([True, False])
    >>> again = [dm.from_seeds([2 * u, 2 * u + 1]) for u in range(1, 4)]
    >>> step = dm.inpainting.repaint(dm.ddpm(schedule), schedule, known, mask, again)
    >>> x, noise = dm.start_noise(range(2), (2,)), dm.from_seeds(range(2))
    >>> dm.final(step, ring.denoiser(schedule), x, dm.trailing(schedule, 50), noise)[:, 0]
    tensor([2., 2.])
    """
    once = replacement(step, schedule, known, mask)

    def repeated(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        after = once(denoise, state, t, s, noise)
        for other in again if s > 0 else ():
            back = gaussian.transition(schedule, after.x, s, t)
            x = back.sample(other(after.x, s, t))
            after = once(denoise, State(x, t), t, s, other)
        return after

    return repeated


@checked
def particles(
    schedule: Schedule,
    known: Float[Tensor, "*event"],
    mask: Bool[Tensor, "*event"],
    count: int,
) -> Step:
    """SMCDiff: sequential Monte Carlo with the steps of `ddpm`, `count` particles for each group.

        x_s^m ~ q(x_s^m | x_t^m, x_0^m)                    one sample, shared by the group
        w_i   = N(x_s^m; mu_i^m, v)                        N(mu_i, v) is the `ddpm` step of row i
        x_s   = mu_j + sqrt(v) z outside of m,    j ~ w    systematic resampling

    If the `ddpm` steps are the exact reverse kernels, a particle's distribution tends to
    p(x_0 | x_0^m) as `count` grows. Otherwise the steps' own error remains. Particles of one group
    are dependent; groups are independent. Take one row of each group for independent samples.

    Args:
        schedule: as for `ddpm`.
        known, mask: as in `joined`. The caller joins the start, with one z for each group.
        count: particles of a group, at least 1; `count` neighbouring rows are a group.

    Raises:
        ValueError: `count` is below 1; at each step, as `joined`, or if the batch is not a multiple
            of `count`, or if known entries differ within a group.

    Derivation: (inpainting.5), (inpainting.6).
    Source: SMCDiff (arXiv:2206.04119), Algorithm 2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> known, mask = torch.tensor([2.0, 0.0]), torch.tensor([True, False])
    >>> x, noise = dm.start_noise(range(64), (2,)), dm.from_seeds(range(64))
    >>> x[:, 0] = x[0, 0]
    >>> step = dm.inpainting.particles(schedule, known, mask, count=64)
    >>> x0 = dm.final(step, ring.denoiser(schedule), x, dm.trailing(schedule, 50), noise)
    >>> x0[:, 0].unique(), bool(x0[:, 1].abs().max() < 1)
    (tensor([2.]), True)
    """
    whole("count", count, 1)

    def moved(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        x = state.x
        check_known(x, known, mask)
        require(len(x) % count == 0, "x", f"a batch of groups of {count}", f"a batch of {len(x)}")
        require(
            bool((x == _first(x, count))[:, mask].all()),
            "x",
            f"equal known entries in each group of {count}",
            "different ones",
        )
        kernel = gaussian.posterior(schedule, x, denoise(x, t), t, s)
        mean, values = kernel.mean, known.to(x).expand_as(x)
        if s == 0:
            return State(torch.where(mask, values, mean), s)
        shared = _first(noise(x, torch.zeros_like(s), s), count)
        path = gaussian.posterior(schedule, x, values, t, s).sample(shared)
        apart = (wide(path) - wide(mean)).square()[:, mask].sum(1)
        weights = (-apart / (2 * kernel.variance)).reshape(-1, count).softmax(1)
        uniform = torch.special.ndtr(wide(noise(x, s, s))).reshape(-1, count, x[0].numel())[:, 0, 0]
        chosen = _systematic(weights, uniform)
        drawn = gaussian.Gaussian(mean[chosen], kernel.variance).sample(noise(x, t, s))
        return State(torch.where(mask, path, drawn), s)

    return moved


def _first(x: Tensor, count: int) -> Tensor:
    """The first row of each group in the place of all its rows."""
    return x[::count].repeat_interleave(count, 0)


def _systematic(weights: Tensor, uniform: Tensor) -> Tensor:
    """Rows, `(groups * n,)`, for weights `(groups, n)`: i occurs floor or ceil of n w_i times.

    Each place, for itself, gets i with probability w_i: the points begin anywhere on the circle.
    """
    n = weights.shape[1]
    places = torch.arange(n, dtype=weights.dtype, device=weights.device)
    points = ((places + n * uniform[:, None]) % n) / n
    # The sum of the weights may round to less than 1.
    found = torch.searchsorted(weights.cumsum(1), points, right=True).clamp(max=n - 1)
    return (found + n * torch.arange(len(weights), device=found.device)[:, None]).flatten()


def check_known(x: Tensor, known: Tensor, mask: Tensor) -> None:
    """Refuse a `known` or `mask` that is not shaped as the events of `x`, `(batch, *event)`."""
    event = tuple(x.shape[1:])
    for name, value in (("known", known), ("mask", mask)):
        require(tuple(value.shape) == event, name, f"shape {event}", f"shape {tuple(value.shape)}")
    require(mask.dtype == torch.bool, "mask", "booleans", mask.dtype)
