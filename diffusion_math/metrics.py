"""Distances between two sets of samples: energy distance with its standard error, W2.

In the limit of many samples both are zero only between equal distributions. Neither needs a
bandwidth, bins or a trained network.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import checked, require


class Estimate(NamedTuple):
    """A number and the standard error of its estimate.

    >>> import torch
    >>> import diffusion_math as dm
    >>> value, error = dm.metrics.Estimate(value=0.02, error=0.01)
    >>> value / error
    2.0
    """

    value: float
    error: float


@checked
def energy_distance(x: Float[Tensor, "n *event"], y: Float[Tensor, "m *other"]) -> Estimate:
    """The squared energy distance: an unbiased estimate, which may be negative.

        2 E|X - Y| - E|X - X'| - E|Y - Y'|,    |.| the Euclidean norm of the flattened event

    Its standard error is that of Hoeffding's projection, the mean of each sample's own part. It
    vanishes for equal distributions; the estimate's deviation is then of order 1/n.

    Args:
        x, y: `(n, *event)` and `(m, *event)`, independent samples, n, m >= 2.

    Raises:
        ValueError: fewer than two samples, or events of different shapes.

    Derivation: (metrics.1), (metrics.3), (metrics.4).
    Source: Szekely & Rizzo 2013, "Energy statistics", J. Stat. Plan. Inference 143.

    >>> import torch
    >>> import diffusion_math as dm
    >>> data, generator = dm.DENSITIES["ring"](), torch.Generator().manual_seed(0)
    >>> x, y = data.sample(generator, 500), data.sample(generator, 500) + 1.0
    >>> round(dm.metrics.energy_distance(x, y).value, 1)
    0.6
    """
    x, y = _flattened(x, y)
    between = pairwise_distances(x, y)
    own_x, own_y = (pairwise_distances(z, z).sum(1) / (len(z) - 1) for z in (x, y))
    value = 2 * between.mean() - own_x.mean() - own_y.mean()
    parts = 2 * (between.mean(1) - own_x), 2 * (between.mean(0) - own_y)
    variance = sum((part.var() / len(part) for part in parts), torch.zeros((), device="cpu"))
    return Estimate(float(value), float(variance.sqrt()))


@checked
def empirical_wasserstein2(
    x: Float[Tensor, "n *event"], y: Float[Tensor, "m *other"]
) -> Float64[Tensor, ""]:
    """W2 between two sets of n points each, by an exact optimal assignment.

        W2^2 = min over permutations p of 1/n sum_i norm(x_i - y_p(i))^2

    Between samples of one distribution it is not zero (about n^(-1/2) in the plane): compare it
    with that floor. It takes time n^3; n = 2,000 is a second.

    Raises ValueError unless x and y have one shape and hold 1 point or more.
    Derivation: (metrics.5).
    Source: Peyre & Cuturi 2019, arXiv:1803.00567, section 2.2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> dm.metrics.empirical_wasserstein2(x, x.flip(0) + torch.tensor([0.0, 2.0]))
    tensor(2., dtype=torch.float64)
    """
    from scipy.optimize import linear_sum_assignment

    x, y = _flattened(x, y, least=1)
    require(len(x) == len(y), "y", f"{len(x)} points, as in x", len(y))
    cost = pairwise_distances(x, y).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    paired: Tensor = cost[torch.from_numpy(rows), torch.from_numpy(columns)]
    return paired.mean().sqrt()


@checked
def pairwise_distances(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> Float64[Tensor, "n m"]:
    """Pairwise distances norm(x_i - y_j), from the differences themselves, in float64.

    An expanded square (`torch.cdist`, for more than 25 points) loses norm(x)^2 eps to rounding,
    which is all of the distance between points that lie far out and close together.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.metrics.pairwise_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[5., 1.]], dtype=torch.float64)
    """
    from scipy.spatial.distance import cdist

    points = (z.detach().to("cpu", torch.float64).numpy() for z in (x, y))
    return torch.from_numpy(cdist(*points))


def _flattened(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both as `(n, D)` float64 on the CPU, checked."""
    for name, points in (("x", x), ("y", y)):
        wanted = f"{least} points or more"
        require(points.ndim > 0 and len(points) >= least, name, wanted, tuple(points.shape))
    same = x.shape[1:] == y.shape[1:]
    require(same, "y", f"events of shape {tuple(x.shape[1:])}", tuple(y.shape[1:]))
    a, b = (points.detach().to("cpu", torch.float64).reshape(len(points), -1) for points in (x, y))
    return a, b
