"""The exact reverse process: samples of the true reverse kernel, densities of whole paths.

The forward process from the data and the true reverse kernels from q(x_T) have the same joint
distribution of (x_0, ..., x_T), for any times between 0 and T. So sampling with the true kernels
is exact for any number of steps; samplers err by replacing the true kernel by a Gaussian.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math.checks import checked, require, strictly_decreasing
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import Schedule, Time

__all__ = ["path_log_density", "sample_clean", "sample_reverse"]


@checked
def sample_clean(
    mixture: GaussianMixture,
    generator: torch.Generator,
    schedule: Schedule,
    x: Float[Tensor, "batch *event"],
    t: Time,
) -> Float64[Tensor, "batch *event"]:
    """One sample of q(x_0 | x_t) for each x: a component by its responsibility, then a normal.

    Args:
        x: `(batch, *event)`, points at time t.
        t: a number or `()`, 0 < t <= T.

    Derivation: (reverse_kernel.5).

    >>> import torch
    >>> import diffusion_math as dm
    >>> from diffusion_math.densities.reverse_kernel import sample_clean
    >>> ring, generator = dm.DENSITIES["ring"](), torch.Generator().manual_seed(0)
    >>> x0 = sample_clean(ring, generator, dm.VPLinear(), torch.zeros(1000, 2), 0.9)
    >>> x0.norm(dim=1).mean().round(decimals=1)
    tensor(2., dtype=torch.float64)
    """
    edges = mixture.responsibilities(schedule, x, t).cumsum(1)[:, :-1].contiguous()
    uniform = torch.rand(len(x), 1, generator=generator, dtype=torch.float64, device="cpu").to(
        edges
    )
    chosen = torch.searchsorted(edges, uniform, right=True)[:, 0]
    samples = torch.empty_like(x, dtype=torch.float64)
    for k in set(chosen.tolist()):
        rows, one = chosen == k, mixture.among([k])
        around = one.reverse(schedule, mixture.means[k], t)
        noise = around.sample(generator, int(rows.sum())) - around.means
        samples[rows] = one.posterior_mean(schedule, x[rows].double(), t) + noise
    return samples


@checked
def sample_reverse(
    mixture: GaussianMixture,
    generator: torch.Generator,
    schedule: Schedule,
    x: Float[Tensor, "batch *event"],
    t: Time,
    s: Time = 0,
) -> Float64[Tensor, "batch *event"]:
    """One sample of the true reverse kernel for each x, by way of a sample of x_0.

        q(x_s | x_t) = int q(x_s | x_t, x_0) q(x_0 | x_t) dx_0

    Args:
        x: `(batch, *event)`, points at time t.
        t, s: numbers or `()`, 0 <= s < t <= T.

    Derivation: (reverse_kernel.4).
    Source: DDPM (arXiv:2006.11239), eq. 6, with a sample of x_0 in the place of a prediction.

    >>> import torch
    >>> import diffusion_math as dm
    >>> from diffusion_math.densities.reverse_kernel import sample_reverse
    >>> ring, generator = dm.DENSITIES["ring"](), torch.Generator().manual_seed(0)
    >>> x_t = torch.zeros(1000, 2)
    >>> x_s = sample_reverse(ring, generator, dm.VPLinear(), x_t, 0.9, s=0.5)
    >>> x_s.shape
    torch.Size([1000, 2])
    """
    x_0 = sample_clean(mixture, generator, schedule, x, t)
    bridge = gaussian.posterior(schedule, x.double(), x_0, t, s)
    return bridge.sample(
        torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(x_0)
    )


@checked
def path_log_density(
    mixture: GaussianMixture,
    schedule: Schedule,
    path: Sequence[Float[Tensor, "batch *event"]],
    grid: Float[Tensor, " nodes"],
) -> Float64[Tensor, " batch"]:
    """log q of whole paths, `(batch,)`: the data's plus those of the forward steps.

        log q(x_{t_0}, ..., x_{t_n}) = log q(x_{t_n}) + sum_i log q(x_{t_{i-1}} | x_{t_i})

    Args:
        path: a tensor `(batch, *event)` for each node, from the noisiest to the cleanest.
        grid: `(nodes,)`, t_0 > ... > t_n >= 0, the times of the path.

    Raises:
        ValueError: path and grid differ in length, or the grid does not decrease.

    Derivation: (reverse_kernel.3).

    >>> import torch
    >>> import diffusion_math as dm
    >>> from diffusion_math.densities.reverse_kernel import path_log_density
    >>> path = [torch.tensor([[x, 0.1]]) for x in (0.5, 1.0, 2.0)]
    >>> grid = torch.tensor([1.0, 0.5, 0.0])
    >>> path_log_density(dm.DENSITIES["ring"](), dm.VPLinear(), path, grid)
    tensor([-4.1634], dtype=torch.float64)
    """
    strictly_decreasing("grid", grid)
    require(len(path) == len(grid), "path", f"{len(grid)} tensors, one a node", f"{len(path)}")
    total = mixture.log_density(schedule, path[-1], grid[-1])
    for later, t, x, s in zip(path, grid, path[1:], grid[1:], strict=False):
        total = total + gaussian.transition(schedule, x.double(), s, t).log_density(later.double())
    return total
