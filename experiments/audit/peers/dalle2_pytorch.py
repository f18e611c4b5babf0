"""dalle2-pytorch: its noise schedules, the prior of embeddings and the decoder of images."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_math.schedule import Discrete
from diffusion_math.testing import (
    Sampler,
    UnsupportedError,
    assert_decoder,
    assert_guidance,
    assert_loss,
)
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._lucidrains import KINDS, check
from experiments.audit.peers._lucidrains_schedules import schedules
from experiments.audit.peers.dalle2_learned_variance import learned
from experiments.audit.peers.dalle2_models import (
    IMAGE,
    PREDICTS,
    Found,
    decoder,
    module,
    prior,
    said,
)
from experiments.audit.peers.dalle2_scheduler import scheduler
from experiments.audit.subject import Subject, subjects_of

UNTRIED = {
    "DecoderTrainer, DiffusionPriorTrainer": "they read and write files",
    "DALLE2.forward, DiffusionPrior.sample": "they want CLIP's weights",
    "OpenAIClipAdapter, OpenClipAdapter, XClipAdapter": "other libraries' networks",
    "VQGanVAE, Unet, DiffusionPriorNetwork": "networks",
    "Decoder(loss_type='l1' or 'huber')": "no squared error",
    "LowresConditioner, blur": "images are blurred by kornia; its noise is NoiseScheduler's",
    "Decoder(learned_variance_constrain_frac=True)": "a share through a sigmoid, of no paper",
}
"""What the library exports and is not audited, and why."""

LOOPS = ("DiffusionPrior", "Decoder")
LEADING = (
    "noise is told an inner time, as by DDIM's leading times; see arXiv:2305.08891, section 3.3"
)
LIMITS = {
    f"{kind}.p_sample_loop_ddim, {n} steps, from noise": LEADING
    for kind in LOOPS
    for n in (1, 10, 100)
}
LIBRARY, F32 = "dalle2-pytorch", torch.float32


def of_decoder(predicts: str) -> Found:
    """The decoder's loss, step and self-conditioning, by what its network predicts."""
    given = {**said(predicts), "image_embed": None}

    def own(network: Any, p2: float = 0.0, **options: Any) -> Any:
        thing = decoder(network, p2_loss_weight_gamma=p2, **options)
        call = partial(thing.p_losses, thing.unets[0], noise_scheduler=thing.noise_schedulers[0])
        return partial(call, **given)

    levels = driven.of_table(decoder(None).noise_schedulers[0])

    def loss(p2: float, network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        of_image = lambda x, t, _: network(x.flatten(1), t).reshape(x.shape)  # noqa: E731
        x0, noise = (each.reshape(-1, *IMAGE) for each in (x0, noise))
        return torch.as_tensor(own(of_image, p2)(x0, t, noise=noise))

    def step(network: Any, x: Tensor, t: int, s: int = -1) -> Tensor:
        thing = decoder(lambda x, t, _: network(x))
        options = {"noise_scheduler": thing.noise_schedulers[0], **given}
        return torch.as_tensor(
            thing.p_sample(thing.unets[0], x, torch.full((len(x),), t), **options)[0]
        )

    def itself(make: Any) -> None:
        x, t = torch.zeros(1, *IMAGE), torch.tensor([20])
        noise, table = torch.ones_like(x), decoder(None).noise_schedulers[0]
        quarter: Any = lambda x, *_: torch.full_like(x, 0.25)  # noqa: E731
        x_t = table.q_sample(x, t, noise)
        x0 = {
            "pred_noise": table.predict_start_from_noise(x_t, t, quarter(x)),
            "pred_x0": quarter(x),
            "pred_v": table.predict_start_from_v(x_t, t, quarter(x)),
        }[predicts]

        def run(network: Any, self_cond: bool = True) -> Tensor:
            with mock.patch.object(module().random, "random", return_value=0.0):
                return torch.as_tensor(make(network, self_cond)(x, t, noise=noise))

        driven.own_prediction(run, x0, float(run(quarter, False)))

    def of_prior(network: Any, self_cond: bool) -> Any:
        thing = prior(network, self_cond=self_cond, **said(predicts))
        return partial(thing.p_losses, text_cond={})

    def prior_loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        thing = prior(lambda x, t, _: network(x, t), **said(predicts))
        return torch.as_tensor(thing.p_losses(x0, t, {}, noise=noise))

    times, at = range(50), driven.one_step(step, levels, predicts)
    fits = partial(assert_loss, levels=levels, times=times, predicts=PREDICTS[predicts], dtype=F32)
    found: Found = {
        ("Decoder.p_losses", "loss"): lambda: fits(partial(loss, 0.0)),
        ("Decoder.p_losses", "self-conditioning"): lambda: itself(
            lambda network, self_cond: own(network, self_cond=self_cond)
        ),
        ("Decoder.p_sample", "last step"): partial(driven.no_noise, at),
        ("Decoder.p_sample", "posterior"): partial(driven.steps_of, at, levels, times, predicts),
        ("DiffusionPrior.p_losses", "loss"): lambda: fits(prior_loss),
        ("DiffusionPrior.p_losses", "self-conditioning"): lambda: itself(of_prior),
        **learned(predicts, levels),
    }
    if predicts == "pred_noise":
        found["Decoder.p_losses, p2_loss_weight_gamma", "loss"] = lambda: fits(
            partial(loss, 1.0), weight="P2"
        )
    return found


def others() -> Found:
    """Guidance, the decoder of the bound, inpainting, arguments, starts of sampling."""
    where = module()

    def combine(kind: Any, cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        own = SimpleNamespace(forward=lambda **drops: uncond if drops else cond)
        return torch.as_tensor(kind.forward_with_cond_scale(own, cond_scale=w))

    def log_probability(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        options = {"means": mean.float(), "log_scales": scale.float()}
        found = where.discretized_gaussian_log_likelihood(x.float(), **options)
        return torch.as_tensor(found)

    def embedding() -> None:
        thing = prior(lambda x, *_: x)
        run = partial(thing.forward, None, None, torch.ones(1, 4))
        driven.leaves_alone(lambda given: run(given), torch.ones(1, 4), "image_embed")

    def batches() -> None:
        prior(lambda x, *_: x).sample_batch_size(1, {})

    def inpainted(known: bool, times: int) -> None:
        side = 14
        table = decoder(None, timesteps=30).noise_schedulers[0]

        def run(network: Any) -> None:
            given: Any = {"image_size": side, "timesteps": 30, "predict_x_start": True}
            thing = decoder(lambda x, t, _: network(x, t), **given)
            mask = torch.full((1, side, side), known)
            images = torch.zeros(1, 1, side, side)
            thing.sample(inpaint_image=images, inpaint_mask=mask, inpaint_resample_times=times)

        def deviation(t: float) -> float:
            return float(table.sqrt_one_minus_alphas_cumprod[int(t)])

        driven.noise_levels(run, deviation, side, least=1.001 * deviation(0))

    def start(n: int, make: Any, counted: bool = False) -> None:
        """The first time told is the last of the table: what is drawn is pure noise."""
        told: list[int] = []

        def network(x: Tensor, t: Tensor, *_: Any) -> Tensor:
            told.append(int(t[0]))
            return torch.zeros_like(x)

        make(n, network)
        if counted:
            check(len(told), n, "evaluations of the network")
        elif told:
            check(told[0], 999, "the time that is told of pure noise")

    def unclipped(predicts: str, steps: int) -> None:
        """Entries of an embedding, which the library scales to mean square 1, are beyond 1 too."""
        wanted = torch.tensor([[2.0, -1.0, 0.5, 0.0]])

        def network(x: Tensor, t: Tensor, *_: Any) -> Tensor:
            alpha, sigma = driven.of_table(thing.noise_scheduler)(t[0])
            eps = (x - alpha * wanted) / sigma
            return alpha * eps - sigma * wanted if predicts == "pred_v" else eps

        thing = prior(network, **said(predicts))
        found = thing.p_sample_loop((1, 4), text_cond={}, timesteps=steps)
        largest = float((found * thing.image_embed_scale).max())
        check(largest, 2.0, "the largest entry of a scaled embedding", 1e-2)

    few: dict[str, Any] = {"timesteps": 1000, "predict_x_start": True}

    def of_prior(n: int, network: Any) -> None:
        prior(network, timesteps=1000).p_sample_loop((1, 4), text_cond={}, timesteps=n)

    def of_decoder(n: int, network: Any) -> None:
        decoder(network, **few, sample_timesteps=n).sample()

    runs: Found = {
        (f"{kind.__name__}.forward_with_cond_scale", "guidance"): partial(
            assert_guidance, partial(combine, kind)
        )
        for kind in (where.DiffusionPriorNetwork, where.Unet)
    }
    loops = dict(zip(LOOPS, (of_prior, of_decoder), strict=True))
    for n, (kind, make) in product((1, 10, 100), loops.items()):
        name = f"{kind}.p_sample_loop_ddim, {n} steps"
        runs[f"{name}, from noise", "start"] = partial(start, n, make)
        runs[name, "evaluations"] = partial(start, n, make, counted=True)
    for predicts, steps in product(("pred_noise", "pred_v"), (50, 10)):
        name = f"DiffusionPrior.p_sample_loop, {predicts}, {steps} of 50 steps"
        runs[name, "embedding"] = partial(unclipped, predicts, steps)
    return runs | {
        ("discretized_gaussian_log_likelihood", "decoder"): lambda: assert_decoder(
            log_probability, tolerance=5e-3
        ),
        ("DiffusionPrior.forward", "arguments"): embedding,
        ("DiffusionPrior.sample_batch_size", "runs"): batches,
        ("Decoder.sample, inpaint_image, all known", "levels"): partial(inpainted, True, 1),
        ("Decoder.sample, inpaint_resample_times=1", "levels"): partial(inpainted, False, 1),
        ("Decoder.sample, inpaint_image, none known", "levels"): partial(inpainted, False, 2),
    }


def sampler(kind: str, order: int, noisy: bool = False, **options: Any) -> Sampler:
    """A sampler that takes fewer steps than the training has."""
    predicts = options.pop("predicts")
    table = module().NoiseScheduler(beta_schedule="cosine", timesteps=1000, loss_type="l2")

    def run(n: int, network: Any, channels: int, batch: int) -> Tensor:
        if n >= 1000:
            raise UnsupportedError("1000 steps are DDPM's")
        given = lambda x, t, _: network(x, t)  # noqa: E731
        if kind == "DiffusionPrior":
            thing = prior(given, channels, timesteps=1000, **said(predicts))
            shape, more = (batch, channels), n + 1  # its own count is one too many
            found = thing.p_sample_loop(shape, text_cond={}, timesteps=more)
            return torch.as_tensor(found * thing.image_embed_scale)
        size: dict[str, Any] = {
            "image_size": 1,
            "channels": channels,
            "timesteps": 1000,
            "sample_timesteps": n,
        }
        return torch.as_tensor(
            decoder(given, **size, **said(predicts), **options).sample(batch_size=batch)
        )

    schedule = Discrete(table.betas.double())
    return driven.sampler(
        kind, schedule, run, lambda t: t + 1, order, noisy, predicts=KINDS[predicts]
    )


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas by setting, then samplers."""
    given = partial(formulas_of, LIBRARY, limits=LIMITS)
    for table in ("cosine", "linear", "quadratic", "sigmoid"):
        yield from given(f"beta_schedule={table}", scheduler(table))
    for predicts in PREDICTS:
        yield from given(predicts, of_decoder(predicts))
    tables = ("linear_beta_schedule", "quadratic_beta_schedule", "cosine_beta_schedule")
    yield from given("defaults", others() | schedules(module(), tables))
    kinds = list(PREDICTS)[: 1 if quick else 3]
    cases: list[tuple[str, int, bool, dict[str, Any]]] = []
    for predicts in kinds:
        cases.append(("DiffusionPrior", 1, True, {"predicts": predicts}))
        for eta in (0.0, 1.0):
            options = {"predicts": predicts, "ddim_sampling_eta": eta}
            cases.append(("Decoder", 1, eta > 0, options))
    yield from subjects_of(LIBRARY, sampler, cases)
