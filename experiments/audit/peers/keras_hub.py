"""KerasHub's Stable Diffusion 3: its scheduler, a step, guidance and image-to-image, on torch."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.prediction import flow_from_x0
from diffusion_math.schedule import RectifiedFlow
from diffusion_math.testing.sampler import Sampler
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers._isolated_import import without
from experiments.audit.subject import Subject, subjects_of

SAMPLERS: list[tuple[str, int, bool, dict[str, Any]]] = [
    ("FlowMatchEulerDiscreteScheduler", 1, False, {}),
    ("FlowMatchEulerDiscreteScheduler", 1, False, {"shift": 1.0}),
]
"""Each: its order, whether it is noisy, options."""


@cache
def part(name: str) -> Any:
    """A module of KerasHub's models, on torch, without what its tokenizers and downloads want."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with without("tensorflow", "tensorflow_text", "kagglehub", "tokenizers", "sentencepiece"):
        found = import_module(f"keras_hub.src.models.{name}")
    vars(found).update(tf=None)  # where it is optional
    return found


def backbone(network: Callable[..., Any], **options: Any) -> Any:
    """The layers of a step of Stable Diffusion 3, around a network of ours."""
    model = part("stable_diffusion_3.stable_diffusion_3_backbone")
    return SimpleNamespace(
        scheduler=model.FlowMatchEulerDiscreteScheduler(**options),
        diffuser=network,
        cfg=model.ClassifierFreeGuidance(),
        euler_step=model.EulerStep(),
        timestep_broadcast_to=model.TimestepBroadcastTo(),
        step=model.StableDiffusion3Backbone.denoise_step,
    )


def sampler(name: str, order: int, noisy: bool, **options: Any) -> Sampler:
    """`denoise_step` down the scheduler's own levels."""
    flow = RectifiedFlow()
    grids: dict[int, Tensor] = {}

    def grid(n: int) -> Tensor:
        scheduler = backbone(print, **options).scheduler
        scheduler.set_sigmas(n)
        grids[n] = torch.as_tensor(scheduler.sigmas).detach().double()
        return grids[n]

    def sample(denoise: Denoiser, x: Tensor, times: Tensor, noise: Noise) -> Iterator[Tensor]:
        n = next(n for n, each in grids.items() if torch.equal(each[-len(times) :], times))

        def network(given: dict[str, Tensor], training: bool) -> Tensor:
            t = times[:-1][(times[:-1] * 1000 - given["timestep"][0]).abs().argmin()]
            latent = given["latent"].double()
            return flow_from_x0(flow, latent, denoise(latent, t), t).to(x)

        one = backbone(network, **options)
        one.scheduler.set_sigmas(n)
        for k in range(n + 1 - len(times), n):
            x = one.step(one, x, [None] * 4, k, n).detach()
            yield x

    return Sampler(
        name, flow, sample, grid, order, noisy, False, precision=1e-6, level_tolerance=1e-4
    )


def _scheduler() -> dict[tuple[str, str], Callable[[], Any]]:
    one = backbone(print)
    scheduler = one.scheduler
    scheduler.set_sigmas(50)
    sigmas = torch.as_tensor(scheduler.sigmas).detach().double()
    times = range(49, -1, -1)

    def levels(t: Any) -> tuple[Tensor, Tensor]:
        return 1 - sigmas[t], sigmas[t]

    def noised(x0: Tensor, step: Any, noise: Tensor) -> Tensor:
        return torch.as_tensor(
            scheduler.add_noise(x0, noise, torch.tensor(int(step)), torch.tensor(50))
        )

    def several() -> None:
        """A scheduler that is asked for 10 steps, then for 20."""
        fresh = backbone(print).scheduler
        fresh(torch.tensor(0), num_steps=10)
        again, _ = fresh(torch.tensor(5), num_steps=20)
        right, _ = backbone(print).scheduler(torch.tensor(5), num_steps=20)
        assert float(again) == float(right), (
            f"got sigma {float(again):.3g}, expected {float(right):.3g}"
        )

    def single() -> None:
        """A single step goes from sigma = 1 to 0."""
        fresh = backbone(print).scheduler
        fresh.set_sigmas(1)
        assert fresh.sigmas.tolist() == [1, 0], f"got {fresh.sigmas.tolist()}, expected [1, 0]"

    def first_step(strength: float, steps: int = 50) -> int:
        """Where `ImageToImage.generate` begins."""
        begun: list[int] = []
        stand_in = SimpleNamespace(
            make_generate_function=lambda: lambda *given: begun.append(int(given[3])),
            preprocessor=None,
            support_negative_prompts=False,
            latent_shape=(None, 2, 2, 1),
            _normalize_generate_inputs=lambda inputs: ([inputs], False),
            _normalize_generate_outputs=lambda outputs, scalar: outputs,
        )
        inputs = {"images": torch.zeros(1), "prompts": torch.zeros(1, 1)}
        generate = part("image_to_image").ImageToImage.generate
        generate(stand_in, inputs, steps, strength, 7.0)
        return begun[0]

    def start(x0: Tensor, strength: float, noise: Tensor) -> tuple[Tensor, int]:
        step = first_step(strength)
        return noised(x0, step, noise), step

    return {
        ("FlowMatchEulerDiscreteScheduler.add_noise", "forward"): lambda: testing.assert_forward(
            noised, levels, times, batched=False, dtype=torch.float32
        ),
        ("FlowMatchEulerDiscreteScheduler.call", "num_steps"): several,
        ("FlowMatchEulerDiscreteScheduler.set_sigmas(1)", "levels"): single,
        ("ClassifierFreeGuidance", "guidance"): lambda: testing.assert_guidance(
            lambda cond, uncond, w: one.cfg(torch.cat([cond, uncond]), guidance_scale=w),
            dtype=torch.float32,
        ),
        ("ImageToImage.generate", "img2img_start"): lambda: testing.assert_img2img_start(
            start,
            levels,
            times,
            [0.2, 0.5, 0.8, 1.0],
            first_time=lambda strength: round(50 * (1 - strength)),
            dtype=torch.float32,
        ),
    }


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """The scheduler, guidance and image-to-image of Stable Diffusion 3."""
    yield from formulas_of("keras-hub", "defaults", _scheduler())
    yield from subjects_of("keras-hub", sampler, SAMPLERS[:1] if quick else SAMPLERS)


UNTRIED = {
    "FluxBackbone, FluxTextToImage": "every step raises NotImplementedError",
    "StableDiffusion3Inpaint": "repaints around a mask",
    "keras_hub.samplers": "draw tokens",
}
"""What the library exports and `subjects` leaves out: why."""
