"""C21, C27 and C28: the score, the kinds of condition, and how one network learns two models."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sd.train.unet
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import Discrete, VPLinear
from sd.config import SHAPES_CONFIG, VAEConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.vae import VAE, Latent
from sd.text.tokenizer import Tokenizer
from sd.train.source import Shapes
from sd.train.unet import UNetTraining, train_unet
from tests.support.chance import Count, rare, shifted
from tests.support.measuring import Measured
from tests.support.mixtures import normal, seeded

EPS = torch.finfo(torch.float64).eps


@pytest.mark.claim("C21", "diffusion_math.densities.mixture.GaussianMixture.score")
@given(x=st.lists(st.floats(-100, 100), min_size=1, max_size=4), t=st.floats(0, 1))
def test_c21_the_score_is_the_gradient_of_the_log_density(
    measured: Measured, x: list[float], t: float
) -> None:
    """Under a VP schedule N(0, I) stays N(0, I): its score is -x at every t; and autograd's."""
    point = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    mean = torch.zeros(1, len(x), dtype=torch.float64)
    unit = GaussianMixture(torch.zeros(1), mean, torch.ones(1))
    schedule = VPLinear()
    score = unit.score(schedule, point.detach(), t)
    (slope,) = torch.autograd.grad(unit.log_density(schedule, point, t).sum(), point)
    off = torch.maximum((score + point).abs(), (score - slope).abs()) / (1 + point.abs())
    measured(off.max().item(), 64 * EPS, "relative error of -x and of autograd: alpha^2 + sigma^2")


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def whole_and_parts(kind: str) -> tuple[GaussianMixture, list[GaussianMixture], Any]:
    """Data of four pixels, the same given each condition, and E[x_0 | x_t] found another way."""
    schedule = VPLinear()
    if kind == "number":  # one of three classes
        means = normal(seeded(1), 3, 4)
        log_weights, variances = vector(0.2, 0.3, 0.5).log(), vector(0.3, 0.1, 0.6)

        def other(x: Tensor, t: Tensor) -> Tensor:
            """Tweedie on the log-density that torch's own Gaussians give."""
            alpha, sigma = schedule(t)
            y = x.clone().requires_grad_()
            scale = (alpha**2 * variances + sigma**2).sqrt()[:, None].expand(3, 4)
            each = torch.distributions.Independent(
                torch.distributions.Normal(alpha * means, scale), 1
            )
            mixed = torch.distributions.MixtureSameFamily(
                torch.distributions.Categorical(logits=log_weights), each
            )
            (slope,) = torch.autograd.grad(mixed.log_prob(y).sum(), y)
            return (x + sigma**2 * slope) / alpha
    else:  # each pixel is of one of two kinds: sixteen maps, pixels independent
        level, share, spread = vector(-1.0, 0.7), vector(0.3, 0.7), vector(0.2, 0.2)
        maps = torch.tensor(list(itertools.product([0, 1], repeat=4)))
        means, log_weights = level[maps], share[maps].log().sum(1)
        variances = spread[0].expand(16)
        pixel = GaussianMixture(share.log(), level[:, None], spread)

        def other(x: Tensor, t: Tensor) -> Tensor:
            """Each pixel by itself."""
            return pixel.denoiser(schedule)(x.reshape(-1, 1), t).reshape(x.shape)

    one = torch.zeros(1, dtype=torch.float64)
    parts = [GaussianMixture(one, m[None], v[None]) for m, v in zip(means, variances, strict=True)]
    return GaussianMixture(log_weights, means, variances), parts, other


@pytest.mark.claim("C27", "diffusion_math.densities.mixture.GaussianMixture.denoiser")
@pytest.mark.parametrize("t", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("kind", ["number", "map over the pixels"])
def test_c27_conditions_average_to_the_unconditional(
    measured: Measured, kind: str, t: float
) -> None:
    """E[x_0 | x_t] = sum_c p(c | x_t) E[x_0 | x_t, c]: c is a class, or a map over the pixels.

    p(c | x_t) is Bayes' rule on the conditional densities, the left side is found another way.
    The prior in its place is rejected.
    """
    schedule, time = VPLinear(), torch.tensor(t, dtype=torch.float64)
    whole, parts, other = whole_and_parts(kind)
    x = normal(seeded(2), 5, 4)
    joint = torch.stack([part.log_density(schedule, x, time) for part in parts])
    joint = joint + whole.log_weights[:, None]
    given_c = torch.stack([part.denoiser(schedule)(x, time) for part in parts])
    averaged = (joint.softmax(0)[..., None] * given_c).sum(0)
    wanted = other(x, time)
    got = whole.denoiser(schedule)(x, time)
    off = torch.maximum((got - wanted).abs(), (averaged - wanted).abs()).max().item()
    measured(off, 1e-12, "error of E[x_0 given x_t], and of its average over the conditions")
    prior = (whole.log_weights.exp()[:, None, None] * given_c).sum(0)
    assert (prior - wanted).abs().max() > 0.01


@pytest.mark.chance(5e-9, "half as many again dropped")
@pytest.mark.claim("C28", "sd.train.unet.train_unet")
@pytest.mark.parametrize("drop", [0.1, 0.5])
def test_c28_prompts_are_dropped_at_random(
    measured: Measured, drop: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8000 contexts that training sees, the share `drop` is that of "", by the binomial law.

    The others differ as captions do.
    """
    text = replace(SHAPES_CONFIG.text, width=8, heads=1, intermediate=8)
    small = replace(SHAPES_CONFIG.unet, channels=(8, 8), heads=2, groups=4, attention=(True, True))
    tokenizer, seen = Tokenizer.embedded(), []

    def latents(vae: object, source: Shapes, *_: object, **__: object) -> Latent:
        of_all = (source.count, 4, 2, 2)
        return Latent(torch.zeros(of_all), torch.ones(of_all))

    def draw(unet: object, batch: Callable[[int], Any], *_: object) -> dict[str, Tensor]:
        seen.extend(batch(step)[1] for step in range(20))
        return {}

    monkeypatch.setattr(sd.train.unet, "encode", latents)
    monkeypatch.setattr(sd.train.unet, "fit", draw)
    training = UNetTraining(drop=drop, batch_size=400, latents=200, cpu=True, seed=shifted(0))
    config = replace(SHAPES_CONFIG, unet=small)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VAE(VAEConfig(channels=(4,), layers_per_block=1, groups=2))
        encoder = TextEncoder(text).eval()
        train_unet(training, config, vae, encoder, tokenizer, Discrete.scaled_linear())
    contexts = torch.cat(seen)
    with torch.no_grad():
        null = encoder(tokenizer.encode([""]))
    n, empty = len(contexts), int(((contexts - null).abs().amax((1, 2)) < 1e-6).sum())
    assert n == 8000 and len(contexts.flatten(1).unique(dim=0)) > 100

    def deviations(rate: float) -> float:
        return abs(empty - n * rate) / math.sqrt(n * rate * (1 - rate))

    measured(deviations(drop), 6.5, "standard deviations from the share of empty prompts: 1e-10")
    bound = Count(n, drop, 1e-9)
    assert bound.holds(empty)
    assert rare(bound.misses(1.5 * drop))
    # Each example by itself, and not a batch as a whole.
    each = Count(training.batch_size, drop, 1e-11)
    assert all(
        each.holds(int(((some - null).abs().amax((1, 2)) < 1e-6).sum()))
        for some in contexts.split(training.batch_size)
    )
