"""Diffusion models as equations that run: schedules, grids, denoisers, solvers, one loop.

    import diffusion_math as dm

    schedule = dm.VPLinear()
    grid = dm.uniform_log_snr(schedule, steps=20)
    x0 = dm.final(dm.dpmpp_2m(schedule), data.denoiser(schedule), x, grid)

The names below are enough for sampling and training; each module holds the rest of its subject.
Importing this package draws no random number, sets no global and opens no file.
"""

from diffusion_math import (
    checks,
    densities,
    distillation,
    elbo,
    fitting,
    gaussian,
    grid,
    guidance,
    guidance_law,
    inpainting,
    inpainting_law,
    langevin,
    langevin_law,
    likelihood,
    loss,
    metrics,
    noise,
    prediction,
    score_matching,
    solvers,
    testing,
    variance,
)
from diffusion_math.denoiser import (
    Denoiser,
    Network,
    from_eps,
    from_flow,
    from_score,
    from_v,
    from_x0,
)
from diffusion_math.densities import DENSITIES, GaussianMixture
from diffusion_math.grid import GRIDS, Grid, karras, leading, linspace, trailing, uniform_log_snr
from diffusion_math.guidance import cfg, cfg_batched, limited
from diffusion_math.loss import training_loss
from diffusion_math.noise import Noise, from_seeds, start_noise
from diffusion_math.sample import final, inversion, trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.solvers import (
    SOLVERS,
    State,
    Step,
    ddim,
    ddpm,
    dpmpp_2m,
    euler,
    flow_heun,
    heun,
    multistep,
    singlestep,
    unipc,
)

__version__ = "0.2.0"

__all__ = [
    "DENSITIES",
    "GRIDS",
    "SOLVERS",
    "VE",
    "Denoiser",
    "Discrete",
    "GaussianMixture",
    "Grid",
    "Network",
    "Noise",
    "RectifiedFlow",
    "Schedule",
    "State",
    "Step",
    "VPCosine",
    "VPLinear",
    "__version__",
    "cfg",
    "cfg_batched",
    "checks",
    "ddim",
    "ddpm",
    "densities",
    "distillation",
    "dpmpp_2m",
    "elbo",
    "euler",
    "final",
    "fitting",
    "flow_heun",
    "from_eps",
    "from_flow",
    "from_score",
    "from_seeds",
    "from_v",
    "from_x0",
    "gaussian",
    "grid",
    "guidance",
    "guidance_law",
    "heun",
    "inpainting",
    "inpainting_law",
    "inversion",
    "karras",
    "langevin",
    "langevin_law",
    "leading",
    "likelihood",
    "limited",
    "linspace",
    "loss",
    "metrics",
    "multistep",
    "noise",
    "prediction",
    "score_matching",
    "singlestep",
    "solvers",
    "start_noise",
    "testing",
    "trailing",
    "training_loss",
    "trajectory",
    "uniform_log_snr",
    "unipc",
    "variance",
]
