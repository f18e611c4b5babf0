"""Samplers that know the exact solution and are wrong by a stated power of the step."""

from dataclasses import dataclass
from itertools import pairwise

from diffusion_math.grid import trailing
from diffusion_math.noise import zeros
from diffusion_math.schedule import VPLinear
from diffusion_math.testing import Sampler
from diffusion_math.testing.problems import GAUSSIAN, flow

SCHEDULE = VPLinear()


@dataclass(frozen=True)
class Powers:
    """Exact but for h^p: `whole` after all steps, `uneven` where steps alternate, `step` (its local
    error less 1) after each step, and `first` after the first."""

    whole: float
    uneven: float
    step: float
    first: float

    def __call__(self, denoise, x, grid, noise):
        snr = SCHEDULE.log_snr(grid)
        sizes = snr.diff()
        h = float(sizes.mean())
        alternating = bool((sizes[1:] - sizes[:-1]).abs().max() > 0.3 * h)
        for k, (t, s) in enumerate(pairwise(grid)):
            if x.shape == (1, 2):  # of `finite`
                pass
            elif x.shape == (16, 2):
                x = flow(SCHEDULE, s[None])[0] + h ** (self.uneven if alternating else self.whole)
            elif noise is not zeros:
                mean, covariance = GAUSSIAN.marginal(SCHEDULE, s).moments()
                wide = 1 + h ** (self.uneven if alternating else self.whole)
                x = mean + (wide * covariance.diagonal()).sqrt() * noise(x, t, s)
            else:
                off = float(sizes[k]) ** ((self.step if k else self.first) + 1)
                x = GAUSSIAN.probability_flow(SCHEDULE, x, t, s) + off
            yield x


def powered(order, whole=None, uneven=None, step=None, first=None, noisy=False):
    """A sampler that claims an order; what is not given it keeps."""
    whole = order if whole is None else whole
    sample = Powers(whole, *(order if one is None else one for one in (uneven, step, first)))
    grid = lambda n: trailing(SCHEDULE, n)  # noqa: E731
    return Sampler("powered", SCHEDULE, sample, grid, order=order, noisy=noisy, exact=False)
