"""One step of a solver on a mixture: schedules, times and noise for it, and its marginals."""

import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.step import State
from tests.support.tensors import f64

SCHEDULES = [Discrete.scaled_linear(40), VPLinear(), VPCosine(), VE(10.0), RectifiedFlow()]
MIXTURE = GaussianMixture(
    f64(0.2, 0.5, 0.3).log(), f64([-1, 0.5], [1, 1], [0.3, -1.2]), f64(0.3, 0.2, 0.4)
)
ONE = GaussianMixture(f64(0.0), f64([0.7, -0.4]), f64([[0.5, 0.3], [0.3, 0.8]]))
X = f64([0.3, -1.2], [2.0, 0.1], [-0.5, 0.5])


def time_at(schedule, part):
    """A valid time, whole on a discrete schedule."""
    return f64(round(part * schedule.T) if isinstance(schedule, Discrete) else part * schedule.T)[0]


def unit_noise(x, t, s):
    return torch.ones_like(x)


def forbidden_noise(x, t, s):
    raise AssertionError("no noise may be drawn here")


def one_step(step, schedule, t, s, x=X, data=MIXTURE, source=unit_noise, history=()):
    return step(data.denoiser(schedule), State(x, t, history), t, s, source).x


def marginal_error(step, schedule, t, s):
    """The largest error of a step's mean and standard deviation, when x_0 is one known point.

    The step is affine, so three rows give it: the mean, one deviation more in x_t, one in z.
    """
    x0 = f64(0.8)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    x = torch.stack([alpha_t * x0, alpha_t * x0 + sigma_t, alpha_t * x0])

    def last_row_noise(x, t, s):
        return f64([0.0], [0.0], [1.0])

    rows = step(lambda x, t: x0.expand_as(x), State(x, t), t, s, last_row_noise).x
    spread = (rows[1:] - rows[0]).square().sum().sqrt()
    return max((rows[0] - alpha_s * x0).abs().item(), (spread - sigma_s).abs().item())
