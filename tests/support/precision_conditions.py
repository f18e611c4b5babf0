"""Guidance and inpainting in a dtype: what conditions a denoiser, for `precision_cases`."""

from functools import partial

from diffusion_math import guidance, guidance_law, inpainting
from diffusion_math.solvers.one_step import ddpm
from tests.support.precision import TIMES, WAY, A, T, X, Y, Z, ended, halved, pair, replayed

MASK = Y[0] > 0


def made(make, to):
    return ended(lambda way: make(ddpm(way), way, to(Y[0]), MASK), to)


CONDITIONS = {
    "guidance.cfg": lambda to: guidance.cfg(lambda x, t: to(X), halved, 7.5)(to(Y), T),
    "guidance.cfg_batched": lambda to: guidance.cfg_batched(pair(to), 7.5)(to(X), T),
    "guidance.limited": lambda to: guidance.limited(halved, lambda x, t: x, WAY, (1.0, 9.0))(
        to(X), TIMES
    ),
    "guidance.together": lambda to: guidance.together(halved, lambda x, t: x)(to(X), T),
    "guidance.weighted": lambda to: guidance.weighted(pair(to), WAY, guidance.cosine(3))(to(X), T),
    "guidance.rescaled": lambda to: guidance.rescaled(pair(to), 7.5)(to(X), T),
    "guidance.projected": lambda to: guidance.projected(pair(to), 7.5, 0.3, 300.0)(to(X), T),
    "guidance_law.flow_map": lambda to: guidance_law.flow_map(halved, A),
    "inpainting.joined": lambda to: inpainting.joined(WAY, to(X), T, to(Y[0]), MASK, to(Z)),
    "inpainting.replacement": partial(made, inpainting.replacement),
    "inpainting.repaint": partial(made, partial(inpainting.repaint, again=[replayed])),
    "inpainting.particles": lambda to: ended(
        lambda way: inpainting.particles(way, to(Y[0]), MASK, 1), to
    ),
}
