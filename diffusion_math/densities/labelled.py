"""Mixtures with class labels: exact conditional scores, denoisers and noisy classifier.

Every conditional is a mixture, and Bayes' rule relates it to the whole at any noise level:

    q_t(x) = sum_y P(y) q_t(x | y),      P(y | x_t) = P(y) q_t(x | y) / q_t(x)
    E[x_0 | x_t] = sum_y P(y | x_t) E[x_0 | x_t, y]
    grad log P(y | x_t) = grad log q_t(x | y) - grad log q_t(x)

Derivation: (labelled.2), (labelled.3), (labelled.4), (labelled.5).
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import Schedule, Time

__all__ = ["Labelled"]


@final
@checked
@dataclass(frozen=True, eq=False)
class Labelled:
    """q(x_0, y): the component of `mixture` that x_0 comes from has the label y.

    Attributes:
        mixture: the marginal distribution of x_0.
        labels: `(K,)` integers 0..L-1, the label of each component; every label occurs.

    Raises:
        ValueError: not one label for each component, or a label is left out.

    >>> import torch
    >>> import diffusion_math as dm
    >>> ring = dm.DENSITIES["ring"]()
    >>> data = dm.densities.Labelled(ring, torch.tensor([0, 1] * 4))
    >>> data.given(1).means.shape
    torch.Size([4, 2])
    >>> data.log_posterior(dm.VPLinear(), torch.tensor([[2.0, 0.0]]), 0.2).exp()
    tensor([[0.8780, 0.1220]], dtype=torch.float64)
    """

    mixture: GaussianMixture
    labels: Int64[Tensor, " K"]

    def __post_init__(self) -> None:
        wanted, got = (len(self.mixture.means),), tuple(self.labels.shape)
        require(got == wanted, "labels", f"shape {wanted}", f"shape {got}")
        found = sorted(set(self.labels.tolist()))
        require(found == list(range(len(found))), "labels", "0..L-1, each at least once", found)

    @property
    def count(self) -> int:
        """L, the number of labels."""
        return int(self.labels.max()) + 1

    @checked
    def given(self, label: int) -> GaussianMixture:
        """q(x_0 | y = label): the label's components, their weights renormalised.

        Raises ValueError for an unknown label. Derivation: (labelled.1).
        """
        require(0 <= label < self.count, "label", f"one of 0..{self.count - 1}", label)
        return self.mixture.among((self.labels == label).nonzero()[:, 0].tolist())

    @checked
    def log_posterior(
        self, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
    ) -> Float64[Tensor, "batch L"]:
        """log P(y | x_t = x): the exact classifier of noisy points, `(batch, L)`.

        log P(y | x_t) = log P(y) + log q_t(x | y) - log q_t(x)

        Derivation: (labelled.3).
        """
        whole = self.mixture.log_density(schedule, x, t)
        each = [
            self.log_prior[y] + self.given(y).log_density(schedule, x, t) - whole
            for y in range(self.count)
        ]
        return torch.stack(each, dim=1)

    @property
    def log_prior(self) -> Float64[Tensor, " L"]:
        """log P(y): the log of the sum of the label's weights, `(L,)`. Derivation: (labelled.1)."""
        of = [self.mixture.log_weights[self.labels == y].logsumexp(0) for y in range(self.count)]
        return torch.stack(of)
