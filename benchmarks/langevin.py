"""Langevin moves of ten thousand particles on the ring: ours beside JAX and BlackJAX, jitted."""

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from diffusion_math.densities.toy import ring
from diffusion_math.langevin import Move, chain, mala, ula
from diffusion_math.noise import from_generator
from diffusion_math.schedule import VE

PARTICLES, MOVES, DELTA = 10_000, 200, 0.005


def langevin_rows(rounds: int) -> list[Row]:
    """A move of ula beside the same in JAX, and one of mala beside BlackJAX's, in both precisions.

    Ours is in float64, JAX's habit is float32. Each side draws its own noise, so what must agree is
    the mean square of the particles after all moves.
    """
    import jax

    settle()
    data = ring()
    schedule, clean = VE(), torch.tensor(0.0, dtype=torch.float64)
    start = data.sample(torch.Generator().manual_seed(0), PARTICLES)
    moves = {
        "ula": ula(lambda x: data.score(schedule, x, clean), DELTA),
        "mala": mala(lambda x: data.log_density_and_score(schedule, x, clean), DELTA),
    }
    rows = []
    for name, move in moves.items():
        for double in (False, True):
            with jax.enable_x64(double):
                peer = _peer(name, data.means, float(data.covariances[0]), start, double)
                digits = "float64" if double else "float32"
                label = f"a move of {name}, 10,000 particles"
                who = f"{'JAX' if name == 'ula' else 'BlackJAX'}, jitted, {digits}"
                # Mean squares of 10,000 particles: the chance of each is 0.2%.
                rows.append(compare(label, who, _ours(move, start), peer, rounds, MOVES, 0.02))
    return rows


def settle() -> None:
    """Have glibc keep freed memory: its thresholds rise with the largest block ever freed.

    Every program that works on more than a toy has done so; until then each temporary of a move is
    given back to the system and mapped anew, which costs more than the arithmetic.
    """
    for size in range(16, 32, 4):
        torch.empty(size << 17, dtype=torch.float64)


def _ours(move: Move, start: Tensor) -> Callable[[], Tensor]:
    noise = from_generator(torch.Generator().manual_seed(1))

    def run() -> Tensor:
        (end,) = deque(chain(move, start, MOVES, noise), maxlen=1)
        return end.x.square().mean()

    return run


def _peer(
    name: str, means: Tensor, variance: float, start: Tensor, double: bool
) -> Callable[[], Tensor]:
    import blackjax
    import jax
    import jax.numpy as jnp

    dtype = jnp.float64 if double else jnp.float32
    centres, x = (jnp.asarray(one.numpy(), dtype) for one in (means, start))

    def log_density(x: "jax.Array") -> "jax.Array":
        squares = jnp.square(x - centres).sum(1)
        return jax.scipy.special.logsumexp(-squares / (2 * variance))

    score = jax.vmap(jax.grad(log_density))
    sampler = blackjax.mala(log_density, DELTA)

    def ula_move(x: "jax.Array", key: "jax.Array") -> tuple["jax.Array", None]:
        z = jax.random.normal(key, x.shape, dtype)
        return x + DELTA * score(x) + math.sqrt(2 * DELTA) * z, None

    def mala_move(state: object, key: "jax.Array") -> tuple[object, None]:
        keys = jax.random.split(key, PARTICLES)
        return jax.vmap(sampler.step)(keys, state)[0], None

    @jax.jit
    def walk(x: "jax.Array", key: "jax.Array") -> "jax.Array":
        keys = jax.random.split(key, MOVES)
        if name == "ula":
            return jnp.square(jax.lax.scan(ula_move, x, keys)[0]).mean()
        end, _ = jax.lax.scan(mala_move, jax.vmap(sampler.init)(x), keys)
        return jnp.square(end.position).mean()

    def run() -> Tensor:
        with jax.enable_x64(double):
            return torch.tensor(float(walk(x, jax.random.key(1))))

    return run
