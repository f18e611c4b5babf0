"""The solvers where other libraries expect their own."""

from diffusion_math.interop.k_diffusion import SAMPLERS

__all__ = ["SAMPLERS"]
