"""TODO: diffusion_math/solvers."""
