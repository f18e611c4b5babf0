"""Distances between sets of images by their features, and between single images by their pixels."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion_math.densities.multivariate import Multivariate, wasserstein2
from diffusion_math.metrics import pairwise_distances
from sd.files.image_tensor import signed
from sd.networks.vae import Autoencoder

CELLS = 4
"""Rows and columns of the features of an image, or fewer of a smaller latent."""
SUBSETS = 50
"""Random halves from which KID's standard error is found."""

Features = Float[Tensor, "n feature"]


@torch.no_grad()
def features(vae: Autoencoder, images: UInt8[Tensor, "n 3 side side"], batch: int = 50) -> Features:
    """The VAE's mean latent of each image, averaged over at most 4 x 4 cells, in float64."""
    found = []
    for some in images.split(batch):
        mean = vae.encode(signed(some)).mean.float()
        cells = [min(CELLS, side) for side in mean.shape[2:]]
        found.append(F.adaptive_avg_pool2d(mean, cells).flatten(1).double())
    return torch.cat(found)


def frechet_distance(x: Features, y: Features) -> float:
    """FID: W2^2 between the Gaussians of the features' means and covariances.

        norm(m_x - m_y)^2 + tr(C_x + C_y - 2 (C_x C_y)^{1/2})

    It is biased upwards, by some D / n of n samples of D features; compare sets of equal size.
    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    one, other = (Multivariate(z.mean(0), torch.cov(z.T)) for z in (x, y))
    return float(wasserstein2(one, other) ** 2)


def kernel_distance(x: Features, y: Features) -> tuple[float, float]:
    """KID: the unbiased squared MMD of the kernel (a.b / D + 1)^3, with a standard error.

    It may be negative. The error is the standard deviation over random halves: the mean of half of
    n samples, drawn without replacement, deviates from the mean of all by s / sqrt(n).
    Source: Binkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    value = _mmd(x, y)
    generator = torch.Generator().manual_seed(0)
    halves = []
    for _ in range(SUBSETS):
        a, b = (z[torch.randperm(len(z), generator=generator)[: len(z) // 2]] for z in (x, y))
        halves.append(_mmd(a, b))
    return value, float(torch.tensor(halves).std())


def _mmd(x: Features, y: Features) -> float:
    def kernel(a: Features, b: Features) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(z: Features) -> Tensor:
        k = kernel(z, z)
        return (k.sum() - k.diagonal().sum()) / (len(z) * (len(z) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def nearest(
    images: UInt8[Tensor, "n 3 side side"], others: UInt8[Tensor, "m 3 side side"]
) -> tuple[Tensor, Tensor]:
    """The root mean squared difference of pixels to the nearest other image, and its number."""
    flat = [x.flatten(1).double() for x in (images, others)]
    distance = pairwise_distances(*flat) / math.sqrt(flat[0].shape[1])
    found = distance.min(dim=1)
    return found.values, found.indices
