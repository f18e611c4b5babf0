"""Numbers that are finite, or one line that says where they ceased to be."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math.solvers.step import State

__all__ = ["finite_states", "require_finite", "vae_dtype"]


def require_finite(x: Tensor, stage: str, dtype: torch.dtype | None = None) -> Tensor:
    """`x` itself.

    Args:
        x: of any shape.
        stage: what has made it, for the message.
        dtype: that it was made in, where `x` has been converted since.

    Raises FloatingPointError where a number is infinite or not a number: it can have no colour.
    """
    if bool(x.isfinite().all()):
        return x
    made = x.dtype if dtype is None else dtype
    small = torch.finfo(made).max < torch.finfo(torch.bfloat16).max
    advice = "dtype bfloat16 or float32" if small else "a lower guidance scale, or other weights"
    name = str(made).removeprefix("torch.")
    raise FloatingPointError(f"{name} {stage}: not finite; try {advice}")


def finite_states(
    walk: Iterable[State], times: Float[Tensor, " nodes"], dtype: torch.dtype
) -> Iterator[State]:
    """The states of a walk over these times, whose network answers in `dtype`, each of them finite.

    Raises FloatingPointError, with the step and the time that it starts at, as `require_finite`.
    """
    for k, state in enumerate(walk):
        stage = f"U-Net, step {k} of {len(times) - 1} (t = {times[max(k - 1, 0)]:g})"
        require_finite(state.x, stage, dtype)
        yield state


def vae_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a VAE beside networks in `dtype`: float32 for float16, which ends at 65504.

    The activations of Stable Diffusion's decoder pass that; bfloat16 reaches as far as float32.
    """
    return torch.float32 if dtype == torch.float16 else dtype
