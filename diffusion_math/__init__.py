"""Diffusion models as equations that run: schedules, grids, denoisers, solvers, one loop.

Each name lives in the module of its noun. Of the larger fields the module itself is the name:
`predict`, `multivariate`, `curvature` and `path` (of the mixture), `elbo`, `likelihood`, `loss`,
`score_matching`, `langevin` (its law at finite steps: `langevin_law`), `metrics` and `checks`.
Importing this package draws no random number, sets no global and opens no file.
"""

from diffusion_math import (
    checks,
    elbo,
    langevin,
    langevin_law,
    likelihood,
    loss,
    metrics,
    prediction,
    score_matching,
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
from diffusion_math.densities import multivariate, reverse_kernel, second_order
from diffusion_math.densities.labelled import Labelled
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import DENSITIES
from diffusion_math.gaussian import (
    Gaussian,
    cross_entropy,
    fisher_divergence,
    forward_step,
    kl,
    marginal,
    posterior,
    transition,
    wasserstein2,
)
from diffusion_math.grid import (
    GRIDS,
    Grid,
    karras,
    leading,
    linspace,
    trailing,
    uniform_log_snr,
)
from diffusion_math.guidance import cfg, cfg_batched, limited
from diffusion_math.noise import (
    Basis,
    BrownianPath,
    Noise,
    from_generator,
    from_seeds,
    none,
    start_noise,
)
from diffusion_math.sample import trajectory
from diffusion_math.schedule import (
    VE,
    Discrete,
    RectifiedFlow,
    Schedule,
    Time,
    VPCosine,
    VPLinear,
    coefficients,
    shape_like,
)
from diffusion_math.solvers.one_step import State, Step, ddim, ddpm, dpmpp_2m, euler, heun
from diffusion_math.solvers.registry import SOLVERS

__all__ = [
    "DENSITIES",
    "GRIDS",
    "SOLVERS",
    "VE",
    "Basis",
    "BrownianPath",
    "Denoiser",
    "Discrete",
    "Gaussian",
    "GaussianMixture",
    "Grid",
    "Labelled",
    "Network",
    "Noise",
    "RectifiedFlow",
    "Schedule",
    "State",
    "Step",
    "Time",
    "VPCosine",
    "VPLinear",
    "cfg",
    "cfg_batched",
    "checks",
    "coefficients",
    "cross_entropy",
    "curvature",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "elbo",
    "euler",
    "fisher_divergence",
    "forward_step",
    "from_eps",
    "from_flow",
    "from_generator",
    "from_score",
    "from_seeds",
    "from_v",
    "from_x0",
    "heun",
    "karras",
    "kl",
    "langevin",
    "langevin_law",
    "leading",
    "likelihood",
    "limited",
    "linspace",
    "loss",
    "marginal",
    "metrics",
    "multivariate",
    "none",
    "path",
    "posterior",
    "predict",
    "score_matching",
    "shape_like",
    "start_noise",
    "trailing",
    "trajectory",
    "transition",
    "uniform_log_snr",
    "wasserstein2",
]
