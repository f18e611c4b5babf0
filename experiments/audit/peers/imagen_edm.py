"""imagen-pytorch's modules, its ElucidatedImagen, and guidance."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing import (
    assert_guidance,
    assert_loss,
    drawn,
    weights,
)
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers import _lucidrains_schedules as schedules
from experiments.audit.peers._isolated_import import without
from experiments.audit.peers._lucidrains import check

IMAGE = (1, 2, 2)
Found = dict[tuple[str, str], Callable[[], Any]]
"""What checks each formula, by what is exported and the formula's name."""


def module(name: str) -> Any:
    """One of the library's modules; the text encoder and what trains it are stand-ins."""
    beside = "torchvision", "kornia", "accelerate", "pytorch_warmup", "datasets", "fsspec"
    with without(*beside, "transformers", "sentencepiece"):
        return driven.quiet(import_module(f"imagen_pytorch.{name}"))


def imagen(network: Any, elucidated: bool = False, **options: Any) -> Any:
    """Imagen with one network, without text, on images in [-1, 1]."""
    where = module("imagen_pytorch")

    class Net(where.Unet):  # type: ignore[name-defined, misc]
        """In the place of `Unet`, which it checks for."""

        lowres_cond, self_cond = False, bool(options.pop("self_cond", False))

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def cast_model_parameters(self, **_: Any) -> Any:
            return self

        def forward(self, x: Tensor, told: Tensor, **named: Any) -> Tensor:
            found: Tensor = network(x, told, named.get("self_cond"))
            return found

        forward_with_cond_scale = forward

    settings = {"image_sizes": 2, "channels": 1, "condition_on_text": False, "text_embed_dim": 4}
    settings |= {"auto_normalize_img": False, **options}
    make = module("elucidated_imagen").ElucidatedImagen if elucidated else where.Imagen
    return make(Net(), **settings)


def edm(network: Any, **options: Any) -> Any:
    """ElucidatedImagen with a denoiser in the place of its preconditioned network."""

    def inner(given: Tensor, told: Tensor, own: Any) -> Tensor:
        sigma = (4 * told.double()).exp().reshape(-1, 1, 1, 1)
        x = given / made.c_in(0.5, sigma)
        x0 = network(x, sigma.flatten())
        found: Tensor = (x0 - made.c_skip(0.5, sigma) * x) / made.c_out(0.5, sigma)
        return found.to(given.dtype)

    made = imagen(inner, True, **options)
    return made


def elucidated() -> Found:
    """ElucidatedImagen's loss and preconditioning, its threshold, its guidance."""
    sigmas = [0.01, 0.1, 0.5, 1.0, 3.0, 20.0]

    def loss(network: Any, x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        made = edm(lambda x, told: network(x.flatten(1).float(), told).reshape(x.shape))
        made.noise_distribution = lambda *_: sigma.float()
        return torch.as_tensor(drawn(lambda x: made(x))(x0.reshape(-1, *IMAGE).float(), noise))

    def one_step() -> None:
        made = edm(lambda x, sigma: 0 * x, num_sample_steps=1).sample(use_tqdm=False)
        assert bool(made.isfinite().all()), "one step: every sample is NaN"

    def churned() -> None:
        options = {"image_sizes": 8, "S_churn": 20.0, "S_noise": 1.0, "num_sample_steps": 20}
        run = lambda network: edm(network, **options).sample(use_tqdm=False)  # noqa: E731
        driven.noise_levels(run, float, 8)

    def threshold() -> None:
        made = edm(None)
        x = torch.cat([torch.linspace(-3, 3, 101)[None], torch.full((1, 101), 0.5)])
        found = made.threshold_x_start(x[:, None, :, None])
        s = float(torch.quantile(x[0].abs(), 0.95))
        wanted = torch.stack([x[0].clamp(-s, s) / s, x[1]])
        check(float((found.flatten(1) - wanted).abs().max()), 0.0, "threshold off by", 1)

    forward = module("imagen_pytorch").Unet.forward_with_cond_scale

    def combine(cond: Tensor, uncond: Tensor, w: float, **options: Any) -> Tensor:
        of_drop = lambda cond_drop_prob=0.0: uncond if cond_drop_prob else cond  # noqa: E731
        own = SimpleNamespace(forward=of_drop)
        return torch.as_tensor(forward(own, cond_scale=w, **options))

    plain = partial(combine, remove_parallel_component=False)
    return {
        ("ElucidatedImagen.forward", "loss"): lambda: assert_loss(
            loss,
            lambda t: (1.0, t),
            sigmas,
            predicts="x0",
            weight=weights.edm(0.5),
            dtype=torch.float32,
        ),
        ("ElucidatedImagen.sample", "one step"): one_step,
        ("ElucidatedImagen.sample_schedule", "schedule"): lambda: schedules.edm(
            edm(None).sample_schedule(18, 7, 0.002, 80)
        ),
        ("ElucidatedImagen.sample, S_churn", "levels"): churned,
        ("ElucidatedImagen.threshold_x_start", "formula"): threshold,
        ("Unet.forward_with_cond_scale", "guidance"): lambda: assert_guidance(combine),
        ("Unet.forward_with_cond_scale, remove_parallel_component=False", "guidance"): (
            lambda: assert_guidance(plain)
        ),
    }
