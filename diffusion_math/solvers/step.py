"""The interface of solvers: a pure step of a `State` from time t to an earlier time s."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise


@dataclass(frozen=True, eq=False)
class State:
    """The state of a trajectory: a sample, its time, and a multistep solver's history.

    Attributes:
        x: `(batch, *event)`.
        t: `()`, a float64 tensor on the CPU.
        history: earlier predictions as pairs (time, x0 or eps), latest last; the solver
            chooses which of the two. Empty for one-step solvers.

    >>> import torch
    >>> import diffusion_math as dm
    >>> start, step = dm.State(torch.ones(1, 2), torch.tensor(1.0)), dm.euler(dm.RectifiedFlow())
    >>> t, s = torch.tensor([1.0, 0.5])
    >>> step(lambda x_t, t: 0 * x_t, start, t, s, dm.noise.zeros).x
    tensor([[0.5000, 0.5000]])
    """

    x: Tensor
    t: Tensor
    history: tuple[tuple[Tensor, Tensor], ...] = ()


Step: TypeAlias = Callable[[Denoiser, State, Tensor, Tensor, Noise], State]
"""`(denoise, state, t, s, noise) -> state`, with `state.t == t > s >= 0`."""
