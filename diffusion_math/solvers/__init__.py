"""Solvers: a schedule's step from time t to an earlier time s, on any denoiser.

`SOLVERS` has all of them by name, with order and cost. `sample.trajectory` runs them. `step`
defines the interface.
"""

from diffusion_math.solvers.adams import lms, plms
from diffusion_math.solvers.adaptive import bogacki_shampine
from diffusion_math.solvers.exponential import dpmpp_2m, multistep, singlestep, unipc
from diffusion_math.solvers.linear import from_weights
from diffusion_math.solvers.one_step import ddim, ddpm, euler, flow_heun, heun
from diffusion_math.solvers.registry import SOLVERS, Solver
from diffusion_math.solvers.step import State, Step
from diffusion_math.solvers.stochastic import ancestral, churn, corrected, dpmpp_sde, sde_heun

__all__ = [
    "SOLVERS",
    "Solver",
    "State",
    "Step",
    "ancestral",
    "bogacki_shampine",
    "churn",
    "corrected",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_sde",
    "euler",
    "flow_heun",
    "from_weights",
    "heun",
    "lms",
    "multistep",
    "plms",
    "sde_heun",
    "singlestep",
    "unipc",
]
