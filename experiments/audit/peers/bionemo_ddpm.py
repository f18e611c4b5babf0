"""bionemo-moco's DDPM, and what its interpolants of numbers share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Discrete
from diffusion_math.testing import drawn
from experiments.audit.peers.bionemo_tokens import part

Formulas = dict[tuple[str, str], Callable[[], Any]]

Weights = dict[str, tuple[str, Any, dict[str, Any]]]
"""A loss by its name of a weight: what the network predicts, the weight on x0, options."""

KINDS = {"noise": "eps", "velocity": "v", "data": "x0"}
"""What the library calls a prediction, and what we call it."""


def made(kind: str, **options: Any) -> Any:
    """One of its interpolants, with a normal prior and uniform times."""
    prior = part("distributions.prior").GaussianPrior()
    times = part("distributions.time.uniform").UniformTimeDistribution()
    return getattr(part("interpolants"), kind)(times, prior, **options)


def moments(step: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """`step(x0, t, x_t, ...)`, which draws a normal, as a mean and a deviation."""
    sample = drawn(step)

    def both(x0: Tensor, x_t: Tensor, t: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        zero, one = torch.zeros_like(x0), torch.ones_like(x0)
        return sample(x0, t, x_t, *rest, zero), sample(zero, t, zero, *rest, one)

    return both


def shared(
    name: str, make: Callable[[str], Any], weights: Weights, levels: Any, times: Any, dtype: Any
) -> Formulas:
    """What DDPM and VDM share: the forward process, conversions and losses."""
    one = make("data")
    maps: dict[str, Callable[..., Any]] = {"score_from_x0": lambda x, x0, t: one.score(x0, x, t)}
    for theirs, kind in KINDS.items():
        for wanted, method in (("x0", "data"), ("eps", "noise")):
            if wanted != kind:
                maps[f"{wanted}_from_{kind}"] = partial(_convert, make(theirs), method)
    if hasattr(one, "calculate_velocity"):
        maps["v_from_x0_and_eps"] = lambda x0, z, t: one.calculate_velocity(x0, t, z)

    def loss(
        network: Denoiser, x0: Tensor, t: Tensor, noise: Tensor, target: int, **more: Any
    ) -> Any:
        return one.loss(network(one.interpolate(x0, t, noise), t), (x0, noise)[target], t, **more)

    found: Formulas = {
        (f"{name}.interpolate", "forward"): lambda: testing.assert_forward(
            lambda x0, t, z: one.interpolate(x0, t, z), levels, times, dtype=dtype
        ),
        (f"{name}.process_prediction", "prediction_maps"): lambda: testing.assert_prediction_maps(
            maps, levels, times, dtype=dtype
        ),
    }
    for said, (predicts, weight, more) in weights.items():
        this = partial(loss, target=["x0", "eps"].index(predicts), weight_type=said, **more)
        found[f"{name}.loss({said})", "loss"] = partial(
            testing.assert_loss, this, levels, times, predicts=predicts, weight=weight, dtype=dtype
        )
    return found


def _convert(one: Any, method: str, x_t: Tensor, given: Tensor, t: Tensor) -> Any:
    return getattr(one, f"process_{method}_prediction")(given, x_t, t)


def ddpm(steps: int = 1000) -> Formulas:
    """`DDPM`, whose tables are in float32."""
    noise = part("schedules.noise.discrete_noise_schedules")
    linear = noise.DiscreteLinearNoiseSchedule(steps)
    cosine = noise.DiscreteCosineNoiseSchedule(steps).generate_schedule()

    def make(kind: str) -> Any:
        return made("DDPM", noise_schedule=linear, prediction_type=kind)

    def levels(t: Any) -> tuple[Tensor, Tensor]:
        return one.forward_data_schedule[t], one.forward_noise_schedule[t]

    one, times, f32 = make("data"), range(steps), torch.float32
    weights: Weights = {
        "ones": ("x0", "x0", {}),
        "data_to_noise": ("x0", "simple", {}),
        "noise_to_data": ("x0", lambda step: (step.sigma_t / step.alpha_t) ** 2, {}),
    }
    found = shared("DDPM", make, weights, levels, times, f32)
    for name, step in {
        "step": one.step,
        "step_noise": one.step_noise,
        "step_ddim(eta=1)": partial(one.step_ddim, eta=1.0),
    }.items():
        found[f"DDPM.{name}", "posterior"] = partial(
            testing.assert_posterior, moments(step), levels, times, spread="deviation", dtype=f32
        )
    table = testing.assert_table
    for name, said in (
        ("log_var", "posterior_log_variance_clipped"),
        ("alpha_bar", "alphas_cumprod"),
        ("alpha_bar_prev", "alphas_cumprod_prev"),
        ("reverse_data_schedule", "posterior_mean_coef1"),
        ("reverse_noise_schedule", "posterior_mean_coef2"),
    ):
        found[f"DDPM.{name}", "table"] = partial(table, getattr(one, name), levels, times, said)
    right = Discrete.cosine(steps)
    found["DiscreteCosineNoiseSchedule", "table"] = lambda: table(
        cosine, right, range(1, steps + 1), "alphas"
    )
    return found
