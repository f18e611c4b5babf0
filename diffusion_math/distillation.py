"""Distillation: one step of a student in place of several of its teacher's.

A DDIM step is affine in the prediction, so there is one prediction with which it leads from x_t to
any given x_s. A student that learns it, as an ordinary network learns x_0, takes the teacher's path
in as few network calls as it has nodes. If the teacher was guided, the student needs no guidance.
Derivation: (distillation.1).
Sources: Salimans & Ho (arXiv:2202.00512), section 3; Meng et al. (arXiv:2210.03142), guidance.
"""

from jaxtyping import Float
from torch import Tensor

from diffusion_math._batching import combined
from diffusion_math.checks import checked, require, same_shape
from diffusion_math.schedule import Schedule, Time

__all__ = ["target"]

Value = Float[Tensor, "batch *event"]


@checked
def target(schedule: Schedule, x_t: Value, x_s: Value, t: Time, s: Time) -> Value:
    """The prediction of x_0 with which the DDIM step (eta = 0) leads from x_t to x_s.

        x0 = (x_s - r x_t) / (alpha_s - r alpha_t),    r = sigma_s / sigma_t

    At s = 0 it is x_s. A training pair (x_t, x0) is one of `training_loss` with this x0 and
    eps = (x_t - alpha_t x0) / sigma_t, since both together give x_t again.

    Args:
        schedule: gives alpha and sigma at t and s.
        x_t: `(batch, *event)`, where the step begins.
        x_s: shaped as x_t, where the teacher's path is at s.
        t, s: `()` or `(batch,)` times, s < t.

    Raises:
        ValueError: the signal-to-noise ratio does not rise from t to s; shapes disagree.

    Derivation: (distillation.2).
    Source: Salimans & Ho (arXiv:2202.00512), appendix G.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, x_t, x_s = dm.VPLinear(), torch.ones(1, 2), torch.tensor([[0.5, 2.0]])
    >>> t, s = torch.tensor([0.8, 0.3], dtype=torch.float64)
    >>> x0 = dm.distillation.target(schedule, x_t, x_s, t, s)
    >>> dm.final(dm.ddim(schedule), lambda x, time: x0, x_t, torch.stack([t, s]))
    tensor([[0.5000, 2.0000]])
    """
    same_shape("x_s", x_s, x_t)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    rising = alpha_s * sigma_t - sigma_s * alpha_t
    require(bool((rising > 0).all()), "t, s", "a signal-to-noise ratio that rises from t to s", s)
    return combined((sigma_t / rising, x_s), (-sigma_s / rising, x_t))
