"""Time grids and solver weights optimised for an NFE budget (number of function evaluations).

Grids: `fit_grid` minimises the error of the final samples over the nodes; `shortest_path` and
`published_grids` have published methods. Weights: `fit_weights` solves for the weights of a linear
multistep solver; `fit_weights_to_ends` and `fit_alternating` minimise the error of the final
samples over them (S4S and S4S-Alt).
"""

from diffusion_math.fitting.grids import fit_grid, fit_grid_of
from diffusion_math.fitting.published_grids import align_your_steps, error_weighted
from diffusion_math.fitting.shortest_path import dynamic_programming, kl_upper_bound, shortest
from diffusion_math.fitting.weights import FinePath, fit_weights, fit_weights_and_grid
from diffusion_math.fitting.weights_by_ends import fit_alternating, fit_weights_to_ends

__all__ = [
    "FinePath",
    "align_your_steps",
    "dynamic_programming",
    "error_weighted",
    "fit_alternating",
    "fit_grid",
    "fit_grid_of",
    "fit_weights",
    "fit_weights_and_grid",
    "fit_weights_to_ends",
    "kl_upper_bound",
    "shortest",
]
