"""Our own loop, with a caller that changes the sample after each evaluation of the denoiser."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise, required
from diffusion_math.solvers.step import State, Step


def edited(
    step: Step,
    denoise: Denoiser,
    x: Tensor,
    nodes: Tensor,
    edit: Callable[[Tensor, Tensor], Tensor],
    noise: Noise = required,
) -> Tensor:
    """The last x, where `edit(x, t)` changes the start of each step but the first, and the end.

    Inside a step the denoiser sees the changed sample, and the solver its own.
    """
    state = State(x, nodes[0])
    for t, s in pairwise(nodes):
        asked: list[Tensor] = []

        def seen(x: Tensor, t: Tensor, asked: list[Tensor] = asked) -> Tensor:
            asked.append(t)  # the first one is at the state, which is changed already
            return denoise(x if len(asked) == 1 else edit(x, t), t)

        state = step(seen, state, t, s, noise)
        state = replace(state, x=edit(state.x, s))
    return state.x
