"""TODO: diffusion_math/fitting."""
