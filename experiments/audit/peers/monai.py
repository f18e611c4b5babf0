"""MONAI's noise schedulers, and its inferer, which samples with them and bounds a likelihood."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Discrete, RectifiedFlow
from diffusion_math.testing import (
    Draws,
    Sampler,
    UnsupportedError,
    assert_forward,
    assert_guidance,
    assert_inversion,
    assert_learned_variance,
    assert_posterior,
    assert_prediction_maps,
    of,
)
from experiments.audit.formula import Formula, assert_same, formulas_of
from experiments.audit.peers.monai_likelihood import likelihood
from experiments.audit.peers.monai_parts import (
    SHORT,
    inferer_of,
    levels_of,
    scheduler_of,
)
from experiments.audit.subject import Subject, along, subjects_of

TABLES = {
    "linear_beta": Discrete.linear(),
    "scaled_linear_beta": Discrete.scaled_linear(first=1e-4, last=0.02),
    "sigmoid_beta": None,
    "cosine": Discrete.cosine(),
}
"""Each table, and ours of its paper, where there is one."""

LIMITS = {
    "DDPMScheduler._get_variance, fixed_large": "the upper bound of the variance, as its name says",
}
UNTRIED = {
    "ControlNetDiffusionInferer": "DiffusionInferer's lines over again, beside a second network",
    "LatentDiffusionInferer": "DiffusionInferer between an encoder and a decoder",
    "SPADEDiffusionModelUNet": "a network",
    "VQVAETransformerInferer": "likelihoods of tokens",
    "SURELoss": "of denoising without clean data, not of diffusion",
}
"""What has to do with diffusion and is not audited: why."""

F32 = torch.float32


def sampler(
    kind: str, order: int, noisy: bool = False, settle: Any = (), **options: Any
) -> Sampler:
    """`DiffusionInferer.sample` with a scheduler on its own times."""
    first, of_length = scheduler_of(kind, **options), dict[int, int]()
    straight = kind == "RFlowScheduler"
    schedule = RectifiedFlow() if straight else Discrete(first.betas.double())
    count = first.num_train_timesteps
    last = 0.0 if float(getattr(first, "final_alpha_cumprod", 1.0)) == 1.0 else 1.0

    def settled(n: int) -> tuple[Any, Tensor]:
        scheduler = scheduler_of(kind, **options)
        if n > count:
            raise UnsupportedError(f"has {count} times")
        scheduler.set_timesteps(n, **dict(settle))
        times = torch.as_tensor(getattr(scheduler, "_timesteps", scheduler.timesteps)).double()
        nodes = times / count if straight else times.sort(descending=True).values + 1
        return scheduler, torch.cat([nodes, nodes.new_tensor([last])])

    def grid(n: int) -> Tensor:
        nodes = settled(n)[1]
        of_length[len(nodes)] = n
        return nodes

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Tensor | list[Tensor]:
        for n in reversed(of_length.values()):
            scheduler, nodes = settled(n)
            if torch.equal(nodes[-len(grid) :], grid):
                break
        else:
            raise UnsupportedError("it runs on its own times alone")
        if len(grid) < len(nodes):  # image-to-image
            if len(scheduler.timesteps) != n:
                raise UnsupportedError("has no step for each time")
            scheduler.timesteps = scheduler.timesteps[-(len(grid) - 1) :]
        normals = {float(t): noise(x, t, s) for t, s in pairwise(grid)}
        draws, seen = Draws(x), dict[float, Tensor]()

        def network(x: Tensor, timesteps: Tensor, context: Any = None) -> Tensor:
            told = timesteps.double()[0]
            t = told / count if straight else told + 1
            seen[float(t)] = x.clone()
            draws.noise = normals.get(float(t), draws.noise)
            x0 = denoise(x, t)
            if straight:
                return -prediction.flow_from_x0(schedule, x, x0, t)
            if first.prediction_type == "sample":
                return x0
            v = first.prediction_type == "v_prediction"
            return (prediction.v_from_x0 if v else prediction.eps_from_x0)(schedule, x, x0, t)

        with draws.everywhere():
            end = inferer_of(scheduler).sample(x, network, verbose=False)
        return along(grid, seen, end)

    return Sampler(
        kind,
        schedule,
        sample,
        grid,
        order,
        noisy,
        any_grid=False,
        precision=1e-7,
        level_tolerance=0.02,
    )


def _posterior(scheduler: Any, **options: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """Mean and variance of a step whose network predicts x0 and whose noise is given."""

    def step(x0: Tensor, x: Tensor, t: int, noise: Tensor) -> Tensor:
        with Draws(noise).everywhere():
            found: Tensor = scheduler.step(x0, t, x, **options)[0]
        return found

    def posterior(x0: Tensor, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        zero = torch.zeros_like(x)
        return step(x0, x, t, zero), step(zero, zero, t, torch.ones_like(x)) ** 2

    return posterior


def _guided(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
    """The velocity of one whole step from 0."""
    scheduler = scheduler_of("RFlowScheduler")
    scheduler.set_timesteps(1)

    def network(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return torch.where(context < 0, torch.cat([uncond] * 2), torch.cat([cond] * 2))

    said = torch.ones(len(cond), 1)
    found: Tensor = inferer_of(scheduler).sample(
        torch.zeros_like(cond), network, conditioning=said, cfg=w, verbose=False
    )
    return found


def _moves(method: str, t: int, start: int, x: Tensor, network: Any, **options: Any) -> Tensor:
    """A step between two times of DDIM, of as many steps as make it one."""
    scheduler = scheduler_of("DDIMScheduler", **SHORT, **options)
    scheduler.set_timesteps(100 // abs(t - start))
    found: Tensor = getattr(scheduler, method)(network(x, start), start, x)[0]
    return found


def _methods() -> dict[tuple[str, str], Callable[[], None]]:
    times, ddpm = range(1000), partial(scheduler_of, "DDPMScheduler")
    levels = levels_of(ddpm())
    one: dict[str, Any] = {"levels": levels, "times": times, "batched": False, "dtype": F32}

    def variance(kind: str) -> Callable[..., Any]:
        own = ddpm(variance_type=kind)
        return lambda x0, x, t: (own._get_mean(t, x0, x), own._get_variance(t))

    def learned(v: Tensor, t: int) -> Any:
        return ddpm(variance_type="learned_range")._get_variance(t, v)

    def after_half(x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        own = ddpm()
        own.add_noise(x0.half(), noise.half(), t)
        return own.add_noise(x0, noise, t)

    def inversion(kind: str, predicts: str) -> None:
        def up(network: Any, x: Tensor, s: int, t: int) -> Tensor:
            return _moves("reversed_step", t, s, x, network, prediction_type=kind)

        def down(network: Any, x: Tensor, t: int, s: int) -> Tensor:
            return _moves("step", s, t, x, network, prediction_type=kind)

        assert_inversion(up, down, short["levels"], range(100), predicts=predicts, dtype=F32)

    sample = {"prediction_type": "sample", **SHORT}
    short = one | {"levels": levels_of(ddpm(**SHORT)), "times": range(100)}
    ddim = scheduler_of("DDIMScheduler", **sample)
    ddim.alphas_cumprod = ddim.alphas_cumprod.double()  # x0's coefficient is a small difference
    found: dict[tuple[str, str], Callable[[], None]] = {
        ("DDPMScheduler.step", "posterior"): lambda: assert_posterior(
            _posterior(ddpm(**sample)), **short
        ),
        ("DDIMScheduler.step, eta=1", "posterior"): lambda: assert_posterior(
            _posterior(ddim, eta=1.0), **{**short, "dtype": torch.float64}
        ),
        ("DDPMScheduler._get_variance, learned_range", "learned variance"): lambda: (
            assert_learned_variance(learned, spread="variance", **one)
        ),
        ("DDPMScheduler.add_noise, after a call in float16", "forward"): lambda: assert_forward(
            after_half, levels, times, dtype=F32
        ),
    }
    for kind in ("fixed_small", "fixed_large"):
        found[f"DDPMScheduler._get_variance, {kind}", "posterior"] = partial(
            assert_posterior, variance(kind), first=1e-20, **one
        )
    for kind, predicts in (("epsilon", "eps"), ("sample", "x0"), ("v_prediction", "v")):
        name = f"DDIMScheduler.reversed_step, {kind}"
        found[name, "inversion"] = partial(inversion, kind, predicts)
    return found


def _flow() -> dict[tuple[str, str], Callable[[], None]]:
    own, times = scheduler_of("RFlowScheduler"), [float(t) for t in range(1, 1001)]

    def levels(t: Any) -> tuple[Any, Any]:
        return 1 - t / 1000, t / 1000

    def add_noise(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x0, noise = (one[:, :, None, None] for one in (x0, noise))
        found: Tensor = own.add_noise(x0, noise, t)
        return found[:, :, 0, 0]

    def velocity(x0: Tensor, eps: Tensor, t: Tensor) -> Any:
        return own.get_velocity(x0, eps, t)

    def scaled() -> None:
        transform = import_module("monai.networks.schedulers.rectified_flow").timestep_transform
        scheduler = scheduler_of("RFlowScheduler", use_timestep_transform=True, transform_scale=2.0)
        scheduler.set_timesteps(10, input_img_size_numel=32**3)
        wanted = transform(torch.arange(1000, 0, -100), 32**3, scale=2.0).long()
        assert_same("set_timesteps", scheduler.timesteps, wanted, slack=1.0)  # whole times

    maps = {"velocity_from_x0_and_eps": velocity}
    return {
        ("RFlowScheduler.add_noise", "forward"): lambda: assert_forward(
            add_noise, levels, times, dtype=F32
        ),
        ("RFlowScheduler.get_velocity", "prediction maps"): lambda: assert_prediction_maps(
            maps, levels, times, dtype=F32
        ),
        ("RFlowScheduler.set_timesteps, transform_scale", "schedule"): scaled,
        ("DiffusionInferer.sample, cfg", "guidance"): lambda: assert_guidance(_guided),
    }


SAMPLERS: tuple[tuple[str, int, bool, dict[str, Any]], ...] = (
    ("DDPMScheduler", 1, True, {}),
    ("DDIMScheduler", 1, False, {}),
    ("PNDMScheduler", 2, False, {"set_alpha_to_one": True}),
    ("PNDMScheduler", 2, False, {"set_alpha_to_one": True, "skip_prk_steps": True}),
    ("RFlowScheduler", 1, False, {}),
    ("RFlowScheduler", 1, False, {"use_discrete_timesteps": False}),
)
MORE: tuple[tuple[str, int, bool, dict[str, Any]], ...] = (
    ("DDIMScheduler", 1, False, {"prediction_type": "sample"}),
    ("DDIMScheduler", 1, False, {"prediction_type": "v_prediction"}),
    ("DDIMScheduler", 1, False, {"set_alpha_to_one": False, "steps_offset": 1}),
)


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Every scheduler's tables, methods and samples, and the inferer's bound and guidance."""
    for table, ours in TABLES.items():
        own = scheduler_of("DDPMScheduler", schedule=table)
        each: dict[tuple[str, str], Callable[[], Any]] = {
            (f"Scheduler.{one}", one.formula): one for one in of(own, skip=["step"])
        }
        if ours is not None:
            paper = partial(assert_same, "betas", own.betas, ours.betas)
            each[f"NoiseSchedules, {table}", "the paper's table"] = paper
        yield from formulas_of("monai", f"schedule={table}", each)
    found = _methods() | _flow() | likelihood()
    yield from formulas_of("monai", "defaults", found, LIMITS)
    yield from subjects_of("monai", sampler, SAMPLERS if quick else SAMPLERS + MORE)
