"""denoising-diffusion-pytorch: discrete, continuous-time, learned-variance, guided, EDM's."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import pairwise, repeat
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_math.schedule import VE, Discrete
from diffusion_math.testing import (
    Sampler,
    UnsupportedError,
    adaptors,
    assert_bound,
    assert_decoder,
    assert_forward,
    assert_guidance,
    assert_img2img_start,
    assert_learned_variance,
    assert_loss,
    assert_posterior,
    drawn,
    of,
    weights,
)
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._isolated_import import without
from experiments.audit.peers._lucidrains import KINDS, Network, check, drawing
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
F32, IMAGE = torch.float32, (1, 2, 2)
PREDICTS = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
LIMITS = {
    "Unet.forward_with_cond_scale": (
        "the update's part along the prediction is left out, as in APG, which the README cites"
    ),
    "ElucidatedDiffusion.sample": "the paper's eq. 5 is 0 / 0 for one step",
}
Found = dict[tuple[str, str], Callable[[], Any]]


def module(name: str) -> Any:
    """One of the library's modules."""
    with without("torchvision", "accelerate", "pytorch_fid"):
        return driven.quiet(import_module(f"denoising_diffusion_pytorch.{name}"))


def diffusion(where: str, name: str, network: Any = None, **options: Any) -> Any:
    """A diffusion of a module, on images of 2 x 2 or lines of 4 where no size is said."""
    size = {"seq_length": 4} if name.endswith("1D") else {"image_size": 2}
    net = Network(network or (lambda x, *_, **__: x), **options.pop("said", {}))
    return getattr(module(where), name)(net, **{**size, **options})


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

    runs[f"{name}.p_sample", "posterior"] = lambda: assert_posterior(
        driven.one_step(step, levels, predicts),
        levels,
        times,
        spread="deviation",
        batched=False,
        dtype=F32,
        pairs=None if predicts == "pred_x0" else pairwise(times[40::-1]),  # float32
    )

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


def learned() -> Found:
    """LearnedGaussianDiffusion: Improved DDPM's variance and bound."""
    where, name = "learned_gaussian_diffusion", "LearnedGaussianDiffusion"
    said = {"out_dim": 2}
    make = partial(diffusion, where, name, said=said, objective="pred_noise", timesteps=50)
    thing = make()
    levels, times = driven.of_table(thing), range(50)

    def variance(v: Tensor, t: Tensor) -> Tensor:
        v = v.reshape(-1, *IMAGE)
        output = torch.cat([torch.zeros_like(v), v], 1)
        found = thing.p_mean_variance(x=v, t=t, clip_denoised=False, model_output=output)
        return torch.as_tensor(found[2]).flatten(1)

    def losses(weight: float, v: float, network: Any, *given: Tensor) -> Tensor:
        """Of each example, in float64 as far as its tables go."""

        def both(x: Tensor, t: Tensor) -> Tensor:
            eps = network(x.flatten(1)).reshape(x.shape)
            return torch.cat([eps, torch.full_like(eps, v)], 1)

        x0, t, noise = given
        own = make(both, vb_loss_weight=weight)
        x0, noise = (each.double().reshape(-1, *IMAGE) for each in (x0, noise))
        return torch.as_tensor(own.p_losses(x0, t, noise, loss_reduction="none"))

    def term(v: float, *given: Any) -> Tensor:
        return (losses(1.0, v, *given) - losses(0.0, v, *given)).float()

    def hybrid() -> None:
        x0, t = torch.ones(1, 4), torch.tensor([20])
        given = (lambda x: 0.1 * x), x0, t, 0.5 * x0
        default = thing.vb_loss_weight
        got = losses(default, 0.0, *given) - losses(0.0, 0.0, *given)
        one = losses(1.0, 0.0, *given) - losses(0.0, 0.0, *given)
        check(float(got / one), 0.001 * 50, "weight of the mean of 50 terms, of 0.001 their sum")

    def ddim() -> None:
        make(lambda x, t: torch.cat([x, x], 1), sampling_timesteps=5).sample(1)

    log_probability = module(where).discretized_gaussian_log_likelihood
    decoder = lambda x, mean, scale: log_probability(x, means=mean, log_scales=scale)  # noqa: E731
    runs: Found = {
        (f"{name}.p_mean_variance", "learned variance"): lambda: assert_learned_variance(
            variance, levels, times, first=1e-20, dtype=F32
        ),
        (f"{name}.p_losses", "loss"): hybrid,
        (f"{name}.ddim_sample", "runs"): ddim,
        ("discretized_gaussian_log_likelihood", "decoder"): lambda: assert_decoder(
            decoder, tolerance=5e-3
        ),
    }
    for v, said_of in ((1.0, "beta"), (-1.0, "beta~")):
        runs[f"{name}.p_losses, variance {said_of}", "bound"] = partial(
            assert_bound,
            partial(term, v),
            levels,
            times,
            variance=said_of,
            unit="bits/dim",
            dtype=F32,
        )
    return runs


def continuous(where: str, name: str, predicts: str, **options: Any) -> Found:
    """Continuous-time diffusions: forward, loss, steps between any times, and the last."""
    said = {"random_or_learned_sinusoidal_cond": True}
    thing = diffusion(where, name, said=said, **options).double()
    log_snr = thing.log_snr

    def levels(t: float) -> tuple[Tensor, Tensor]:
        found = log_snr(torch.tensor(t, dtype=torch.float64)).detach()
        return found.sigmoid().sqrt(), (-found).sigmoid().sqrt()

    times = [k / 20 for k in range(1, 20)]
    weight = "min-SNR" if getattr(thing, "min_snr_loss_weight", False) else None
    weight = "simple" if weight is None and where == "simple_diffusion" else weight
    loss = adaptors.shaped(adaptors.with_network(thing.p_losses, thing), IMAGE)

    def step(network: Any, x: Tensor, t: float, s: float) -> Tensor:
        times = torch.tensor([t, s], dtype=torch.float64)
        return torch.as_tensor(adaptors.with_network(thing.p_sample, thing)(network, x, *times))

    at = driven.one_step(step, levels, predicts)

    def last() -> None:
        x = torch.ones(1, 4).double()
        left = float(at(torch.zeros_like(x), x * levels(0.002)[1], 0.002, 0.0)[0][0, 0])
        assert left < 1e-3, f"noise left on clean data by the last of 500 steps: {left:.3g}"

    return {
        (f"{name}.q_sample", "forward"): lambda: assert_forward(
            lambda *given: thing.q_sample(*given)[0], levels, times
        ),
        (f"{name}.p_losses", "loss"): lambda: assert_loss(
            loss, levels, times, predicts=PREDICTS[predicts], weight=weight
        ),
        (f"{name}.p_sample", "posterior"): lambda: assert_posterior(
            at, levels, times, spread="deviation", batched=False, pairs=pairwise(times[::-1])
        ),
        (f"{name}.p_sample", "last step"): last,
    }


def edm(network: Any, **options: Any) -> Any:
    """ElucidatedDiffusion with a denoiser in the place of its preconditioned network."""

    def inner(x: Tensor, told: Tensor, *_: Any) -> Tensor:
        sigma = (4 * told).exp().reshape(-1, 1, 1, 1).double()
        x = x / made.c_in(sigma)
        x0 = network(x, sigma.flatten())
        return torch.as_tensor((x0 - made.c_skip(sigma) * x) / made.c_out(sigma))

    said = {"random_or_learned_sinusoidal_cond": True}
    made = diffusion("elucidated_diffusion", "ElucidatedDiffusion", inner, said=said, **options)
    return made


def elucidated() -> Found:
    """ElucidatedDiffusion: preconditioning, loss, a single step."""
    name = "ElucidatedDiffusion"
    thing = edm(None)
    sigmas = [0.01, 0.1, 0.5, 1.0, 3.0, 20.0]

    def preconditioning() -> None:
        for sigma in sigmas:
            s = torch.tensor([sigma]).double()
            skip, out, scale = (float(each(s)) for each in (thing.c_skip, thing.c_out, thing.c_in))
            check(scale**2 * (sigma**2 + 0.25), 1.0, "variance of the network's input")
            check(out**2, 0.25 * (1 - skip) ** 2 + (skip * sigma) ** 2, "c_out^2")
            check(skip, 0.25 / (sigma**2 + 0.25), "c_skip")
            check(float(thing.loss_weight(s)) * out**2, 1.0, "weight of the network's error")
            check(float(thing.c_noise(s)), math.log(sigma) / 4, "c_noise")

    def loss(network: Any, x0: Tensor, sigma: Tensor) -> Tensor:
        of_x0 = lambda x, told: network(x.flatten(1), told).reshape(x.shape)  # noqa: E731
        given = edm(of_x0, channels=1)
        return torch.as_tensor(given((x0.reshape(-1, *IMAGE) + 1) / 2, sigma=sigma))

    def one_step() -> None:
        made = edm(lambda x, sigma: 0 * x, channels=1).sample(1, num_sample_steps=1)
        assert bool(made.isfinite().all()), "one step: every sample is NaN"

    def churned() -> None:
        options = {"image_size": 8, "channels": 1, "S_churn": 20.0, "S_noise": 1.0}
        run = lambda network: edm(network, **options).sample(1, num_sample_steps=20)  # noqa: E731
        driven.noise_levels(run, float, 8)

    return {
        (f"{name}, preconditioning", "formula"): preconditioning,
        (f"{name}.forward", "loss"): lambda: assert_loss(
            drawn(loss), lambda t: (1.0, t), sigmas, predicts="x0", weight=weights.edm(0.5)
        ),
        (f"{name}.sample", "one step"): one_step,
        (f"{name}.sample, S_churn", "levels"): churned,
    }


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
        class Net(Network):
            def forward_with_cond_scale(self, *given: Any, **options: Any) -> Any:
                own = SimpleNamespace(forward=lambda x, *_, **__: x)
                return forward(own, *given, **options)

        with mock.patch.object(driven, "Network", Net):
            name = module(free).GaussianDiffusion
        thing = name(Net(lambda x: x), image_size=2, timesteps=4)
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
    }


def all_timesteps() -> None:
    """The last of all states is the sample."""
    options = {"timesteps": 50, "sampling_timesteps": 5}
    made = diffusion("guided_diffusion", "GaussianDiffusion", lambda x, *_: 0.5 * x, **options)
    with drawing(repeat(torch.ones(1))):
        states, end = made.sample(1, return_all_timesteps=True), made.sample(1)
    check(float((states[:, -1] - end).abs().max()), 0.0, "last state and sample differ by")


def repainted(resample: bool) -> None:
    """RePaint with nothing known."""
    side, made = 15, None

    def run(network: Any) -> None:
        nonlocal made
        options = {"timesteps": 60, "objective": "pred_x0", "image_size": side}
        given = lambda x, t, *_: network(x, t)  # noqa: E731
        made = diffusion("repaint", "GaussianDiffusion", given, **options)
        gt, mask = torch.full((1, 1, side, side), 0.5), torch.zeros(1, 1, side, side)
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


def few(steps: int) -> None:
    """The tables of a short linear schedule."""
    made = diffusion(
        "denoising_diffusion_pytorch", "GaussianDiffusion", beta_schedule="linear", timesteps=steps
    )
    most = float(made.betas.max())
    assert most < 1, f"the largest beta of {steps} steps: got {most:.3g}, expected below 1"


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
        ("WeightedObjectiveGaussianDiffusion.p_sample_loop", "runs"): weighted,
        ("linear_beta_schedule, 21 steps", "betas"): partial(few, 21),
        ("linear_beta_schedule, 20 steps", "betas"): partial(few, 20),
    }
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
