"""denoising-diffusion-pytorch: its modules; guidance, RePaint, parts of networks."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import repeat
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_math.testing import (
    assert_guidance,
)
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._isolated_import import without
from experiments.audit.peers._lucidrains import Network, check, drawing

IMAGE = (1, 2, 2)
PREDICTS = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
Found = dict[tuple[str, str], Callable[[], Any]]
"""What checks each formula, by what is exported and the formula's name."""


def module(name: str) -> Any:
    """One of the library's modules."""
    with without("torchvision", "accelerate", "pytorch_fid"):
        return driven.quiet(import_module(f"denoising_diffusion_pytorch.{name}"))


def diffusion(where: str, name: str, network: Any = None, **options: Any) -> Any:
    """A diffusion of a module, on images of 2 x 2 or lines of 4 where no size is said."""
    size = {"seq_length": 4} if name.endswith("1D") else {"image_size": 2}
    net = Network(network or (lambda x, *_, **__: x), **options.pop("said", {}))
    return getattr(module(where), name)(net, **{**size, **options})


def guided() -> Found:
    """Classifier-free guidance, classifier guidance, inpainting."""
    free, classifier = "classifier_free_guidance", "guided_diffusion"
    forward = module(free).Unet.forward_with_cond_scale

    def combine(cond: Tensor, uncond: Tensor, w: float, **options: Any) -> Tensor:
        of_drop = lambda *_, cond_drop_prob, **__: uncond if cond_drop_prob else cond  # noqa: E731
        result, _ = forward(SimpleNamespace(forward=of_drop), cond_scale=w, **options)
        return torch.as_tensor(result)

    plain = partial(combine, remove_parallel_component=False)
    others = (0.0, 0.5, 2.0, 7.5)

    def unguided(samples: int) -> None:
        net: Any = Network(lambda x: x)
        own = SimpleNamespace(forward=lambda x, *_, **__: x)
        net.forward_with_cond_scale = partial(forward, own)
        thing = module(free).GaussianDiffusion(net, image_size=2, timesteps=4)
        for count in range(1, samples + 1):
            thing.sample(torch.zeros(count, dtype=torch.long), cond_scale=1.0)

    def shift(steps: int) -> None:
        """What a classifier of constant gradient adds to the last of two steps."""
        made = diffusion(
            classifier,
            "GaussianDiffusion",
            lambda x, *_: 0 * x,
            timesteps=50,
            sampling_timesteps=steps,
            auto_normalize=False,
        )
        options = {"cond_fn": lambda x, t: torch.ones_like(x), "guidance_kwargs": {}}
        with drawing(repeat(torch.zeros(1))), mock.patch("builtins.print"):
            found = made.sample(1, **options)
        assert bool(found.abs().max() > 0), "the classifier is not used"

    def mean() -> None:
        made = diffusion(classifier, "GaussianDiffusion", lambda x, *_: 0 * x, timesteps=50)
        x, t = torch.zeros(1, *IMAGE), 20
        options = {"cond_fn": lambda x, t: torch.full_like(x, 0.3), "guidance_kwargs": {}}
        with drawing(repeat(torch.zeros(1))), mock.patch("builtins.print"):
            moved = made.p_sample(x, t, None, **options)[0] - made.p_sample(x, t)[0]
        check(float(moved[0, 0, 0, 0]), 0.3 * float(made.posterior_variance[t]), "the mean's shift")

    return {
        ("Unet.forward_with_cond_scale", "guidance"): lambda: assert_guidance(combine, others),
        ("Unet.forward_with_cond_scale, remove_parallel_component=False", "guidance"): (
            lambda: assert_guidance(plain, others)
        ),
        ("Unet.forward_with_cond_scale, cond_scale=1", "guidance"): (
            lambda: assert_guidance(plain, (1.0,))
        ),
        ("classifier_free_guidance.GaussianDiffusion.sample", "cond_scale=1"): partial(unguided, 3),
        ("guided_diffusion.GaussianDiffusion.p_sample", "classifier"): mean,
        ("guided_diffusion.GaussianDiffusion.p_sample_loop", "classifier"): partial(shift, 50),
        ("guided_diffusion.GaussianDiffusion.ddim_sample", "classifier"): partial(shift, 10),
        ("guided_diffusion.GaussianDiffusion.ddim_sample", "all timesteps"): all_timesteps,
        ("repaint.GaussianDiffusion.p_sample_loop", "levels"): partial(repainted, True),
        ("repaint.GaussianDiffusion.p_sample_loop, resample=False", "levels"): (
            partial(repainted, False)
        ),
        ("repaint.GaussianDiffusion.p_sample_loop, all known", "levels"): (
            partial(repainted, False, 1.0)
        ),
    }


def all_timesteps() -> None:
    """The last of all states is the sample."""
    options = {"timesteps": 50, "sampling_timesteps": 5}
    made = diffusion("guided_diffusion", "GaussianDiffusion", lambda x, *_: 0.5 * x, **options)
    with drawing(repeat(torch.ones(1))):
        states, end = made.sample(1, return_all_timesteps=True), made.sample(1)
    check(float((states[:, -1] - end).abs().max()), 0.0, "last state and sample differ by")


def repainted(resample: bool, known: float = 0.0) -> None:
    """RePaint with nothing known, or all."""
    side = 15
    made: Any = None

    def run(network: Any) -> None:
        nonlocal made
        options = {"timesteps": 60, "objective": "pred_x0", "image_size": side}
        given = lambda x, t, *_: network(x, t)  # noqa: E731
        made = diffusion("repaint", "GaussianDiffusion", given, **options)
        gt, mask = (torch.full((1, 1, side, side), each) for each in (0.5, known))
        made.sample(gt=gt, mask=mask, resample=resample, resample_iter=2)

    def deviation(t: float) -> float:
        return float(made.sqrt_one_minus_alphas_cumprod[int(t)])

    driven.noise_levels(run, deviation, side)


def parts() -> Found:
    """Parts of networks that have a formula: RMSNorm, and Karras' magnitude-preserving ones."""
    x = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))

    def rms(where: str) -> None:
        norm, given = module(where).RMSNorm(6), x.flatten(2) if where.endswith("1d") else x
        check(float(norm(given).square().mean()), 1.0, "mean square over the channels", 1e-3)

    def kept(layer: Any, *given: Tensor) -> None:
        """Magnitude-preserving: independent unit inputs give unit outputs."""
        check(float(layer(*given).square().mean()), 1.0, "mean square of the output", 0.03)

    def unit(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))

    def weights_of(ones: bool) -> None:
        """The squares of an output's weights add up to 1, that of the channel of ones too."""
        layer = module("karras_unet").Conv2d(4, 3, 3, concat_ones_to_input=ones).eval()
        total = 0.0
        for k in range(4):
            probe = torch.zeros(1, 4, 3, 3)
            base = layer(probe)[0, 0, 1, 1] if ones else 0.0
            for i in range(9):
                one = probe.clone()
                one[0, k].view(-1)[i] = 1.0
                total += float(layer(one)[0, 0, 1, 1] - base) ** 2
        weight = layer.weight[0]
        share = float(weight[-4:].square().sum() / weight.square().sum())
        check(total / share, 1.0, "squares of an output's weights", 1e-3)

    files = "denoising_diffusion_pytorch", "denoising_diffusion_pytorch_1d", "repaint"
    runs: Found = {
        (f"{where}.RMSNorm", "formula"): partial(rms, where)
        for where in ("classifier_free_guidance", "guided_diffusion", *files)
    }
    karras = module("karras_unet")
    pair = unit(4, 400, 5, 5), unit(4, 100, 5, 5)
    runs |= {
        ("karras_unet.MPSiLU", "magnitude"): lambda: kept(karras.MPSiLU(), unit(40000)),
        ("karras_unet.MPAdd", "magnitude"): lambda: kept(karras.MPAdd(0.3), *unit(2, 40000)),
        ("karras_unet.MPCat", "magnitude"): lambda: kept(karras.MPCat(dim=1), *pair),
        ("karras_unet.PixelNorm", "magnitude"): lambda: kept(karras.PixelNorm(1), 7 * pair[0]),
        ("karras_unet.MPFourierEmbedding", "magnitude"): lambda: kept(
            karras.MPFourierEmbedding(64), unit(99)
        ),
        ("karras_unet.Linear", "magnitude"): lambda: kept(karras.Linear(500, 300), unit(50, 500)),
        ("karras_unet.Conv2d", "magnitude"): partial(weights_of, False),
        ("karras_unet.Conv2d, concat_ones_to_input", "magnitude"): partial(weights_of, True),
    }
    return runs


def weighted() -> None:
    """Sampling with WeightedObjectiveGaussianDiffusion."""
    where, name = "weighted_objective_gaussian_diffusion", "WeightedObjectiveGaussianDiffusion"
    network = lambda x, *_: torch.cat([x, x, x, x], 1)  # noqa: E731
    diffusion(where, name, network, said={"out_dim": 4}, timesteps=4).sample(1)


def kept_noise() -> None:
    """The caller's noise, with offset noise."""
    name = "denoising_diffusion_pytorch"
    made = diffusion(name, "GaussianDiffusion", timesteps=50, offset_noise_strength=0.1)
    x, t = torch.zeros(1, *IMAGE), torch.tensor([20])
    driven.leaves_alone(
        lambda noise: made.p_losses(x, t, noise=noise), torch.ones(1, *IMAGE), "noise"
    )


def finite() -> None:
    """DDIM of eta = 1 on the cosine schedule, whose last abar is 2e-9."""
    options = {"beta_schedule": "cosine", "timesteps": 1000, "ddim_sampling_eta": 1.0}
    wrong = []
    for steps in range(1, 30):
        make = partial(diffusion, "denoising_diffusion_pytorch", "GaussianDiffusion")
        made = make(lambda x, *_: 0 * x, sampling_timesteps=steps, **options).sample(1)
        wrong += [] if bool(made.isfinite().all()) else [steps]
    assert not wrong, f"every sample is NaN in {' and '.join(map(str, wrong))} steps"


def few(steps: int) -> None:
    """The tables of a short linear schedule."""
    made = diffusion(
        "denoising_diffusion_pytorch", "GaussianDiffusion", beta_schedule="linear", timesteps=steps
    )
    most = float(made.betas.max())
    assert most < 1, f"the largest beta of {steps} steps: got {most:.3g}, expected below 1"
