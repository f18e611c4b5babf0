"""Noise sources: a `Noise` returns the standard normal of the step from t to s.

A solver calls noise(x, t, s). The result depends on the step and not on the number of earlier
calls. So a run can be replayed, share its noise with other grids, or get unit vectors instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math._batching import wide
from diffusion_math.checks import Number, checked, require, strictly_decreasing, whole

Noise: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(x, t, s) -> z`: standard normal like x (shape, dtype, device) for the step from t to s."""


_KEY = Struct("<8sQdd")  # torch.compile breaks on struct.pack


def zeros(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Zeros: a stochastic solver then computes the mean of each step.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.noise.zeros(torch.ones(1, 2), torch.tensor(1.0), torch.tensor(0.5))
    tensor([[0., 0.]])
    """
    return torch.zeros_like(x)


def required(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The default of samplers: raises ValueError, so a stochastic solver needs a noise source.

    Deterministic solvers never call it.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.noise.required(torch.ones(1, 2), torch.tensor(1.0), torch.tensor(0.5))
    Traceback (most recent call last):
        ...
    ValueError: noise: wanted a noise source for a stochastic solver ...got nothing
    """
    wanted = "a noise source for a stochastic solver (from_seeds, from_generator, zeros)"
    raise ValueError(f"noise: wanted {wanted}, got nothing")


@checked
def from_generator(generator: torch.Generator) -> Noise:
    """New samples from one generator at every call, on its device: fast, but not replayable.

    >>> import torch
    >>> import diffusion_math as dm
    >>> noise = dm.noise.from_generator(torch.Generator().manual_seed(0))
    >>> noise(torch.zeros(2, 3), torch.tensor(1.0), torch.tensor(0.5)).shape
    torch.Size([2, 3])
    """

    def noise(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
        return z.to(x.device)

    return noise


@checked
def from_seeds(seeds: Sequence[int]) -> Noise:
    """One seed per sample: sample i's noise is a function of seeds[i], t and s alone.

    The returned noise takes x of shape (len(seeds), *event) and t, s of shape () or (batch,). It is
    generated on the CPU in float32 and then moved, so all devices and dtypes get the same numbers.
    Times count to 10 significant digits: the last bits of a grid differ from one CPU to another.
    Seeds are whole numbers in a sequence, an array or a tensor.
    Raises ValueError for a seed outside [0, 2^64) or a batch that is not len(seeds).
    Derivation: (noise.1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x, t, s = torch.zeros(2, 3), torch.tensor(1.0), torch.tensor(0.5)
    >>> pair, alone = dm.from_seeds([7, 8])(x, t, s), dm.from_seeds([8])(x[:1], t, s)
    >>> torch.equal(pair[1:], alone)
    True
    """
    checked = _valid_seeds(seeds)

    def noise(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        _check_batch(x, checked)
        times = zip(_each(t, checked), _each(s, checked), strict=True)
        samples = [
            _normal(("step", i, *step), x.shape[1:]) for i, step in zip(checked, times, strict=True)
        ]
        return _stack(samples, x.shape, x.dtype).to(x.device)

    return noise


@checked
def start_noise(
    seeds: Sequence[int], shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch *event"]:
    """Standard normals (len(seeds), *shape) on the CPU to start from, one seed per sample.

    Generated in float32 for every dtype, so the start is the same on every device. Independent of
    `from_seeds(seeds)`. Raises ValueError for a seed outside [0, 2^64).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.start_noise(seeds=range(3), shape=(4, 64, 64)).shape
    torch.Size([3, 4, 64, 64])
    """
    checked = _valid_seeds(seeds)
    samples = [_normal(("start", seed, 0.0, 0.0), shape) for seed in checked]
    return _stack(samples, (len(checked), *shape), dtype)


@final
@checked
@dataclass(frozen=True)
class BrownianPath:
    """One Brownian path W per sample on [0, T]; its noise is (W(t) - W(s)) / sqrt(t - s).

    Fine and coarse grids share the path, so a solver's strong error can be measured. W is
    Levy's construction, W(mid) = (W(lo) + W(hi)) / 2 + sqrt((hi - lo) / 4) z(mid), on the dyadic
    lattice of T / 2^levels; times are rounded to it and the increment is divided by the root of
    the rounded t - s, so each noise is exactly standard normal.

    seeds: one in [0, 2^64) per sample; T: the last time; levels: 1..52.
    Calling raises ValueError for times outside [0, T], for t and s that round to one lattice
    point, and for a batch that is not len(seeds). Derivation: (noise.2), (noise.4).

    >>> import torch
    >>> import diffusion_math as dm
    >>> path, x = dm.noise.BrownianPath((0,), T=1.0), torch.zeros(1, 2)
    >>> t, m, s = torch.tensor([1.0, 0.5, 0.0])
    >>> fine = (path(x, t, m) + path(x, m, s)) / 2**0.5
    >>> torch.allclose(path(x, t, s), fine)
    True
    """

    seeds: tuple[int, ...]
    T: Number
    levels: int = 24

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", _valid_seeds(self.seeds))
        require(0 < self.T < math.inf, "T", "a positive finite time", self.T)
        whole("levels", self.levels, 1, 52)

    @checked
    def __call__(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        _check_batch(x, self.seeds)
        here, there = self._node(t), self._node(s)
        require(there < here, "t - s", f"at least T / 2^{self.levels}", (float(t), float(s)))
        spread = math.sqrt((here - there) / 2**self.levels)
        samples = [
            (self._value(i, here, x.shape[1:]) - self._value(i, there, x.shape[1:])) / spread
            for i in self.seeds
        ]
        return _stack(samples, x.shape, x.dtype).to(x.device)

    def _node(self, t: Tensor) -> int:
        require(0 <= float(t) <= self.T, "t, s", f"times in [0, {self.T:g}]", float(t))
        return round(float(t) / self.T * 2.0**self.levels)

    def _value(self, seed: int, node: int, shape: Sequence[int]) -> Tensor:
        """W at a lattice point, in units of sqrt(T), by bisection of [0, 1]."""
        low, high = 0, 2**self.levels
        at_low = torch.zeros(tuple(shape), dtype=torch.float64, device="cpu")
        at_high = _normal(("path", seed, 1.0, 0.0), shape).double()
        while node not in (low, high):
            mid = (low + high) // 2
            z = _normal(("path", seed, mid / 2**self.levels, 0.0), shape)
            at_mid = (at_low + at_high) / 2 + math.sqrt((high - low) / 2**self.levels / 4) * z
            low, high = (low, mid) if node <= mid else (mid, high)
            at_low, at_high = (at_low, at_mid) if high == mid else (at_mid, at_high)
        return at_low if node == low else at_high


@final
@checked
@dataclass(frozen=True, eq=False)
class UnitNoise:
    """Unit vectors as noise: one run gives a linear sampler's exact mean and covariance.

    With a denoiser that is affine in x (Gaussian data), x_end is affine in the start and in each
    step's noise. Row 0 of the batch has no noise. The next D rows move the start by unit vectors,
    then D rows for each step of the grid move its noise. Run `trajectory` from `start(...)` with
    this as its noise; `mean` and `covariance` of the last state are then those of the sampler's
    output.

    grid: (nodes,) strictly decreasing times; event: the event's shape, of D entries.
    Calling raises ValueError for a step that is not the grid's, or a batch that is not `rows`.
    Derivation: (noise.5), (noise.6).

    >>> import torch
    >>> import diffusion_math as dm
    >>> data = dm.GaussianMixture(*torch.tensor([[0.0], [3.0], [0.25]]))  # N(3, 0.25)
    >>> schedule = dm.RectifiedFlow()
    >>> noise = dm.noise.UnitNoise(dm.trailing(schedule, 50), event=())
    >>> start = noise.start(torch.tensor(0.0, dtype=torch.float64), 1.0)
    >>> end = dm.final(dm.ddpm(schedule), data.denoiser(schedule), start, noise.grid, noise)
    >>> noise.mean(end), noise.covariance(end)
    (tensor(3.0000, dtype=torch.float64), tensor([[0.2202]], dtype=torch.float64))
    """

    grid: Float[Tensor, " nodes"]
    event: tuple[int, ...]

    def __post_init__(self) -> None:
        strictly_decreasing("grid", self.grid)

    @property
    def rows(self) -> int:
        """The batch size: 1 + D nodes."""
        return 1 + math.prod(self.event) * len(self.grid)

    @checked
    def start(self, mean: Tensor, std: Number) -> Float[Tensor, "rows *event"]:
        """The initial batch for a start N(mean, std^2 I); mean broadcasts to event."""
        x = mean.expand(self.rows, *self.event).clone()
        return x + std * self._units(x, 0)

    @checked
    def __call__(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        step = (self.grid[:-1] == t).logical_and(self.grid[1:] == s).nonzero()
        require(len(step) == 1, "t, s", "a step of the grid", (float(t), float(s)))
        wanted = (self.rows, *self.event)
        require(tuple(x.shape) == wanted, "x", f"shape {wanted}", f"shape {tuple(x.shape)}")
        return self._units(x, 1 + int(step))

    @checked
    def mean(self, x: Float[Tensor, "rows *event"]) -> Float[Tensor, "*event"]:
        """The sampler's mean, from the last state's x."""
        return x[0]

    @checked
    def covariance(self, x: Float[Tensor, "rows *event"]) -> Float[Tensor, "D D"]:
        """The sampler's covariance over the flattened event, from the last state's x.

        Derivation: (noise.6).
        """
        columns = (wide(x[1:]) - wide(x[0])).reshape(self.rows - 1, math.prod(self.event))
        precise = columns.double()  # autocast leaves it as it is
        return (precise.T @ precise).to(columns)

    def _units(self, x: Tensor, block: int) -> Tensor:
        """Zeros like x with the D unit vectors in the rows of one block."""
        size = math.prod(self.event)
        z = torch.zeros(self.rows, size, dtype=x.dtype, device=x.device)
        z[1 + block * size : 1 + (block + 1) * size] = torch.eye(size, dtype=x.dtype, device="cpu")
        return z.reshape(x.shape)


def _normal(key: tuple[str, int, float, float], shape: Sequence[int]) -> Tensor:
    """float32 standard normals that are a function of the key (a counter-based stream each).

    The key is hashed to Philox's 128 bits: torch's CPU generator has 2^32 streams, few enough for
    two streams of a large run to coincide.
    """
    name, seed, t, s = key
    # Adding 0.0 turns -0.0 into 0.0, which would otherwise be another key.
    packed = _KEY.pack(name.encode(), seed, t + 0.0, s + 0.0)
    digest = blake2b(packed, digest_size=16).digest()
    stream = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    samples = stream.standard_normal(tuple(shape), np.float32)
    return torch.from_numpy(np.asarray(samples))


def _stack(samples: list[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The samples as one batch, which may be empty."""
    return (
        torch.stack(samples).to(dtype)
        if samples
        else torch.zeros(tuple(shape), dtype=dtype, device="cpu")
    )


def _each(t: Tensor, seeds: tuple[int, ...]) -> list[float]:
    """The time of each sample, to 10 significant digits."""
    times = torch.as_tensor(t, dtype=torch.float64, device="cpu").expand(len(seeds)).tolist()
    return [float(f"{time:.10g}") for time in times]


def _valid_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    several: Sequence[Any] = seeds
    listed: list[Any] = [
        one.tolist() if isinstance(one, Tensor | np.integer) else one for one in several
    ]
    for seed in listed:
        whole("seeds", seed, 0, 2**64 - 1)
    return tuple(listed)


def _check_batch(x: Tensor, seeds: tuple[int, ...]) -> None:
    fits = x.ndim > 0 and len(x) == len(seeds)
    require(fits, "x", f"a batch of {len(seeds)}, one per seed", f"shape {tuple(x.shape)}")
