"""Langevin samplers: Markov chains that follow a density by its score S(x) = grad log q(x).

With z ~ N(0, I) and a step size delta:

    ascent     x <- x + delta S(x)                          to the modes, not to q (C22)
    ula        x <- x + delta S(x) + sqrt(2 delta) z        to q as delta -> 0 (C23, E7)
    mala       ula's move, accepted by Metropolis's rule    to q at every delta
    annealed   ula at decreasing noise levels               to q's modes in their proportions
    baoab      position and velocity, with friction         to q as its step -> 0

A move is pure, `(state, noise) -> state`, and `chain` runs them. The move after k moves takes its
normal from the `Noise` at (t, s) = (-k, -k - 1). So the first moves of a chain do not depend on how
many follow, and `UnitNoise` gives the exact covariance.
Derivation: (langevin.1), (langevin.4).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diffusion_math._batching import inner, wide
from diffusion_math.checks import (
    Number,
    all_between,
    between,
    checked,
    require,
    same_shape,
    strictly_decreasing,
    whole,
)
from diffusion_math.gaussian import Gaussian
from diffusion_math.noise import Noise, required

Score: TypeAlias = Callable[[Tensor], Tensor]
"""`x -> grad log q(x)`, like x: `(batch, *event)`."""

NoisyScore: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(x, sigma) -> grad log q_sigma(x)`, like x, for q with N(0, sigma^2 I) added; sigma `()`."""

Target: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`x -> (log q(x), grad log q(x))`, `(batch,)` and like x; log q up to a constant."""


@final
@dataclass(frozen=True, eq=False)
class Particles:
    """The state of a chain, with the values that its next move reuses.

    Attributes:
        x: `(batch, *event)`.
        moves: the number of moves so far.
        log_density: `(batch,)`, log q(x), where the move stores it (mala).
        score: `(batch, *event)`, S(x), where the move stores it (mala, baoab).
        accepted: `(batch,)`, the number of accepted proposals of each particle (mala).
        velocity: `(batch, *event)` (baoab).

    >>> import torch
    >>> import diffusion_math as dm
    >>> start = dm.langevin.Particles(torch.zeros(100, 2))
    >>> start.moves
    0
    """

    x: Float[Tensor, "batch *event"]
    moves: int = 0
    log_density: Float[Tensor, " batch"] | None = None
    score: Float[Tensor, "batch *event"] | None = None
    accepted: Int64[Tensor, " batch"] | None = None
    velocity: Float[Tensor, "batch *event"] | None = None


Move: TypeAlias = Callable[[Particles, Noise], Particles]
"""`(state, noise) -> state`, with one more in `state.moves`."""


@checked
def chain(
    move: Move,
    start: Float[Tensor, "batch *event"] | Particles,
    moves: int,
    noise: Noise = required,
) -> Iterator[Particles]:
    """Run a Markov chain for `moves` moves: the start itself, then the state after each move.

    The iterator is lazy. `*_, end = chain(...)` holds every state in memory until the last; for a
    long chain use `(end,) = collections.deque(chain(...), maxlen=1)`.

    Args:
        move: such as `ula(score, delta)`.
        start: `(batch, *event)`, or a state, from which the chain continues as if never
        interrupted. moves: at least 0.
        noise: the source of the moves' normals; only `ascent` needs none.

    Raises:
        ValueError: immediately, when `moves` is negative or no whole number; at the first
            stochastic move, without `noise`.

    >>> import torch
    >>> import diffusion_math as dm
    >>> move = dm.langevin.ula(lambda x: -x, delta=0.1)
    >>> states = dm.langevin.chain(move, torch.zeros(2, 1), moves=3, noise=dm.from_seeds([0, 1]))
    >>> [state.moves for state in states]
    [0, 1, 2, 3]
    """
    whole("moves", moves, 0)
    return _states(move, start if isinstance(start, Particles) else Particles(start), moves, noise)


@checked
def ascent(score: Score, delta: Number) -> Move:
    """Gradient ascent on the log-density: `ula`'s move without its noise.

        x <- x + delta S(x)

    Raises ValueError unless delta > 0. Too large a step lowers the density: for N(0, 1),
    delta > 2 (E6).
    Derivation: (langevin.1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> move = dm.langevin.ascent(lambda x: -(x - 3), delta=0.5)
    >>> *_, end = dm.langevin.chain(move, torch.zeros(1, 1), moves=10)
    >>> end.x
    tensor([[2.9971]])
    """
    step_size("delta", delta)

    def move(here: Particles, noise: Noise) -> Particles:
        return Particles(proposal(here.x, score(here.x), delta).mean, here.moves + 1)

    return move


@checked
def ula(score: Score, delta: Number) -> Move:
    """The unadjusted Langevin algorithm: the Euler-Maruyama step of dx = S dt + sqrt(2) dW.

        x <- x + delta S(x) + sqrt(2 delta) z

    Raises ValueError unless delta > 0. `langevin_law` has its exact distribution for Gaussian q.
    Derivation: (langevin.4).
    Source: Roberts and Tweedie (1996), Bernoulli 2(4), at delta half of their step.

    >>> import torch
    >>> import diffusion_math as dm
    >>> noise = dm.noise.from_generator(torch.Generator().manual_seed(0))
    >>> move = dm.langevin.ula(lambda x: -x, delta=0.1)
    >>> *_, end = dm.langevin.chain(move, torch.zeros(10_000, 1), moves=50, noise=noise)
    >>> end.x.var().round(decimals=1)
    tensor(1.1000)
    """
    step_size("delta", delta)

    def move(here: Particles, noise: Noise) -> Particles:
        distribution = proposal(here.x, score(here.x), delta)
        return Particles(distribution.sample(_fresh(here, noise)), here.moves + 1)

    return move


@checked
def mala(log_density_and_score: Target, delta: Number) -> Move:
    """Metropolis-adjusted Langevin: ula's move y, accepted with probability min(1, ratio).

        ratio = q(y) N(x; y + delta S(y), 2 delta I) / (q(x) N(y; x + delta S(x), 2 delta I))

    q is stationary at every delta. The test is in log space, log u < log ratio, with u = Phi(w) of
    a normal w from the noise at (t, s) = (-k - 1/2, -k - 1). The state stores log q(x), S(x) and
    the number of accepted proposals, so a move costs one evaluation. A proposal where log q is -inf
    or NaN is rejected. Raises ValueError unless delta > 0.

    Derivation: (langevin.5), (langevin.6).
    Source: Roberts and Tweedie (1996), Bernoulli 2(4), at delta half of their step.

    >>> import torch
    >>> import diffusion_math as dm
    >>> target = lambda x: (-(x**2).sum(1) / 2, -x)  # N(0, I)
    >>> noise = dm.noise.from_generator(torch.Generator().manual_seed(0))
    >>> move = dm.langevin.mala(target, delta=0.5)
    >>> *_, end = dm.langevin.chain(move, torch.zeros(10_000, 1), moves=20, noise=noise)
    >>> (end.accepted / end.moves).mean().round(decimals=1)
    tensor(0.9000)
    """
    step_size("delta", delta)

    def move(here: Particles, noise: Noise) -> Particles:
        log_q, score, accepted = here.log_density, here.score, here.accepted
        if log_q is None or score is None:
            log_q, score = log_density_and_score(here.x)
        if accepted is None:
            accepted = torch.zeros(len(here.x), dtype=torch.int64, device=here.x.device)
        y = proposal(here.x, score, delta).sample(_fresh(here, noise))
        log_q_y, score_y = log_density_and_score(y)
        log_ratio = log_acceptance((here.x, log_q, score), (y, log_q_y, score_y), delta)
        w = noise(log_ratio, _clock(here.moves + 0.5), _clock(here.moves + 1))
        # log Phi(w) by erfc, exact far out too; log_ndtr is twice as slow, ndtr has no tail.
        take = (torch.erfc(-math.sqrt(0.5) * w) / 2).log() < log_ratio
        wide = take.reshape(-1, *[1] * (here.x.ndim - 1))
        return Particles(
            torch.where(wide, y, here.x),
            here.moves + 1,
            torch.where(take, log_q_y, log_q),
            torch.where(wide, score_y, score),
            accepted + take,
        )

    return move


@checked
def annealed(
    score: NoisyScore, levels: Float[Tensor, " levels"], moves_each: int, delta: Number
) -> Move:
    """Annealed Langevin: `moves_each` of ula's moves on q_sigma for each noise level, high to low.

        x <- x + delta_i S(x, sigma_i) + sqrt(2 delta_i) z,    delta_i = delta sigma_i^2 / sigma_L^2

    Moves beyond the last level stay on it.

    Args:
        score: of q with N(0, sigma^2 I) added.
        levels: `(L,)`, sigma_1 > ... > sigma_L > 0.
        moves_each: at least 1.
        delta: the step size on the last level; the paper's epsilon is 2 delta.

    Raises:
        ValueError: an argument is outside these ranges.

    Derivation: (langevin.9).
    Source: Song and Ermon (arXiv:1907.05600), Algorithm 1.

    >>> import torch
    >>> import diffusion_math as dm
    >>> score = lambda x, sigma: dm.DENSITIES["ring"]().score(dm.VE(), x, sigma)
    >>> noise = dm.noise.from_generator(torch.Generator().manual_seed(0))
    >>> levels = torch.tensor([2.0, 0.5, 0.1])
    >>> move = dm.langevin.annealed(score, levels, moves_each=20, delta=0.002)
    >>> *_, end = dm.langevin.chain(move, torch.zeros(1000, 2), moves=60, noise=noise)
    >>> end.x.norm(dim=1).mean().round(decimals=1)
    tensor(2.)
    """
    strictly_decreasing("levels", levels)
    all_between("levels", levels, torch.finfo(levels.dtype).tiny, math.inf)
    whole("moves_each", moves_each, 1)
    step_size("delta", delta)
    sigmas = levels.detach().to("cpu", torch.float64)
    deltas: list[float] = (delta * (sigmas / sigmas[-1]).square()).tolist()

    def move(here: Particles, noise: Noise) -> Particles:
        i = min(here.moves // moves_each, len(deltas) - 1)
        return ula(lambda x: score(x, sigmas[i]), deltas[i])(here, noise)

    return move


@checked
def baoab(score: Score, h: Number, friction: Number) -> Move:
    """Underdamped Langevin, dx = v dt, dv = S dt - friction v dt + sqrt(2 friction) dW, by BAOAB.

        B  v <- v + h/2 S(x)                                     A  x <- x + h/2 v
        O  v <- e^{-friction h} v + sqrt(1 - e^{-2 friction h}) z        then A, then B

    A chain without initial velocities samples them, N(0, I), from the noise at (t, s) = (1, 0).
    The state stores S(x), so a move costs one score evaluation. The stationary distribution for
    Gaussian q is `langevin_law.baoab_stationary`: exact in the position.

    Args:
        score: of the target density of the positions.
        h: the step size in time, > 0; comparable to ula's delta = h^2 / 2.
        friction: in [0, inf]; 0 is Hamiltonian motion (velocity Verlet), inf a new
            velocity at every move.

    Raises:
        ValueError: an argument is outside these ranges.

    Derivation: (langevin.10).
    Source: Leimkuhler and Matthews (2013), Applied Mathematics Research eXpress 2013(1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> noise = dm.noise.from_generator(torch.Generator().manual_seed(0))
    >>> move = dm.langevin.baoab(lambda x: -x, h=0.5, friction=1.0)
    >>> *_, end = dm.langevin.chain(move, torch.zeros(10_000, 1), moves=40, noise=noise)
    >>> end.x.var().round(decimals=1)
    tensor(1.)
    """
    step_size("h", h)
    between("friction", friction, 0.0, math.inf)
    retained, fresh = math.exp(-friction * h), math.sqrt(-math.expm1(-2 * friction * h))

    def move(here: Particles, noise: Noise) -> Particles:
        x = here.x
        v = noise(x, _clock(-1), _clock(0)) if here.velocity is None else here.velocity
        v = v + h / 2 * (score(x) if here.score is None else here.score)
        x = x + h / 2 * v
        v = retained * v + fresh * _fresh(here, noise)
        x = x + h / 2 * v
        force = score(x)
        return Particles(x, here.moves + 1, score=force, velocity=v + h / 2 * force)

    return move


def proposal(
    x: Float[Tensor, "batch *event"], score: Float[Tensor, "batch *event"], delta: Number
) -> Gaussian:
    """The distribution of ula's move from x: N(x + delta S(x), 2 delta I), with `score` = S(x).

    Derivation: (langevin.4).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x = torch.ones(1, 2)
    >>> q = dm.langevin.proposal(x, score=-x, delta=0.1)
    >>> q.mean, q.variance
    (tensor([[0.9000, 0.9000]]), tensor(0.2000, dtype=torch.float64))
    """
    same_shape("score", score, x)
    mean = (wide(x) + delta * wide(score)).to(x)
    return Gaussian(mean, torch.tensor(2 * delta, dtype=torch.float64, device="cpu"))


def log_acceptance(
    here: tuple[Tensor, Tensor, Tensor], there: tuple[Tensor, Tensor, Tensor], delta: Number
) -> Float[Tensor, " batch"]:
    """The logarithm of mala's ratio for moves from x to y, `(batch,)`, not limited to 0.

        log q(y) - log q(x) + log N(x; y + delta S(y), 2 delta I) - log N(y; x + delta S(x), ...)
        = log q(y) - log q(x) - (S(x) + S(y))^T (y - x - delta (S(x) - S(y)) / 2) / 2

    here, there: (x, log q(x), S(x)) and (y, log q(y), S(y)). Derivation: (langevin.8).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x, y = torch.tensor([[0.0]]), torch.tensor([[1.0]])  # under N(0, 1)
    >>> at = lambda x: (x, -(x**2).sum(1) / 2, -x)
    >>> dm.langevin.log_acceptance(at(x), at(y), delta=0.1)
    tensor([-0.0250])
    """
    (x, log_q_x, score_x), (y, log_q_y, score_y) = here, there
    # The two squares of the proposals, subtracted on paper: nothing is divided by delta.
    x, y, score_x, score_y = (wide(each) for each in (x, y, score_x, score_y))
    moved = y - x - delta / 2 * (score_x - score_y)
    return wide(log_q_y) - wide(log_q_x) - inner(score_x + score_y, moved) / 2


@checked
def step_size(argument: str, value: Number) -> None:
    """Raise ValueError unless the step size is positive and finite.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.langevin.step_size("delta", -0.1)
    Traceback (most recent call last):
        ...
    ValueError: delta: wanted a positive finite number, got -0.1
    """
    require(0 < value < math.inf, argument, "a positive finite number", value)


def _states(move: Move, state: Particles, moves: int, noise: Noise) -> Iterator[Particles]:
    yield state
    for _ in range(moves):
        state = move(state, noise)
        yield state


def _fresh(here: Particles, noise: Noise) -> Tensor:
    """The normal of the next move."""
    return noise(here.x, _clock(here.moves), _clock(here.moves + 1))


def _clock(moves: Number) -> Tensor:
    return torch.tensor(-moves, dtype=torch.float64, device="cpu")
