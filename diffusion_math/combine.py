"""Weighted sums of events, in whatever dtype: worked out in float32 or wider and rounded once."""

from jaxtyping import Float
from torch import Tensor

from diffusion_math.rows import wide
from diffusion_math.schedule import shape_like

__all__ = ["combined"]


def combined(*terms: tuple[Tensor, Float[Tensor, "*shape"]]) -> Float[Tensor, "*shape"]:
    """sum_i c_i x_i of coefficients as in `shape_like`: in float32 or wider, then like the first x.

    Rounded once, to the nearest: in float16 a coefficient may be too large (1 / alpha_t) or too
    small (sigma_t^2), and products may overflow where their sum does not.
    """
    parts = [shape_like(c, wide(x)) * wide(x) for c, x in terms]
    return sum(parts[1:], parts[0]).to(terms[0][1])
