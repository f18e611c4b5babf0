"""diffusers' training utilities: the SNR, the average of weights, and SD3's times and weights."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from diffusion_math.schedule import RectifiedFlow, VPCosine
from diffusion_math.testing import Draws, assert_average, assert_forward, assert_table
from experiments.audit.formula import Formula, assert_same, formulas_of

LIMITS = {
    "EMAModel": "warms up by (1 + n) / (10 + n) with use_ema_warmup=False too, and the first "
    "update copies the weights whatever min_decay says",
}
UNTRIED = {
    "compute_confidence_aware_loss": "of tokens",
    "compute_loss_weighting_for_sd3, sigma_sqrt": "1 / sigma^2, not in the SD3 paper",
    "compute_loss_weighting_for_sd3, none": "1",
    "compute_density_for_timestep_sampling, mode": "scales above 2 / (pi - 2) give no density",
    "min-SNR": "its lines are in scripts, which are not exported",
}
"""What has to do with diffusion and is not audited: why."""

TABLES = ("linear", "scaled_linear", "squaredcos_cap_v2")
F32 = torch.float32


def _levels(scheduler: Any) -> Callable[[Any], tuple[Tensor, Tensor]]:
    abar = scheduler.alphas_cumprod.double()
    return lambda t: (abar[t] ** 0.5, (1 - abar[t]) ** 0.5)


def _utilities() -> Any:
    return import_module("diffusers.training_utils")


def _snr(scheduler: Any, shape: tuple[int, ...]) -> None:
    t = torch.arange(1000)
    found = _utilities().compute_snr(scheduler, t.reshape(-1, *shape)).flatten()
    assert_table(found, _levels(scheduler), range(1000), "snr")


def _dream(scheduler: Any, power: float = 1.0) -> Callable[..., tuple[Tensor, Tensor]]:
    """DREAM's pair of x_t and target, where the network predicts no noise at all."""

    def pair(x0: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        x0, noise = x0[:, :, None, None], noise[:, :, None, None]
        x = scheduler.add_noise(x0, noise, t)
        nothing = SimpleNamespace(sample=torch.zeros_like(x))
        more = {"encoder_hidden_states": None, "dream_detail_preservation": power}
        found = _utilities().compute_dream_and_update_latents(
            lambda *_: nothing, scheduler, t, noise, x, noise, **more
        )
        return found[0][:, :, 0, 0], found[1][:, :, 0, 0]

    return pair


def _dream_noised(scheduler: Any) -> None:
    """x_t is alpha_t x0 + sigma_t times the new target, whatever that is."""
    pair = _dream(scheduler)

    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        one = torch.ones_like(noise)
        return pair(x0, t, noise / pair(x0, t, one)[1])[0]

    assert_forward(q_sample, _levels(scheduler), range(1000), dtype=F32)


def _dream_target(scheduler: Any) -> None:
    """The network's error is added by the share sigma_t."""
    one, t = torch.ones(1000, 1), torch.arange(1000)
    share = _dream(scheduler)(one, t, one)[1][:, 0] - 1
    assert_table(share, _levels(scheduler), range(1000), "sqrt_one_minus_alphas_cumprod")


def _average(profile: Callable[[int], float], foreach: bool, **options: Any) -> None:
    def start(w: Tensor) -> Callable[[Tensor], Tensor]:
        weights = nn.Parameter(w)
        average = _utilities().EMAModel([weights], foreach=foreach, **options)

        def update(w: Tensor) -> Tensor:
            weights.data.copy_(w)
            average.step([weights])
            kept = nn.Parameter(torch.zeros_like(w))
            average.copy_to([kept])
            return kept.detach()

        return update

    assert_average(start, profile)


def _density(scheme: str, u: Tensor, **options: Any) -> Tensor:
    """The times of equally likely draws."""
    with Draws(torch.special.ndtri(u)).everywhere(), patch.object(torch, "rand", lambda **_: u):
        found: Tensor = _utilities().compute_density_for_timestep_sampling(
            scheme, len(u), **options
        )
    return found


def _logit_normal() -> None:
    u = torch.linspace(0.01, 0.99, 99)
    normal = torch.distributions.Normal(0.3, 0.8)
    sigmoid = torch.distributions.transforms.SigmoidTransform()
    logistic: Any = torch.distributions.TransformedDistribution(normal, [sigmoid])
    wanted = logistic.icdf(u)
    times = _density("logit_normal", u, logit_mean=0.3, logit_std=0.8)
    assert_same("the times", times, wanted, 1e-5)


def _mode() -> None:
    """The times of arXiv:2403.03206, eq. 20, for its scales; they fall from 1 to 0."""
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for scale in (-1.0, 0.0, 1.29, 1.75):
        t = _density("mode", u, mode_scale=scale)
        wanted = 1 - u - scale * ((torch.pi / 2 * u).cos() ** 2 - 1 + u)
        assert_same("the times", t, wanted, 1e-5)
        assert bool((t.diff() < 1e-9).all()), f"rises at scale {scale}"


def _cosmap() -> None:
    """The density of the flow's time whose SNR is that of a cosine schedule's uniform time."""
    u = torch.linspace(0.05, 0.95, 901, dtype=torch.float64)
    t = RectifiedFlow().time(VPCosine().log_snr(u))
    found = _utilities().compute_loss_weighting_for_sd3("cosmap", t[1:-1])
    assert_same("the weight", found, (u[2:] - u[:-2]) / (t[2:] - t[:-2]), 1e-5)


def subjects(quick: bool) -> Iterator[Formula]:
    """The SNR and DREAM on several tables, averages of every profile, SD3's times and weights."""

    def warm(n: int) -> float:
        return n / (9 + n) if n > 1 else 0.0

    def power(n: int) -> float:
        return 1.0 - math.pow(n, -2 / 3)

    for table in TABLES:
        scheduler = import_module("diffusers").DDPMScheduler(beta_schedule=table)
        each: dict[tuple[str, str], Callable[[], None]] = {
            ("compute_snr", "snr"): partial(_snr, scheduler, ()),
            ("compute_snr, images", "snr"): partial(_snr, scheduler, (1, 1, 1)),
            ("compute_dream_and_update_latents, x_t", "forward"): partial(_dream_noised, scheduler),
            ("compute_dream_and_update_latents, target", "dream"): partial(
                _dream_target, scheduler
            ),
        }
        yield from formulas_of("diffusers-training", table, each, distribution="diffusers")
    for foreach in (False, True):
        own = {"foreach": foreach}
        each = {
            ("EMAModel", "average"): partial(
                _average, lambda n: min(0.7, warm(n)), decay=0.7, **own
            ),
            ("EMAModel, use_ema_warmup", "average"): partial(
                _average, power, use_ema_warmup=True, **own
            ),
            ("EMAModel, update_after_step", "average"): partial(
                _average, lambda n: warm(max(1, n - 5)), update_after_step=5, **own
            ),
            ("EMAModel, min_decay", "average"): partial(
                _average, lambda n: max(0.5, warm(n)) if n > 1 else 0.0, min_decay=0.5, **own
            ),
        }
        yield from formulas_of(
            "diffusers-training", f"foreach={foreach}", each, LIMITS, distribution="diffusers"
        )
    each = {
        ("compute_density_for_timestep_sampling, logit_normal", "density"): _logit_normal,
        ("compute_density_for_timestep_sampling, mode", "density"): _mode,
        ("compute_loss_weighting_for_sd3, cosmap", "weight"): _cosmap,
    }
    yield from formulas_of("diffusers-training", "SD3", each, distribution="diffusers")
