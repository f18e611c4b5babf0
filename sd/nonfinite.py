"""Checks that tensors are finite; the error names the stage that made them."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math.solvers.step import State

__all__ = ["finite_states", "require_finite", "vae_dtype"]


def require_finite(x: Tensor, stage: str, dtype: torch.dtype | None = None) -> Tensor:
    """Return `x` unchanged.

    Args:
        x: a tensor of any shape.
        stage: what made it, for the message.
        dtype: the dtype that it was made in, if `x` has been converted since.

    Raises FloatingPointError if an entry is infinite or NaN.
    """
    if bool(x.isfinite().all()):
        return x
    made = x.dtype if dtype is None else dtype
    small = torch.finfo(made).max < torch.finfo(torch.bfloat16).max
    advice = "dtype bfloat16 or float32" if small else "a lower guidance scale, or other weights"
    name = str(made).removeprefix("torch.")
    raise FloatingPointError(f"{name} {stage}: not finite; try {advice}")


def finite_states(
    states: Iterable[State], times: Float[Tensor, " nodes"], dtype: torch.dtype
) -> Iterator[State]:
    """Yield the states of a trajectory over `times`, each checked; `dtype` is the U-Net's.

    Raises FloatingPointError, as `require_finite` does, with the step and the time at its start.
    """
    for k, state in enumerate(states):
        stage = f"U-Net, step {k} of {len(times) - 1} (t = {times[max(k - 1, 0)]:g})"
        require_finite(state.x, stage, dtype)
        yield state


def vae_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the VAE for networks in `dtype`: float32 in place of float16.

    Activations of Stable Diffusion's decoder exceed 65504, the largest float16. The range of
    bfloat16 is that of float32.
    """
    return torch.float32 if dtype == torch.float16 else dtype
