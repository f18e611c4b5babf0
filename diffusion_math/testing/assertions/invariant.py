"""`assert_invariant`: a Markov kernel keeps a density, by moves from exact samples of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from scipy.special import ndtri
from torch import Tensor

from diffusion_math.checks import checked, require, whole
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import RectifiedFlow
from diffusion_math.testing.mistakes.probes import guarded, name_of, tensor
from diffusion_math.testing.problems import MIXTURE

__all__ = ["Target", "assert_invariant"]

SEED = 0x5EED
NORMAL = GaussianMixture(
    torch.zeros(1, dtype=torch.float64, device="cpu"),
    torch.tensor([[0.7, -0.4]], dtype=torch.float64, device="cpu"),
    torch.tensor([[[1.0, 0.6], [0.6, 0.8]]], dtype=torch.float64, device="cpu"),
)
TARGETS = {"a normal": NORMAL, "a mixture": MIXTURE}


@final
@dataclass(frozen=True, eq=False)
class Target:
    """A density of the plane, in float64 whatever the dtype of x, `(n, 2)`; results are like x."""

    density: GaussianMixture

    def log_density(self, x: Any) -> Tensor:
        """log q(x), `(n,)`, normalised; differentiable."""
        given = torch.as_tensor(x, device="cpu")
        zero = torch.zeros((), dtype=torch.float64, device="cpu")
        return self.density.log_density(RectifiedFlow(), given.double(), zero).to(given)

    def score(self, x: Any) -> Tensor:
        """grad log q(x), `(n, 2)`."""
        given = torch.as_tensor(x, device="cpu")
        zero = torch.zeros((), dtype=torch.float64, device="cpu")
        return self.density.score(RectifiedFlow(), given.double(), zero).to(given)


def torch_stream(seed: int) -> torch.Generator:
    """A generator of torch."""
    return torch.Generator().manual_seed(seed)


@checked
def assert_invariant(
    make: Callable[..., Any],
    *,
    moves: int = 5,
    count: int = 2**16,
    rate: float = 1e-6,
    stream: Callable[[int], Any] = torch_stream,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check that the kernel `make(target)`, `(x, rng) -> x`, keeps its target's density.

    Exact samples of a normal and of a mixture are moved. The means of x, of its products x_i x_j,
    of the energy -log q and of its square then stay what they are. Each difference is taken sample
    by sample, so that short moves show too, and its mean is within

        z s / sqrt(count),    s its deviation, z the normal quantile of rate / (2 x 14).

    Right code fails with a probability of `rate` at most, by the normal approximation to the mean
    of `count` independent samples. The samples and the kernel have independent streams of ours,
    with fixed seeds, so that a verdict is the same every time.

    Args:
        make: takes a `Target` with `log_density(x)` and `score(x)`. Choose a step size at which a
            tenth or more of the proposals is rejected: an error of acceptance shows there.
        moves: how many moves are made one after the other.
        count: how many chains, each x of shape `(count, 2)`.
        rate: the probability of a false alarm, in (0, 0.5).
        stream: seed to what is given as rng: by default torch's generator; `np.random.default_rng`
            or `jax.random.key` do as well.
        dtype: that of x.

    Raises AssertionError that names each mean that moved, and by how much; for a kernel that does
    not move at all; and for one whose result is not fixed by rng. ValueError for arguments that are
    none. For affine kernels `assert_stationary` is exact. Source: Metropolis et al. (1953),
    doi:10.1063/1.1699114.

    >>> import torch
    >>> from diffusion_math.testing import assert_invariant
    >>> def metropolis(target, accept=True):
    ...     def kernel(x, rng):
    ...         y = x + 0.7 * torch.randn(x.shape, generator=rng, dtype=x.dtype)
    ...         ratio = target.log_density(y) - target.log_density(x)
    ...         u = torch.rand(len(x), generator=rng, dtype=x.dtype)
    ...         return torch.where((u.log() < ratio)[:, None] | (not accept), y, x)
    ...     return kernel
    >>> assert_invariant(metropolis, count=4096)
    >>> assert_invariant(lambda target: metropolis(target, accept=False), count=4096)
    Traceback (most recent call last):
    ...
    AssertionError: kernel: does not keep a normal, in 5 moves of 4096 exact samples
    ...
    """
    whole("moves", moves, 1)
    whole("count", count, 100)
    require(0 < rate < 0.5, "rate", "a number in (0, 0.5)", rate)
    limit = -float(ndtri(rate / (2 * len(TARGETS) * 7)))
    for k, (name, density) in enumerate(TARGETS.items()):
        target = Target(density)
        kernel = guarded("make", make)(target)
        subject = name_of(kernel, "kernel")
        x = density.sample(torch_stream(SEED + k), count).to(dtype)
        y = _moved(subject, kernel, x, stream, SEED + 1000 + k, moves)
        before, after = _means(target, x.double()), _means(target, y)
        wrong = list(_shifts(before, after, limit))
        assert not wrong, "\n".join(
            [f"{subject}: does not keep {name}, in {moves} moves of {count} exact samples", *wrong]
        )


def _moved(
    subject: str,
    kernel: Callable[..., Any],
    x: Tensor,
    stream: Callable[[int], Any],
    seed: int,
    moves: int,
) -> Tensor:
    """The samples after the moves; AssertionError where none moved or where rng fixes nothing."""
    call = guarded(subject, kernel)
    first, again = (tensor(subject, call(x.clone(), stream(seed)), x)[0] for _ in range(2))
    assert torch.equal(first, again), f"{subject}: draws noise that is not of rng: two runs differ"
    moved = (first != x.double()).any(1)
    assert bool(moved.any()), f"{subject}: moves none of {len(x)} samples"
    for move in range(1, moves):
        first, _ = tensor(subject, call(first.to(x), stream(seed + 7919 * move)), x)
    assert bool(first.isfinite().all()), f"{subject}: moves samples to NaN or infinity"
    return first


def _means(target: Target, x: Tensor) -> Mapping[str, Tensor]:
    """What is averaged, `(n,)` each."""
    energy = -target.log_density(x)
    return {
        "x_0": x[:, 0],
        "x_1": x[:, 1],
        "x_0 x_0": x[:, 0] ** 2,
        "x_0 x_1": x[:, 0] * x[:, 1],
        "x_1 x_1": x[:, 1] ** 2,
        "the energy": energy,
        "the energy squared": energy**2,
    }


def _shifts(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], limit: float
) -> Iterator[str]:
    """A line for each mean that moved by more than chance does."""
    for name, value in before.items():
        moved = after[name] - value
        mean, error = float(moved.mean()), float(moved.std() / len(moved) ** 0.5)
        if not abs(mean) <= limit * error:
            yield (
                f"  the mean of {name} went from {float(value.mean()):.5g} to "
                f"{float(after[name].mean()):.5g}: {abs(mean) / error:.1f} standard errors "
                f"(limit {limit:.2f})"
            )
