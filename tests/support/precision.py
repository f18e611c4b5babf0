"""What `precision_cases` calls public functions on.

Inputs are numbers that float16 and bfloat16
both hold, so that a case in float64 is the truth of the same case in either.
"""

import torch

from diffusion_math import _batching, langevin, noise, sample, schedule
from diffusion_math.densities import _quadratic_forms, mixture, multivariate
from diffusion_math.densities.labelled import Labelled
from diffusion_math.fitting import weights as fitted
from diffusion_math.gaussian import Gaussian
from diffusion_math.solvers import linear
from tests.support.chance import pinned

WAY = schedule.VPLinear()
T, S = (torch.tensor(time, dtype=torch.float64, device="cpu") for time in (0.5, 0.3))
TIMES = torch.tensor([0.5, 0.7], dtype=torch.float64, device="cpu")
GRID = torch.tensor([0.8, 0.6, 0.4, 0.2], dtype=torch.float64, device="cpu")


def held(seed, *shape, scale=1.0):
    """Normals that both narrow dtypes hold, in float64."""
    z = scale * torch.randn(shape, generator=pinned(seed), dtype=torch.float64, device="cpu")
    return z.bfloat16().half().double()


# Large: 6144 entries, of which a sum of squares passes float16's end. Small: for Jacobians.
X, Y, Z = (held(k, 2, 3, 32, 64, scale=4.0) for k in range(3))
A, B, C = (held(k, 2, 3) for k in range(3))
PLANE = held(9, 2, 2)
TABLE = schedule.Discrete.scaled_linear(40)
MIX = mixture.GaussianMixture(
    torch.zeros(2, device="cpu"), held(5, 2, 3), torch.tensor([0.5, 2.0], device="cpu")
)
ONE = mixture.GaussianMixture(
    torch.zeros(1, device="cpu"), held(5, 1, 3), torch.tensor([0.5], device="cpu")
)
LABELLED = Labelled(MIX, torch.tensor([0, 1], device="cpu"))
WIDE = multivariate.Multivariate(held(6, 3), torch.eye(3, dtype=torch.float64, device="cpu"))


def halved(x, t=None):
    return x / 2


def replayed(x, t, s):
    """Noise that does not depend on the dtype."""
    z = Z if x.shape == Z.shape else held(3, *x.shape)
    return z.to(x)


def ended(make, to, x=X, grid=GRID):
    return sample.final(make(WAY), halved, to(x), grid, replayed)


def pair(to):
    return lambda x, t: (to(X), to(Y))


def normals(to, x=X, y=Y):
    """Two Gaussians, of other means and variances."""
    one = to(torch.tensor(1.5, dtype=torch.float64, device="cpu"))
    return Gaussian(to(x), one), Gaussian(to(y), 2 * one)


def both(law):
    return law.mean, law.variance


def at(method, to, *more):
    return method(WAY, to(A), T, *more)


def energy(x):
    return -_batching.inner(x, x) / 2, -x


def last(move, to):
    *_, end = langevin.chain(move, to(X), 3, replayed)
    return end.x


def fine(to):
    """A path of four nodes, of a flow that is half of x."""
    return fitted.FinePath(GRID, [to(A), to(B), to(C), to(A + B)])


def turned(maker):
    """The noise of a source, its own answer: rounding alone."""
    return lambda to: maker(to(A), T, S)


FEW = held(7, 20, 3), held(8, 20, 3)
TARGET, START = (Gaussian(held(k, 2, 3), held(k, 2, 3).abs() + 1) for k in (10, 11))
UNITS = noise.UnitNoise(GRID, (3,))
WEIGHTS = torch.tensor(
    [[0.5, 0.25, 0, 0], [0.5, 0.25, 0.5, 0], [0.75, 0.5, 0.25, 0.5]], device="cpu"
).double()
QUADRATIC = _quadratic_forms.forms(
    torch.tensor(0.5, device="cpu").double(),
    _quadratic_forms.Means(A),
    torch.ones(2, 3, device="cpu").double(),
)


def narrow(law, to):
    return Gaussian(to(law.mean), to(law.variance))


def linear_end(to, weights):
    """Where these weights' own walk ends: what rounding may do to them shows there."""
    end = sample.final(linear.from_weights(GRID, weights), halved, to(A), GRID)
    return end
