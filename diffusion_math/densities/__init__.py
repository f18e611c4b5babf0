"""TODO: diffusion_math/densities."""
