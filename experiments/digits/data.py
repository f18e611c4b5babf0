"""Scikit-learn's 8 x 8 digits as data, and what simple models of them need to write them down."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from diffusion_math.checks import require, whole
from diffusion_math.densities.multivariate import Multivariate
from diffusion_math.elbo import quantized_log_probability
from diffusion_math.gaussian import Gaussian
from diffusion_math.metrics import pairwise_distances
from experiments.common.statistics import seeded

COUNT = 1797
"""Images in the data set; each pixel is the number of ink dots in a 4 x 4 block, 0 to 16."""

SIDE = 8
"""Height and width of a digit in pixels."""

LEVELS = 17
"""x_0 = level / 8 - 1, so that levels lie 1/8 apart on [-1, 1], exact in every dtype."""


@dataclass(frozen=True, eq=False)
class Digits:
    """x: `(n, 64)` in [-1, 1], float32, -1 where there is no ink. labels: `(n,)`, 0 to 9."""

    x: Tensor
    labels: Tensor


def load(held_out: int, seed: int) -> tuple[Digits, Digits]:
    """The digits in a random order, cut in two: to train on, and `held_out` to judge with.

    Raises ValueError unless 2 <= held_out <= 1697. Source: scikit-learn's `load_digits`, the test
    set of Alpaydin & Kaynak 1998, doi:10.24432/C50P49.
    """
    from sklearn.datasets import load_digits  # an extra, whose import draws a random number

    whole("held_out", held_out, 2, COUNT - 100)
    levels, labels = (torch.from_numpy(one) for one in load_digits(return_X_y=True))
    order = torch.randperm(len(levels), generator=seeded(seed))
    x = from_levels(levels).float()
    train, test = order[held_out:], order[:held_out]
    return Digits(x[train], labels[train]), Digits(x[test], labels[test])


def enlarged(digits: Digits, side: int) -> Digits:
    """The digits with `side` x `side` pixels, a multiple of 8: each pixel is repeated."""
    times = side // SIDE
    x = digits.x.unflatten(1, (SIDE, SIDE))
    wide = x.repeat_interleave(times, 1).repeat_interleave(times, 2)
    return Digits(wide.flatten(1), digits.labels)


def reduced(x: Tensor) -> Tensor:
    """The inverse of `enlarged` on x `(n, side^2)`: the means of the blocks, `(n, 64)`."""
    side = math.isqrt(x.shape[1])
    return avg_pool2d(x.unflatten(1, (1, side, side)), side // SIDE).flatten(1)


def to_levels(x: Tensor) -> Tensor:
    """The nearest of the levels 0..16, `(n, 64)`, in x's dtype."""
    return ((x.clamp(-1, 1) + 1) * 8).round()


def from_levels(levels: Tensor) -> Tensor:
    """level / 8 - 1."""
    return levels / 8 - 1


def image(x: Tensor) -> Any:
    """Ink on paper, `(8, 8, 3)` bytes, of one digit `(64,)`."""
    gray = (255 - to_levels(x) * 255 / (LEVELS - 1)).round().to(torch.uint8)
    return gray.reshape(8, 8, 1).expand(8, 8, 3).numpy()


def classifier(train: Digits) -> Any:
    """A support vector machine on the levels, for `agrees`. Its training is deterministic."""
    from sklearn.svm import SVC  # an extra

    return SVC(gamma=0.001).fit(to_levels(train.x).numpy(), train.labels.numpy())


def agrees(classifier: Any, x: Tensor, labels: Tensor) -> list[bool]:
    """Whether the classifier reads each digit as its label."""
    read = classifier.predict(to_levels(x).to(torch.float32).numpy())
    return list((read == labels.numpy()).tolist())


def level_log_probability(p: Gaussian, x0: Tensor) -> Tensor:
    """log P(x0) of the 17 levels under a Gaussian, summed over the pixels, `(batch,)` (C15).

        P(x) = Phi((x + 1/16 - mean) / std) - Phi((x - 1/16 - mean) / std)

    By `quantized_log_probability`, with 17 levels laid on the first 17 of its 256. So the bin of
    level 0 is open below; that of level 16 ends at 17/16, and what lies above it is given to no
    level. P sums to no more than 1, and a bound on -log P(x_0) remains one.
    """
    scale = (LEVELS - 1) / 255
    laid = Gaussian((p.mean + 1) * scale - 1, p.variance * scale**2)
    return quantized_log_probability(laid, (x0 + 1) * scale - 1)


def histogram_bits(train: Digits, digits: Digits) -> Tensor:
    """Bits a pixel of each digit, `(n,)`, where every pixel has its own histogram of 17 levels.

    Counted over the training digits, one added to each count (Laplace), pixels independent.
    """
    counts = torch.nn.functional.one_hot(to_levels(train.x).long(), LEVELS).sum(0) + 1
    log_p = (counts / counts.sum(1, keepdim=True)).log2()
    each = log_p.gather(1, to_levels(digits.x).long().mT)
    return -each.mean(0).double()


def shuffled(train: Digits, n: int, generator: torch.Generator) -> Tensor:
    """`(n, 64)` samples of independent pixels, each from the training digits' own values there."""
    rows = torch.randint(len(train.x), (n, train.x.shape[1]), generator=generator)
    return train.x.gather(0, rows)


def copies(train: Digits, test: Digits, x: Tensor, share: float = 0.05) -> list[bool]:
    """Whether each draw is nearer to a training digit than all but `share` of held-out digits are.

    Of fresh digits that is true of about the same share; of copies, always.
    """

    fresh, drawn = (pairwise_distances(points, train.x).amin(1) for points in (test.x, x))
    return list((drawn < fresh.double().quantile(share)).tolist())


def normal(train: Digits, generator: torch.Generator) -> Multivariate:
    """One normal with the mean and covariance of the training digits, spread over their bins."""
    x = torch.cat([_spread(train.x, generator) for _ in range(8)])
    return Multivariate(x.mean(0), torch.cov(x.mT))


def normal_bits(p: Multivariate, digits: Digits, generator: torch.Generator) -> Tensor:
    """Bits a pixel of each digit, `(n,)`, of a density that is integrated over the bins: a bound.

        -log2 P(x) <= -E log2 p(x + u) - D log2(1/8),    u uniform on [-1/16, 1/16]^D

    by Jensen, one sample of u. Source: Theis et al. (arXiv:1511.01844), section 3.1.
    """
    x = _spread(digits.x, generator)
    D = x.shape[1]
    return -p.log_density(x).double() / (D * math.log(2)) + 3


def _spread(x: Tensor, generator: torch.Generator) -> Tensor:
    require(x.ndim == 2, "x", "shape (n, D)", tuple(x.shape))
    uniform = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    return x.double() + (uniform - 0.5) / 8
