"""Inpainting with an unconditional denoiser: steps that keep the known entries of the data.

With m the mask of the known entries and x_0^m their values, the exact target is p(x_0 | x_0^m). A
denoiser of whole samples does not know the values, so each step joins them in. `inpainting_law`
computes what two of these steps sample; only `particles` converges to the target.
Derivation: (inpainting.1), (inpainting.2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math._batching import wide
from diffusion_math.checks import checked, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule, Time
from diffusion_math.solvers.step import State, Step

__all__ = ["joined", "particles", "repaint", "replacement"]


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

    Derivation: (inpainting.1).
    Source: Score SDE (arXiv:2011.13456), Appendix I.2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> known, mask = torch.tensor([5.0, 0.0]), torch.tensor([True, False])
    >>> x, z = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)
    >>> dm.inpainting.joined(dm.RectifiedFlow(), x, 0.5, known, mask, z)
    tensor([[2.5000, 2.0000]])
    """
    _check(x, known, mask)
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

    Derivation: (inpainting.2).
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
        again: one noise source for each repetition; the paper's U is `1 + len(again)`.

    Derivation: (inpainting.3).
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
    schedule: Schedule, known: Float[Tensor, "*event"], mask: Bool[Tensor, "*event"]
) -> Step:
    """Sequential Monte Carlo: the batch are particles, which agree on one path of known values.

        x_s^m ~ q(x_s^m | x_t^m, x_0^m)                          one draw, shared by the batch
        w_i   = N(x_s^m; mu_i^m, v)                              how well particle i foresaw it
        x_s   = mu_j + sqrt(v) z outside of m,    j ~ w          resampled systematically

    N(mu_i, v) is the step of `ddpm`. With exact reverse kernels the particles' distribution tends
    to p(x_0 | x_0^m) as their number grows; steps add the error of the kernel. The particles are
    dependent: one call is one sample of size batch.

    Args:
        known, mask: as in `joined`. The caller joins the start, with one z for all particles.

    Raises:
        ValueError: the known entries of the particles differ.

    Derivation: (inpainting.4).
    Source: SMCDiff (arXiv:2206.04119), Algorithm 2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> known, mask = torch.tensor([2.0, 0.0]), torch.tensor([True, False])
    >>> x, seeds = dm.start_noise(range(64), (2,)), range(64)
    >>> x[:, 0] = x[0, 0]
    >>> step = dm.inpainting.particles(schedule, known, mask)
    >>> grid = dm.trailing(schedule, 50)
    >>> x0 = dm.final(step, ring.denoiser(schedule), x, grid, dm.from_seeds(seeds))
    >>> x0[:, 0].unique(), bool(x0[:, 1].abs().max() < 1)
    (tensor([2.]), True)
    """

    def moved(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        x = state.x
        _check(x, known, mask)
        require(bool((x == x[:1])[:, mask].all()), "x", "one value of each known entry", "several")
        kernel = gaussian.posterior(schedule, x, denoise(x, t), t, s)
        mean, fresh = kernel.mean, noise(x, t, s)
        if s > 0:
            values = known.to(x).expand_as(x)
            shared = noise(x, torch.zeros_like(s), s)[:1].expand_as(x)
            path = gaussian.posterior(schedule, x, values, t, s).sample(shared)
            apart = (wide(path) - wide(mean)).square()[:, mask].sum(1)
            weights = (-apart / (2 * kernel.variance)).softmax(0)
            uniform = torch.special.ndtr(wide(noise(x, s, s)).flatten()[0])
            mean = mean[_systematic(weights, uniform)]
        else:
            path = known.to(x).expand_as(x)
        drawn = gaussian.Gaussian(mean, kernel.variance).sample(fresh)
        return State(torch.where(mask, path, drawn), s)

    return moved


def _systematic(weights: Tensor, uniform: Tensor) -> Tensor:
    """Indices, as many as weights: i occurs floor or ceil of n weights[i] times."""
    n = len(weights)
    points = (torch.arange(n, dtype=weights.dtype, device=weights.device) + uniform) / n
    found = torch.searchsorted(weights.cumsum(0), points, right=True)
    return found.clamp(max=n - 1)  # the sum of the weights may round to less than 1


def _check(x: Tensor, known: Tensor, mask: Tensor) -> None:
    event = tuple(x.shape[1:])
    for name, value in (("known", known), ("mask", mask)):
        require(tuple(value.shape) == event, name, f"shape {event}", f"shape {tuple(value.shape)}")
    require(mask.dtype == torch.bool, "mask", "booleans", mask.dtype)
