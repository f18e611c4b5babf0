"""denoising-diffusion-pytorch: discrete, continuous-time, learned-variance, guided, EDM's."""

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_math.schedule import VE, Discrete
from diffusion_math.testing import (
    Sampler,
    UnsupportedError,
    adaptors,
    assert_img2img_start,
    assert_loss,
    of,
)
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._lucidrains import KINDS, drawing
from experiments.audit.peers._lucidrains_schedules import schedules
from experiments.audit.peers.denoising_diffusion_pytorch_continuous import (
    continuous,
    edm,
    elucidated,
)
from experiments.audit.peers.denoising_diffusion_pytorch_guided import (
    IMAGE,
    PREDICTS,
    Found,
    diffusion,
    few,
    finite,
    guided,
    kept_noise,
    module,
    parts,
    weighted,
)
from experiments.audit.peers.denoising_diffusion_pytorch_learned import learned
from experiments.audit.subject import Subject, subjects_of

UNTRIED = {
    "Trainer, Trainer1D, Dataset1D": "they read and write files",
    "FIDEvaluation": "it wants the weights of a classifier",
    "Unet, Unet1D, UViT": "networks",
    "XMWrapper": "it takes the least loss of several draws, for which it states no formula",
    "WeightedObjectiveGaussianDiffusion.p_losses": "the author's own improvisation, as he says",
    "GaussianDiffusion(immiscible=True)": "noise is assigned to the nearest data: no product law",
}
"""What the library exports and is not audited, and why."""

LIBRARY = "denoising-diffusion-pytorch"
F32 = torch.float32
COSINE = ("cosine_beta_schedule",)
CONTINUOUS = {
    "continuous_time_gaussian_diffusion": ("beta_linear_log_snr", "alpha_cosine_log_snr"),
    "v_param_continuous_time_gaussian_diffusion": ("alpha_cosine_log_snr",),
    "simple_diffusion": ("logsnr_schedule_cosine",),
}
"""Modules in continuous time, and their schedules."""
LIMITS = {
    "Unet.forward_with_cond_scale": (
        "the update's part along the prediction is left out, as in APG, which the README cites"
    ),
    "ElucidatedDiffusion.sample": "the paper's eq. 5 is 0 / 0 for one step",
    "ContinuousTimeGaussianDiffusion.p_sample, to time 0": driven.ENDS,
    "VParamContinuousTimeGaussianDiffusion.p_sample, to time 0": driven.ENDS,
}


def discrete(where: str, name: str, predicts: str, **options: Any) -> Found:
    """All that `of` finds, the loss with its weight, a step of sampling, the start between two."""
    thing = diffusion(where, name, objective=predicts, timesteps=50, **options)
    event = (1, 4) if name.endswith("1D") else IMAGE
    levels, times = driven.of_table(thing), range(thing.num_timesteps)
    runs: Found = {
        (f"{name}.{one.name}", "formula"): one.run
        for one in of(thing, skip=["p_losses"])
        if one.run is not None
    }
    classes = {"classes": None} if where == "classifier_free_guidance" else {}
    loss = lambda x0, t, noise: thing.p_losses(x0, t, noise=noise, **classes)  # noqa: E731
    loss = adaptors.shaped(adaptors.with_network(loss, thing), event)
    weight = "min-SNR" if options.get("min_snr_loss_weight") else "simple"
    runs[f"{name}.p_losses", "loss"] = lambda: assert_loss(
        loss, levels, times, predicts=PREDICTS[predicts], weight=weight, dtype=F32
    )
    if classes:
        return runs

    def step(network: Any, x: Tensor, t: int, s: int = -1) -> Tensor:
        x = x[..., 0] if name.endswith("1D") else x
        found = adaptors.with_network(thing.p_sample, thing)(network, x, t)
        return torch.as_tensor(found[0])

    at = driven.one_step(step, levels, predicts)
    runs[f"{name}.p_sample", "last step"] = partial(driven.no_noise, at)
    runs[f"{name}.p_sample", "posterior"] = partial(driven.steps_of, at, levels, times, predicts)

    def start(x0: Tensor, setting: int, noise: Tensor) -> tuple[Tensor, int]:
        seen: list[tuple[Tensor, int]] = []

        def network(x: Tensor, t: Tensor, *_: Any) -> Tensor:
            seen.append((x.flatten(1), int(t[0])))
            return torch.zeros_like(x)

        x = x0.reshape(1, *event)
        between = adaptors.with_network(thing.interpolate, thing)
        with drawing(repeat(noise)):
            between(network, x, x, t=setting, lam=0.0)
        return seen[0]

    runs[f"{name}.interpolate", "img2img start"] = lambda: assert_img2img_start(
        start, levels, times, [10, 25, 49], dtype=F32
    )
    return runs


def conditioned_on_itself(predicts: str) -> None:
    """Self-conditioning, with the clean image 0 and the noise 1."""
    where = "denoising_diffusion_pytorch"
    x, t = torch.zeros(1, *IMAGE), torch.tensor([20])
    noise = torch.ones_like(x)

    def loss(network: Any, own: bool = True) -> Tensor:
        thing = diffusion(where, "GaussianDiffusion", network, objective=predicts, timesteps=50)
        thing.self_condition = own
        with mock.patch.object(module(where), "random", return_value=0.0):
            return torch.as_tensor(thing.p_losses(x, t, noise=noise))

    quarter = lambda x, *_: torch.full_like(x, 0.25)  # noqa: E731
    thing = diffusion(where, "GaussianDiffusion", quarter, objective=predicts, timesteps=50)
    x0 = thing.model_predictions(thing.q_sample(x, t, noise), t).pred_x_start
    driven.own_prediction(loss, x0, float(loss(quarter, False)))


def sampler(kind: str, order: int, noisy: bool = False, **options: Any) -> Sampler:
    """A sampler that takes fewer steps than the training has."""
    if kind in ("sample", "sample_using_dpmpp"):

        def of_edm(n: int, network: Any, channels: int, batch: int) -> Tensor:
            if n == 1:
                raise UnsupportedError("one step is 0 / 0")
            made = edm(network, image_size=1, channels=channels, S_churn=0.0)
            return 2 * torch.as_tensor(getattr(made, kind)(batch, num_sample_steps=n)) - 1

        return driven.sampler(kind, VE(81.0), of_edm, float, order, noisy, at_first=80.0)
    where, _, name = kind.rpartition(".")
    of_line = name.endswith("1D")
    first = diffusion(where, name, timesteps=1000, **options)

    def run(n: int, network: Any, channels: int, batch: int) -> Tensor:
        if n >= 1000:
            raise UnsupportedError("1000 steps are DDPM's")
        size = {"seq_length": 1} if of_line else {"image_size": 1}
        said = {"said": {"channels": channels, "out_dim": channels}, "auto_normalize": False}
        given = lambda x, t, *_, **__: network(x, t)  # noqa: E731
        made = diffusion(where, name, given, sampling_timesteps=n, **size, **said, **options)
        found: Tensor = made.sample(batch)
        return found

    schedule = Discrete(first.betas.double())
    predicts = KINDS[options["objective"]]
    return driven.sampler(kind, schedule, run, lambda t: t + 1, order, noisy, predicts)


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas by setting, then samplers."""
    given = partial(formulas_of, LIBRARY, limits=LIMITS)
    own, line = "denoising_diffusion_pytorch", "denoising_diffusion_pytorch_1d"
    flat, guide = "GaussianDiffusion", "guided_diffusion"
    for predicts in PREDICTS:
        for table in ("linear", "cosine", "sigmoid"):
            setting = {"beta_schedule": table, "min_snr_loss_weight": table == "cosine"}
            words = f"{predicts}, {table}" + ", min-SNR" * (table == "cosine")
            yield from given(words, discrete(own, flat, predicts, **setting))
        for where, name in ((line, f"{flat}1D"), (guide, flat), ("repaint", flat)):
            yield from given(f"{where}, {predicts}", discrete(where, name, predicts))
        yield from given(
            f"classifier_free_guidance, {predicts}",
            discrete("classifier_free_guidance", flat, predicts),
        )
    more: Found = {
        **{
            (f"{flat}.p_losses, {predicts}", "self-conditioning"): partial(
                conditioned_on_itself, predicts
            )
            for predicts in PREDICTS
        },
        (f"{flat}.p_losses, offset_noise_strength", "arguments"): kept_noise,
        (f"{flat}.ddim_sample, cosine, eta=1", "finite"): finite,
        ("WeightedObjectiveGaussianDiffusion.p_sample_loop", "runs"): weighted,
        ("linear_beta_schedule, 21 steps", "betas"): partial(few, 21),
        ("linear_beta_schedule, 20 steps", "betas"): partial(few, 20),
    }
    more |= schedules(module(own), ("linear_beta_schedule", *COSINE, "sigmoid_beta_schedule"))
    more |= schedules(module(line), ("linear_beta_schedule", *COSINE))
    for where, names in CONTINUOUS.items():
        more |= schedules(module(where), names)
    yield from given("defaults", more | learned() | elucidated() | guided() | parts())
    name = "ContinuousTimeGaussianDiffusion"
    for table, least in (("linear", False), ("cosine", True), ("learned", False)):
        options = {"noise_schedule": table, "min_snr_loss_weight": least}
        found = continuous("continuous_time_gaussian_diffusion", name, "pred_noise", **options)
        yield from given(f"{table}, min_snr_loss_weight={least}", found)
    where = "v_param_continuous_time_gaussian_diffusion"
    yield from given("", continuous(where, "VParamContinuousTimeGaussianDiffusion", "pred_v"))
    for predicts, least in (("v", True), ("eps", True), ("v", False)):
        kind = {"v": "pred_v", "eps": "pred_noise"}[predicts]
        options = {"pred_objective": predicts, "min_snr_loss_weight": least}
        for shift in ({}, {"noise_d": 4}, {"noise_d_low": 2, "noise_d_high": 4}):
            found = continuous("simple_diffusion", flat, kind, **options, **shift)
            words = ", ".join(f"{key}={value}" for key, value in (options | shift).items())
            yield from given(f"simple_diffusion, {words}", found)
    cases: list[tuple[str, int, bool, dict[str, Any]]] = [
        (f"{where}.{flat}{end}", 1, eta > 0, {"objective": predicts, "ddim_sampling_eta": eta})
        for where, end in ((own, ""), (line, "1D"), (guide, ""))
        for predicts in PREDICTS
        for eta in (0.0, 1.0)
    ]
    cases = [*cases[:6:5], cases[8]] if quick else cases
    cases += [("sample", 2, False, {}), ("sample_using_dpmpp", 2, False, {})]
    yield from subjects_of(LIBRARY, sampler, cases)
